"""The forms in which a tensor may be stored, found from its values: the smallest is taken.

    raw               its bytes
    bytes             byte by byte, each plane as it is, constant or entropy-coded (planes.py)
    grid              whole multiples of a float32 step, by context (grid.py, context.py)
    codebook          places in a table of few values, by context
    sparse grid       the same numbers as gaps and codes, Huffman-coded (huffman.py)
    sparse codebook
    masked            which are zero, and the signs of the others, by context; the rest of those byte by byte
    row grids         whole multiples of a float32 step of each row (an output's weights), by context
    same              the base's tensor of this name, to the bit
    difference        what its bits, as whole numbers, are more than the base's, byte by byte

All are lossless to the bit: NaNs keep their payload, zeros their sign.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import torch
from torch import Tensor

from slimwright.errors import ModelError
from slimwright.storage import context, huffman, planes
from slimwright.storage.bytes_of import Reader, varints
from slimwright.storage.entropy import Ints
from slimwright.storage.grid import MOST_VALUES, Floats, Numbered, from_grid, numbered, rows_numbered
from slimwright.storage.planes import Words

FORMS = (
    "raw",
    "bytes",
    "grid",
    "codebook",
    "sparse grid",
    "sparse codebook",
    "same",
    "difference",
    "masked",
    "row grids",
)
WORDS: dict[int, np.dtype[Any]] = {size: np.dtype(f"u{size}") for size in (1, 2, 4, 8)}
MASKED = 1 / 32  # of a float tensor's numbers that are zero, from where a mask of them may pay
LARGE, WORTHWHILE = 2**16, 0.99  # Huffman codes are read at a third of the speed: of large tensors, for a hundredth


@dataclass(frozen=True)
class Stored:
    """A tensor in one form, as bytes."""

    form: str
    data: bytes


def stored(values: Tensor, base: Tensor | None = None) -> Stored:
    """Return a tensor in its smallest form; `base` is a tensor that the reader has."""
    words = words_of(values)
    alike = base is not None and (base.dtype, base.shape) == (values.dtype, values.shape)
    before = words_of(base) if alike and base is not None else None
    if before is not None and np.array_equal(words, before):
        return Stored("same", b"")
    return min(_candidates(values, words, before), key=lambda one: len(one.data))


def restored(form: str, data: bytes | memoryview, like: Tensor, base: Tensor | None = None) -> Tensor:
    """Return the tensor in these bytes, of the dtype and shape of `like`, which holds nothing (device "meta").

    Raises ModelError where the bytes are not such, or need a base's tensor that is missing.
    """
    if form in ("same", "difference"):
        if base is None or (base.dtype, base.shape) != (like.dtype, like.shape):
            raise ModelError("it is stored as what it is more than a base's, which has no tensor of its kind and shape")
        if form == "same":
            return base.detach().clone()
        words = _differing(data, words_of(base))
    else:
        words = READERS[form](data, like)
    if like.dtype == torch.bool and words.max(initial=0) > 1:
        raise ModelError("a truth value is neither 0 nor 1")
    octets = torch.from_numpy(np.ascontiguousarray(words).view(np.uint8))
    return octets.view(like.dtype).reshape(like.shape)


def words_of(values: Tensor) -> Words:
    """Return the bits of a tensor's numbers [n] as unsigned whole numbers."""
    flat = values.detach().cpu().contiguous().reshape(-1)
    return flat.view(torch.uint8).numpy().view(WORDS[flat.element_size()])


def _candidates(values: Tensor, words: Words, before: Words | None) -> Iterator[Stored]:
    """The forms that may be the smallest."""
    least = words.nbytes
    yield Stored("raw", words.astype(words.dtype.newbyteorder("<")).tobytes())
    found = numbered(words.view(np.float32)) if values.dtype == torch.float32 else ()
    for one in found:
        for made in _numbers(one, values.shape):
            least = min(least, len(made.data))
            yield made
    if values.dtype == torch.float32 and values.ndim > 1 and all(one.step is None for one in found):
        rows = rows_numbered(words.view(np.float32).reshape(len(values), -1))
        if rows is not None:
            made = Stored("row grids", _steps(rows[1]) + context.encoded(rows[0], values.shape))
            least = min(least, len(made.data))
            yield made
    if values.is_floating_point() and MASKED * len(words) <= np.count_nonzero(words == 0) < len(words):
        made = Stored("masked", _mask(words, values.shape))
        least = min(least, len(made.data))
        yield made
    if before is not None:
        yield Stored("difference", planes.encoded(_zigzag(words - before), floats=False))
    if 2 * least > words.nbytes:  # else few values beat any bytes
        yield Stored("bytes", planes.encoded(words, floats=values.is_floating_point()))


def _numbers(one: Numbered, shape: Sequence[int]) -> Iterator[Stored]:
    kind, head = ("grid", _step(one.step)) if one.step is not None else ("codebook", _table(one))
    coded = context.encoded(one.numbers, shape)
    yield Stored(kind, head + coded)
    most = len(coded) * (WORTHWHILE if len(one.numbers) > LARGE else 1)
    gaps = huffman.smallest(one.numbers)
    if huffman.least_bytes(gaps) < most and len(sparse := huffman.encoded(gaps)) < most:
        yield Stored(f"sparse {kind}", head + sparse)


