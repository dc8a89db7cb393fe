"""The forms in which a tensor may be stored, found from its values: the smallest is taken.

    raw               its bytes
    bytes             byte by byte, each plane as it is, constant or entropy-coded (planes.py)
    grid              whole multiples of a float32 step, by context (grid.py, context.py)
    codebook          places in a table of few values, by context
    sparse grid       the same numbers as gaps and codes, Huffman-coded (huffman.py)
    sparse codebook
    masked            which are zero, and the signs of the others, by context; the rest of those byte by byte
    row grids         whole multiples of a float32 step of each row (an output's weights), by context
    hashed            a table, of which each place takes the value that its hash says (hashed.py)
    same              the base's tensor of this name, to the bit
    difference        what its bits, as whole numbers, are more than the base's, byte by byte

All are lossless to the bit: NaNs keep their payload, zeros their sign. Numbers are bits here, as unsigned words.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from slimwright.errors import ModelError
from slimwright.swz import context, hashed, huffman, planes
from slimwright.swz.bytes_of import Reader, varints
from slimwright.swz.entropy import Ints
from slimwright.swz.grid import MOST_VALUES, Floats, Numbered, from_grid, numbered, rows_numbered
from slimwright.swz.hashed import Hashed
from slimwright.swz.planes import Words

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
    "hashed",
)
GRIDS = ("grid", "sparse grid", "row grids")  # whose numbers are whole, times a step
DTYPES: Mapping[str, int] = {  # the bytes of a number; the place is the number of the dtype in files
    "float32": 4,
    "float64": 8,
    "float16": 2,
    "bfloat16": 2,
    "int64": 8,
    "int32": 4,
    "int16": 2,
    "int8": 1,
    "uint8": 1,
    "bool": 1,
}
WORDS: dict[int, np.dtype[Any]] = {size: np.dtype(f"u{size}") for size in (1, 2, 4, 8)}
MASKED = 1 / 32  # of a float tensor's numbers that are zero, from where a mask of them may pay
LARGE, WORTHWHILE = 2**16, 0.99  # Huffman codes are read at a third of the speed: of large tensors, for a hundredth


@dataclass(frozen=True)
class Like:
    """What a tensor is besides its numbers: a dtype of `DTYPES`, and a shape."""

    dtype: str
    shape: tuple[int, ...]

    @property
    def count(self) -> int:
        """How many numbers it has."""
        return prod(self.shape)

    @property
    def word(self) -> np.dtype[Any]:
        """The unsigned number that has as many bits."""
        return WORDS[DTYPES[self.dtype]]

    @property
    def floats(self) -> bool:
        """Whether its numbers are floats."""
        return "float" in self.dtype


@dataclass(frozen=True)
class Stored:
    """A tensor in one form, as bytes."""

    form: str
    data: bytes


def smallest(words: Words, like: Like, before: Words | None = None, by_hash: Hashed | None = None) -> Stored:
    """Return the bits [n] of a tensor in their smallest form; `before` are those of a like one that the reader has.

    `by_hash` says how its values may follow from their places.
    """
    if before is not None and np.array_equal(words, before):
        return Stored("same", b"")
    return min(candidates(words, like, before, by_hash), key=lambda one: len(one.data))


def bits(form: str, data: bytes | memoryview, like: Like, before: Words | None = None) -> Words:
    """Return the bits [n] of the tensor in these bytes.

    Raises ModelError where the bytes are not such, or need a base's tensor that is missing.
    """
    if form in ("same", "difference"):
        if before is None:
            raise ModelError("it is stored as what it is more than a base's, which has no tensor of its kind and shape")
        return before if form == "same" else _differing(data, before)
    words = READERS[form](data, like)
    if like.dtype == "bool" and words.max(initial=0) > 1:
        raise ModelError("a truth value is neither 0 nor 1")
    return words


def candidates(
    words: Words, like: Like, before: Words | None = None, by_hash: Hashed | None = None
) -> Iterator[Stored]:
    """Yield the forms that may be the smallest of a tensor's bits [n]."""
    least = words.nbytes
    yield Stored("raw", words.astype(words.dtype.newbyteorder("<")).tobytes())
    single = like.dtype == "float32"
    if single and by_hash is not None and (made_by_hash := hashed.encoded(words, by_hash)) is not None:
        least = min(least, len(made_by_hash))
        yield Stored("hashed", made_by_hash)
    found = numbered(words.view(np.float32)) if single else ()
    for one in found:
        for made in _numbers(one, like.shape):
            least = min(least, len(made.data))
            yield made
    if single and len(like.shape) > 1 and like.count and all(one.step is None for one in found):
        rows = rows_numbered(words.view(np.float32).reshape(like.shape[0], -1))
        if rows is not None:
            made = Stored("row grids", _steps(rows[1]) + context.encoded(rows[0], like.shape))
            least = min(least, len(made.data))
            yield made
    if like.floats and MASKED * len(words) <= np.count_nonzero(words == 0) < len(words):
        made = Stored("masked", _mask(words, like.shape))
        least = min(least, len(made.data))
        yield made
    if before is not None:
        yield Stored("difference", planes.encoded(_zigzag(words - before), floats=False))
    if 2 * least > words.nbytes:  # else few values beat any bytes
        yield Stored("bytes", planes.encoded(words, floats=like.floats))


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


