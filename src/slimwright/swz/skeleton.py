"""A runtime's file without its weights, which a packed net puts in again, bit by bit.

For each tensor of the packed net its bytes are looked for in the file: as they are, as float16, or as the whole numbers
behind them, in the order of its axes or in another that runtimes use. Spans that equal them are left out, whatever they
mean there, so any runtime's file may be cut. What is not found stays. Exact: SHA-256 of the result is compared.

    3, 1      SWK, version 1
    32        SHA-256 of the file
    varint    how many spans, then for each, in their order:
      varint    bytes of the skeleton before it
      varint    the tensor, by its place in the packed net's table; each at most once
      1         0: its bytes; 1: float32 rounded to float16; 2: its whole numbers as int8
      varints   how many axes, 0 for its own order, and which of its axes each is
              all other bytes of the file
"""

import hashlib
import io
from bisect import bisect
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from slimwright.errors import ModelError
from slimwright.swz.bytes_of import Reader, varints
from slimwright.swz.file import MOST_RANK, Entry, data_of, opened
from slimwright.swz.forms import GRIDS, bits, whole_numbers

START = b"SWK\1"
DIGEST_BYTES = 32
AS_IT_IS, AS_FLOAT16, AS_INT8 = range(3)
FEWEST_BYTES = 16  # of a tensor that is worth a span
AXES: Mapping[int, tuple[tuple[int, ...], ...]] = {  # orders in which runtimes keep weights, by rank
    2: ((1, 0),),
    3: ((0, 2, 1), (2, 1, 0), (2, 0, 1)),
    4: ((0, 2, 3, 1), (2, 3, 1, 0), (1, 0, 2, 3), (1, 2, 3, 0), (2, 3, 0, 1), (2, 0, 1, 3)),
}
Array = NDArray[np.generic]
PACKED = "the packed net"


@dataclass(frozen=True)
class Span:
    """A part of the file that a tensor is: where it begins, the tensor's place, how it is written, and its axes."""

    offset: int
    tensor: int
    way: int
    axes: tuple[int, ...]
    size_bytes: int


def skeleton(data: bytes, packed: bytes) -> tuple[bytes, int]:
    """Return the skeleton of a runtime's file, and how many of its bytes it leaves to the packed net.

    Raises ModelError where the packed net cannot be read by itself.
    """
    file, entries = _opened(packed)
    spans: list[Span] = []
    for place in sorted(range(len(entries)), key=lambda place: -entries[place].like.count):
        if found := _found(data, file, entries[place], place, spans):
            spans.insert(bisect([span.offset for span in spans], found.offset), found)
    table, rest, at = [varints((len(spans),))], [], 0
    for span in spans:
        before = varints((span.offset - at, span.tensor))
        table.append(before + bytes([span.way]) + varints((len(span.axes), *span.axes)))
        rest.append(data[at : span.offset])
        at = span.offset + span.size_bytes
    made = START + hashlib.sha256(data).digest() + b"".join((*table, *rest, data[at:]))
    assert unpacked(made, packed) == data
    return made, sum(span.size_bytes for span in spans)


def unpacked(made: bytes, packed: bytes) -> bytes:
    """Return the runtime's file of a skeleton and a packed net.

    Raises ModelError where one of them is damaged, or the net is not the one that the skeleton was made for.
    """
    file, entries = _opened(packed)
    source = Reader(made)
    if source.left < len(START) + DIGEST_BYTES or source.take(len(START)) != START:
        raise ModelError("the skeleton is not one, or of another version")
    digest, used, spans = bytes(source.take(DIGEST_BYTES)), set(), []
    for _ in range(source.varint(len(entries))):
        before, place = source.varint(), source.varint(len(entries) - 1)
        if place in used:
            raise ModelError("the skeleton names a tensor twice")
        used.add(place)
        spans.append((before, place, source.byte(), _read_axes(source)))
    parts: list[bytes | memoryview] = []
    for before, place, way, axes in spans:
        parts += [source.take(before), _written(file, entries[place], place, way, axes)]
    result = b"".join([*parts, source.rest()])
    if hashlib.sha256(result).digest() != digest:
        raise ModelError("the packed net is not the one that the skeleton was made for: the SHA-256 is another")
    return result


def _opened(packed: bytes) -> tuple[BinaryIO, list[Entry]]:
    file = io.BytesIO(packed)
    return file, list(opened(file, len(packed), PACKED)[1])


def _read_axes(source: Reader) -> tuple[int, ...]:
    rank = source.varint(MOST_RANK)
    axes = tuple(source.varint(rank - 1) for _ in range(rank))
    if len(set(axes)) < rank:
        raise ModelError("the skeleton names an axis twice")
    return axes


def _written(file: BinaryIO, entry: Entry, place: int, way: int, axes: tuple[int, ...]) -> bytes:
    """The bytes of a span."""
    numbers = dict(_ways(file, entry, place)).get(way)
    if numbers is None or len(axes) not in (0, numbers.ndim):
        raise ModelError(f"the skeleton wants tensor {place} in a way in which it cannot be written")
    return (numbers.transpose(axes) if axes else numbers).tobytes()


def _ways(file: BinaryIO, entry: Entry, place: int) -> Iterator[tuple[int, Array]]:
    """The ways in which a tensor may be written, and its numbers in each."""
    data, like = data_of(file, entry, PACKED, place), entry.like
    words = bits(entry.form, data, like)
    yield AS_IT_IS, words.astype(words.dtype.newbyteorder("<")).reshape(like.shape)
    if like.dtype == "float32":
        values = words.view(np.float32)
        if np.isfinite(values).all():
            with np.errstate(over="ignore"):
                yield AS_FLOAT16, values.astype("<f2").reshape(like.shape)
    if entry.form in GRIDS:
        numbers, _ = whole_numbers(entry.form, data, like)
        if numbers.min(initial=0) >= -128 and numbers.max(initial=0) <= 127:
            yield AS_INT8, numbers.astype(np.int8).reshape(like.shape)


def _found(data: bytes, file: BinaryIO, entry: Entry, place: int, taken: list[Span]) -> Span | None:
    """The first span of a file that is a tensor in some way, and that no other one has taken."""
    for way, numbers in _ways(file, entry, place):
        if numbers.nbytes < FEWEST_BYTES:
            continue
        for axes in ((), *AXES.get(numbers.ndim, ())):
            octets = (numbers.transpose(axes) if axes else numbers).tobytes()
            at = data.find(octets)
            while at >= 0:
                over = [span for span in taken if span.offset < at + len(octets) and at < span.offset + span.size_bytes]
                if not over:
                    return Span(at, place, way, axes, len(octets))
                at = data.find(octets, over[-1].offset + over[-1].size_bytes)
    return None