def _step(step: np.float32) -> bytes:
    return np.array([step], "<f4").tobytes()


def _table(one: Numbered) -> bytes:
    assert one.table is not None
    coded = planes.encoded(one.table.view(np.uint32), floats=True)
    return varints((len(one.table), one.zero, len(coded))) + coded


def _steps(steps: Floats) -> bytes:
    coded = planes.encoded(steps.view(np.uint32), floats=True)
    return varints((len(coded),)) + coded


def _row_grids(data: bytes | memoryview, like: Tensor) -> Words:
    source = _floats_only(data, like)
    if like.ndim < 2:
        raise ModelError(f"its form is for rows, and it has {like.ndim} dimensions")
    steps = planes.decoded(source.take(source.varint()), WORDS[4], len(like), floats=True).view(np.float32)
    numbers = context.decoded(source.rest(), like.shape).reshape(len(like), -1)
    with np.errstate(all="ignore"):
        return from_grid(numbers, steps[:, None]).reshape(-1).view(np.uint32)


def _mask(words: Words, shape: Sequence[int]) -> bytes:
    there = words != 0
    sign = _sign(words.dtype)
    coded = context.encoded(np.where(there, np.where(words & sign, -1, 1), 0).astype(np.int32), shape)
    return varints((len(coded),)) + coded + planes.encoded(words[there] & ~sign, floats=True)


def _masked(data: bytes | memoryview, like: Tensor) -> Words:
    if not like.is_floating_point():
        raise ModelError(f"its form is for floats, and it is {like.dtype}")
    source, word = Reader(bytes(data)), WORDS[like.element_size()]
    signs = context.decoded(source.take(source.varint()), like.shape)
    if np.abs(signs).max(initial=0) > 1:
        raise ModelError("a sign is neither 1 nor -1")
    words: Words = np.zeros(len(signs), word)
    words[signs != 0] = planes.decoded(source.rest(), word, int(np.count_nonzero(signs)), floats=True)
    return np.where(signs < 0, words | _sign(word), words)


def _sign(word: np.dtype[Any]) -> Any:
    """The bit of a float's sign."""
    return word.type(1 << (8 * word.itemsize - 1))


def _numbers_by(form: str) -> Callable[[memoryview, Sequence[int]], Ints]:
    if form.startswith("sparse"):
        return lambda data, shape: huffman.decoded(data, prod(shape))
    return context.decoded


def _from_numbers(form: str) -> Callable[[bytes | memoryview, Tensor], Words]:
    read = _numbers_by(form)

    def on_grid(data: bytes | memoryview, like: Tensor) -> Words:
        source = _floats_only(data, like)
        step = np.frombuffer(source.take(4), "<f4").astype(np.float32)[0]
        with np.errstate(all="ignore"):
            return from_grid(read(source.rest(), like.shape), step).view(np.uint32)

    def in_table(data: bytes | memoryview, like: Tensor) -> Words:
        source = _floats_only(data, like)
        count, zero = source.varint(MOST_VALUES), source.varint(MOST_VALUES)
        coded = source.take(source.varint())
        table: Words = planes.decoded(coded, WORDS[4], count, floats=True)
        places = read(source.rest(), like.shape).astype(np.int64) + zero
        if len(places) and (places.min() < 0 or places.max() >= count):
            raise ModelError(f"it names a value beyond the {count:,} of its table")
        return table[places]

    return on_grid if form.endswith("grid") else in_table


def _floats_only(data: bytes | memoryview, like: Tensor) -> Reader:
    if like.dtype != torch.float32:
        raise ModelError(f"its form is for float32, and it is {like.dtype}")
    return Reader(bytes(data))


def _raw(data: bytes | memoryview, like: Tensor) -> Words:
    word = WORDS[like.element_size()]
    if len(data) != word.itemsize * like.numel():
        raise ModelError(f"it has {len(data):,} bytes for {like.numel():,} numbers of {word.itemsize}")
    return np.frombuffer(bytes(data), word.newbyteorder("<")).astype(word)


def _bytes(data: bytes | memoryview, like: Tensor) -> Words:
    word = WORDS[like.element_size()]
    return planes.decoded(data, word, like.numel(), floats=like.is_floating_point())


READERS: dict[str, Callable[[bytes | memoryview, Tensor], Words]] = {
    "raw": _raw,
    "bytes": _bytes,
    **{form: _from_numbers(form) for form in FORMS[2:6]},
    "masked": _masked,
    "row grids": _row_grids,
}


def _differing(data: bytes | memoryview, before: Words) -> Words:
    return before + _unzigzag(planes.decoded(data, before.dtype, len(before), floats=False))


def _zigzag(words: Words) -> Words:
    """Small numbers of either sign as small unsigned ones."""
    bits, one = 8 * words.dtype.itemsize, words.dtype.type(1)
    negative = words >> words.dtype.type(bits - 1)
    return (words << one) ^ (negative * words.dtype.type(2**bits - 1))


def _unzigzag(words: Words) -> Words:
    one = words.dtype.type(1)
    return (words >> one) ^ ((words & one) * words.dtype.type(2 ** (8 * words.dtype.itemsize) - 1))