def whole_numbers(form: str, data: bytes | memoryview, like: Like) -> tuple[Ints, Floats]:
    """Return the whole numbers [n] of a tensor whose form is some grid, and the step of each row or of all [steps].

    Raises ModelError where the bytes are not such.
    """
    source = _floats_only(data, like)
    if form != "row grids":
        step = np.frombuffer(source.take(4), "<f4").astype(np.float32)
        return _numbers_by(form)(source.rest(), like.shape), step
    if len(like.shape) < 2:
        raise ModelError(f"its form is for rows, and it has {len(like.shape)} dimensions")
    rows = like.shape[0] if like.count else 0
    steps = planes.decoded(source.take(source.varint()), WORDS[4], rows, floats=True).view(np.float32)
    return context.decoded(source.rest(), like.shape), steps


def _on_grid(form: str) -> Callable[[bytes | memoryview, Like], Words]:
    def words(data: bytes | memoryview, like: Like) -> Words:
        numbers, steps = whole_numbers(form, data, like)
        if not len(numbers):
            return np.zeros(0, WORDS[4])
        with np.errstate(all="ignore"):
            return from_grid(numbers.reshape(len(steps), -1), steps[:, None]).reshape(-1).view(np.uint32)

    return words


def _mask(words: Words, shape: Sequence[int]) -> bytes:
    there = words != 0
    sign = _sign(words.dtype)
    coded = context.encoded(np.where(there, np.where(words & sign, -1, 1), 0).astype(np.int32), shape)
    return varints((len(coded),)) + coded + planes.encoded(words[there] & ~sign, floats=True)


def _masked(data: bytes | memoryview, like: Like) -> Words:
    if not like.floats:
        raise ModelError(f"its form is for floats, and it is {like.dtype}")
    source, word = Reader(bytes(data)), like.word
    signs = context.decoded(source.take(source.varint()), like.shape)
    if np.abs(signs).max(initial=0) > 1:
        raise ModelError("a sign is neither 1 nor -1")
    words: Words = np.zeros(len(signs), word)
    words[signs != 0] = planes.decoded(source.rest(), word, int(np.count_nonzero(signs)), floats=True)
    return np.where(signs < 0, words | _sign(word), words)


def _hashed(data: bytes | memoryview, like: Like) -> Words:
    return hashed.decoded(_floats_only(data, like).rest(), like.count)


def _sign(word: np.dtype[Any]) -> Any:
    """The bit of a float's sign."""
    return word.type(1 << (8 * word.itemsize - 1))


def _numbers_by(form: str) -> Callable[[memoryview, Sequence[int]], Ints]:
    if form.startswith("sparse"):
        return lambda data, shape: huffman.decoded(data, prod(shape))
    return context.decoded


def _in_table(form: str) -> Callable[[bytes | memoryview, Like], Words]:
    read = _numbers_by(form)

    def words(data: bytes | memoryview, like: Like) -> Words:
        source = _floats_only(data, like)
        count, zero = source.varint(MOST_VALUES), source.varint(MOST_VALUES)
        coded = source.take(source.varint())
        table: Words = planes.decoded(coded, WORDS[4], count, floats=True)
        places = read(source.rest(), like.shape).astype(np.int64) + zero
        if len(places) and (places.min() < 0 or places.max() >= count):
            raise ModelError(f"it names a value beyond the {count:,} of its table")
        return table[places]

    return words


def _floats_only(data: bytes | memoryview, like: Like) -> Reader:
    if like.dtype != "float32":
        raise ModelError(f"its form is for float32, and it is {like.dtype}")
    return Reader(bytes(data))


def _raw(data: bytes | memoryview, like: Like) -> Words:
    word = like.word
    if len(data) != word.itemsize * like.count:
        raise ModelError(f"it has {len(data):,} bytes for {like.count:,} numbers of {word.itemsize}")
    return np.frombuffer(bytes(data), word.newbyteorder("<")).astype(word)


def _bytes(data: bytes | memoryview, like: Like) -> Words:
    return planes.decoded(data, like.word, like.count, floats=like.floats)


READERS: dict[str, Callable[[bytes | memoryview, Like], Words]] = {
    "raw": _raw,
    "bytes": _bytes,
    **{form: _on_grid(form) for form in GRIDS},
    **{form: _in_table(form) for form in ("codebook", "sparse codebook")},
    "masked": _masked,
    "hashed": _hashed,
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
