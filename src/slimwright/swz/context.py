"""Whole numbers of a weight tensor by context: which are zero, signs, magnitudes, each with what is known so far.

A tensor [C_out, C_in, kH, kW] is a matrix [C_out, C_in * kH * kW]. Rows and columns without a number other than zero
are named once and left out. The rest is coded some thousand numbers at a time, so that each step is a few array
operations. Whether a number is zero is predicted by how often its column was so far, by its row, whose count is sent
beforehand, and by the neighbours: above, in a row at a distance that the encoder chooses (where rows are the pixels of
an image, that of the pixel above), and, in a kernel, the taps already known. Counts of what came true under each
prediction correct it. Rows are taken with a stride, so that the row above is known when several are coded at once.

Everything is computed in whole numbers: a decoder on another machine makes the same predictions. Contexts of
neighbours are those of Wiedemann et al. 2020 (DeepCABAC, arXiv 1907.11900), section III; the predictions by row and
column are our own. Lossless. Sizes and speeds: `benchmarks/pack_speed.py`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod

import numpy as np
from numpy.typing import NDArray

from slimwright.errors import ModelError
from slimwright.swz.bytes_of import Reader, bit_mask, varints
from slimwright.swz.entropy import ONE, Coder, Counts, Decoder, Encoder, Ints, Shares, shares
from slimwright.swz.magnitudes import FEWEST, MOST_TOKEN, TRUST, UNIT, Numbers, Places, tokens_of

Plane = NDArray[np.uint8]
STEP_NUMBERS = 2**14  # flags coded at once
STEPS, LARGE_STEPS = 256, 64  # of tensors up to LARGE, and above
LOG_STEPS = 16  # of an octave
STRIDE_BITS = 3
LEVELS, LOWEST, STRIDE = 40, -208, 1 << STRIDE_BITS  # of predicted odds: from 2^-13, by half an octave
ALONE, NEAR = 8, 16  # states of what stands near a number
PRIOR = 4  # rows that a column's rate is drawn to the whole's with
FARTHEST = 64  # rows to another one that is alike, such as the pixel above in an image whose pixels are rows
ALIKE = 1.2  # times as many numbers in the same columns as by chance
ROWS_AT_ONCE = 16
LARGE = 2**19  # numbers, of which counts of rows always pay, and fewer steps are as good
TRANSPOSED, BY_ROW = 1, 2


def _log_table(most: int) -> Ints:
    """Return floor(16 log2 k) for k from 0 to `most`, with 0 for 0, from whole numbers alone."""
    steps = range(1, LOG_STEPS * most.bit_length() + 1)
    starts = [_root_above(step) for step in steps]  # the first k with k^16 >= 2^step
    table = np.searchsorted(np.array(starts), np.arange(most + 1), side="right")
    return table.astype(np.int32)


def _root_above(step: int) -> int:
    """Return the least k with k^16 >= 2^step."""
    low, high = 1, 2 ** (step // LOG_STEPS + 1)
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if middle**LOG_STEPS >= 2**step else (middle + 1, high)
    return low


LOG_MOST = 2**16
LOG = _log_table(LOG_MOST)


def _first_counts() -> Counts:
    """Return what each level of predicted odds counts before anything was seen: [levels, 2] of zeros and others."""
    counts = np.zeros((LEVELS, 2), np.int64)
    for level in range(LEVELS):
        halves = (LOWEST + STRIDE * level) // STRIDE  # half octaves
        odds = _root_above(LOG_STEPS * 16 + STRIDE * halves)  # 2^16 * 2^(halves / 2)
        others = TRUST * UNIT * odds // (odds + 2**16)
        counts[level] = max(TRUST * UNIT - others, 1), max(others, 1)
    return counts


FIRST = _first_counts()


@dataclass(frozen=True)
class Grid:
    """How a matrix of numbers is walked through: `taps` columns in a row belong together, as those of a kernel do."""

    rows: int
    columns: int
    taps: int = 1
    places: Places | None = None  # of the rows [rows] in the matrix with those that are all zero
    distance: int = 0  # to another row that is alike, besides the one above; 0 for none

    def alike(self) -> Places:
        """The row [rows] at the distance before each one; -1 where there is none."""
        assert self.places is not None
        where = np.full(int(self.places[-1]) + 1 + self.distance, -1, np.int64)
        where[self.places + self.distance] = np.arange(self.rows)
        return where[self.places]

    @property
    def strides(self) -> int:
        """In how many steps the rows are taken."""
        count = self.rows * self.columns
        at_once = min(max(count // (LARGE_STEPS if count > LARGE else STEPS), FEWEST), STEP_NUMBERS)
        return max(self.rows // max(at_once * self.taps // max(self.columns, 1), 1), 1) if self.rows else 0


def encoded(numbers: Ints, shape: Sequence[int]) -> bytes:
    """Return whole numbers [n], of a tensor of this shape, as bytes: the smallest of rows or columns first."""
    return min((_encoded(numbers, shape, flags) for flags in _ways(shape)), key=len)


def decoded(data: bytes | memoryview, shape: Sequence[int]) -> Ints:
    """Return the whole numbers [n] of a tensor of this shape. Raises ModelError where the bytes are not such."""
    if not prod(shape):
        return np.zeros(0, np.int32)
    source = Reader(bytes(data))
    flags = source.byte()
    if flags > TRANSPOSED | BY_ROW:
        raise ModelError(f"the way of its numbers is {flags}; it is at most {TRANSPOSED | BY_ROW}")
    rows, columns, taps = _extent(shape, flags)
    alive_rows, alive_columns = _read_alive(source, rows), _read_alive(source, columns)
    inner = _alive_extent(alive_rows, alive_columns, taps)
    distance = source.varint(FARTHEST) if inner.rows else 0
    inner = replace(inner, distance=distance)
    matrix = np.zeros((rows, columns), np.int32)
    if inner.rows and inner.columns:
        nonzero = source.varint(inner.rows * inner.columns)
        largest = source.varint(MOST_TOKEN)
        found = _walked(Decoder(source.rest()), inner, nonzero, largest, flags, None)
        matrix[np.ix_(alive_rows, alive_columns)] = found
    return np.ascontiguousarray(matrix.T if flags & TRANSPOSED else matrix).reshape(-1)


def _ways(shape: Sequence[int]) -> tuple[int, ...]:
    if len(shape) < 2:
        return (0,)
    turned = (BY_ROW, TRANSPOSED | BY_ROW)
    return turned if prod(shape) > LARGE else (0, TRANSPOSED, *turned)


def _extent(shape: Sequence[int], flags: int) -> tuple[int, int, int]:
    """Rows, columns and taps of a tensor of this shape."""
    rows, columns = (shape[0], prod(shape[1:])) if shape else (1, 1)
    if flags & TRANSPOSED:
        return columns, rows, 1
    return rows, columns, prod(shape[2:]) or 1


def _alive_extent(rows: NDArray[np.bool_], columns: NDArray[np.bool_], taps: int) -> Grid:
    """The matrix of rows and columns that are not zero; taps stay together only where none of theirs is missing."""
    whole = taps > 1 and bool((columns.reshape(-1, taps).sum(1) % taps == 0).all())
    return Grid(int(rows.sum()), int(columns.sum()), taps if whole else 1, np.flatnonzero(rows))


def _encoded(numbers: Ints, shape: Sequence[int], flags: int) -> bytes:
    rows, columns, taps = _extent(shape, flags)
    matrix = numbers.reshape((columns, rows)).T if flags & TRANSPOSED else numbers.reshape((rows, columns))
    alive_rows, alive_columns = (matrix != 0).any(1), (matrix != 0).any(0)
    head = bytes([flags]) + _written_alive(alive_rows) + _written_alive(alive_columns)
    inner = _alive_extent(alive_rows, alive_columns, taps)
    if not inner.rows:
        return head
    left = np.ascontiguousarray(matrix[np.ix_(alive_rows, alive_columns)])
    inner = replace(inner, distance=_distance((left != 0).astype(np.uint8), inner))
    nonzero, largest = int(np.count_nonzero(left)), int(tokens_of(np.abs(left[left != 0]) - 1)[0].max())
    coder = Encoder()
    _walked(coder, inner, nonzero, largest, flags, left)
    return head + varints((inner.distance, nonzero, largest)) + coder.finished()


def _distance(plane: Plane, inner: Grid) -> int:
    """The distance, from 2, at which rows [rows, columns] are most alike, as far as it can be known; else 0."""
    chance = float(plane.mean()) * float(plane.sum())
    best, most = 0, ALIKE * chance
    for distance in range(2, min(FARTHEST, inner.strides // 3) + 1):
        before = replace(inner, distance=distance).alike()
        both = float(np.count_nonzero(plane & np.where((before >= 0)[:, None], plane[before], 0)))
        if both > most:
            best, most = distance, both
    return best


def _written_alive(alive: NDArray[np.bool_]) -> bytes:
    """Which rows or columns are not all zero: a 0 where all are alive, else a 1 and the coded mask."""
    if alive.all():
        return b"\0"
    count = int(alive.sum())
    coder = Encoder()
    coder.symbols(np.array([len(alive) - count + 1, count + 1]), len(alive), alive.astype(np.int32))
    coded, plain = coder.finished(), bit_mask(alive)
    if len(coded) < len(plain):
        return b"\2" + varints((count, len(coded))) + coded
    return b"\1" + plain


def _read_alive(source: Reader, count: int) -> NDArray[np.bool_]:
    match source.byte():
        case 0:
            return np.ones(count, bool)
        case 1:
            return source.mask(count)
        case 2:
            alive = source.varint(count)
            coded = Decoder(source.take(source.varint()))
            return coded.symbols(np.array([count - alive + 1, alive + 1]), count, None).astype(bool)
    raise ModelError("it does not say which of its rows are zero")


class Odds:
    """Counts of zeros and others under each level of predicted odds and each state of the neighbours."""

    def __init__(self) -> None:
        self.counts = np.repeat(FIRST, NEAR, axis=0)  # [levels * near, 2]
        self.parts = self._parts()

    def _parts(self) -> Shares:
        zeros, others = self.counts.T
        return shares(np.clip(others * ONE // (zeros + others), 1, ONE - 1))

    def seen(self, contexts: Places, flags: Ints) -> None:
        """Count what came true."""
        both = np.bincount(2 * contexts + flags, minlength=self.counts.size)
        self.counts += UNIT * both.reshape(-1, 2)
        self.parts = self._parts()


def _walked(coder: Coder, inner: Grid, nonzero: int, largest: int, flags: int, given: Ints | None) -> Ints:
    """Code a matrix [rows, columns] in or out: first where it is not zero, then the numbers that are not."""
    plane = None if given is None else (given != 0).astype(np.uint8)
    counts = None if plane is None else plane.sum(1, dtype=np.int32)
    usual = _odds(nonzero, inner.rows * inner.columns - nonzero, inner.rows * inner.columns)
    rows = _row_odds(coder, inner, usual, counts) if flags & BY_ROW else np.zeros(inner.rows, np.int32)
    plane = _plane(coder, inner, nonzero, rows, plane)
    found = np.zeros(plane.shape, np.int32)
    places = np.flatnonzero(plane)
    numbers = Numbers(coder, inner.columns, largest, _kinds_of_rows(plane))
    found.reshape(-1)[places] = numbers.all(places, None if given is None else given.reshape(-1)[places])
    return found


def _plane(coder: Coder, inner: Grid, nonzero: int, rows: Ints, given: Plane | None) -> Plane:
    """Code where a matrix is not zero, [rows, columns]; `rows` are how far the odds of each lie from the usual ones."""
    whole = np.zeros((inner.rows + 1, inner.columns), np.uint8)  # and a row of zeros, for those that are missing
    found = whole[:-1]
    if nonzero >= found.size:
        return np.ones_like(found)
    alike = inner.alike() if inner.distance else None
    odds, others, seen = Odds(), np.zeros(inner.columns, np.int64), 0
    for step in range(inner.strides):
        part = slice(step, None, inner.strides)
        block = np.zeros_like(found[part])
        above = found[step - 1 :: inner.strides][: len(block)] if step else block.copy()
        levels = _column_odds(others, seen, (nonzero, found.size))
        near = _near_above(above, inner.taps)
        if alike is not None:
            near += whole[alike[part]] * np.uint8(ALONE)
        known = np.zeros((len(block), inner.columns // inner.taps), np.uint8)
        for tap in range(inner.taps):
            mine = slice(tap, None, inner.taps)
            level = ((levels[mine] + rows[part, None]) >> STRIDE_BITS) - LOWEST // STRIDE
            np.maximum(np.minimum(level, LEVELS - 1, out=level), 0, out=level)
            state = near[:, mine] + np.minimum(known, 3) if tap else near[:, mine]
            contexts = (level * NEAR + state).reshape(-1)
            wanted = None if given is None else given[part, mine].astype(np.int32).reshape(-1)
            flags = coder.flags(odds.parts[contexts], wanted)
            odds.seen(contexts, flags)
            block[:, mine] = flags.reshape(known.shape)
            known += block[:, mine]
        found[part] = block
        others += block.sum(0, dtype=np.int64)
        seen += len(block)
    return found


def _column_odds(others: Places, seen: int, rate: tuple[int, int]) -> Places:
    """16 log2 of the odds [columns] of a number other than zero, drawn to the rate of the whole where few were seen."""
    drawn = UNIT * PRIOR * rate[0] // rate[1]
    shift = max((seen + PRIOR).bit_length() - 11, 0)
    zeros = (UNIT * (seen - others) + UNIT * PRIOR - drawn) >> shift
    odds: Places = (LOG[((UNIT * others + drawn) >> shift) + 1] - LOG[zeros + 1]).astype(np.int64)
    return odds


def _near_above(above: Plane, taps: int) -> Plane:
    """The state [rows, columns] of the row above: a number there, and beside it; in kernels others are added to it."""
    if taps > 1:
        return above * np.uint8(4)
    state = above * np.uint8(3)
    state[:, 1:] += above[:, :-1]
    state[:, :-1] += above[:, 1:]
    return state


def _kinds_of_rows(plane: Plane) -> Places:
    """Whether a row [rows] has fewer numbers other than zero than most, as many, or more: 0, 1, 2."""
    counts = plane.sum(1, dtype=np.int64)
    scaled, mean = 4 * len(counts) * counts, 4 * int(counts.sum())
    kinds: Places = (scaled > mean * 3 // 4).astype(np.int64) + (scaled > mean * 5 // 4)
    return kinds


def _odds(others: int, zeros: int, whole: int) -> int:
    """16 log2 of others to zeros, of counts that sum to `whole`."""
    shift = max(whole.bit_length() - 14, 0)
    return int(LOG[(2 * others >> shift) + 1]) - int(LOG[(2 * zeros >> shift) + 1])


def _row_odds(coder: Coder, inner: Grid, usual: int, counts: Ints | None) -> Ints:
    """How far each row's odds lie from the usual ones [rows], in sixteenths of an octave, from its rounded count."""
    shift = max(inner.columns.bit_length() - 15, 0)
    wanted = None if counts is None else LOG[counts >> shift] // 4
    classes = int(LOG[inner.columns >> shift]) // 4 + 1
    seen = np.full(classes, 4, np.int64)
    read = np.zeros(inner.rows, np.int32)
    for start in range(0, inner.rows, ROWS_AT_ONCE):
        part = slice(start, min(start + ROWS_AT_ONCE, inner.rows))
        read[part] = coder.symbols(seen, part.stop - part.start, None if wanted is None else wanted[part])
        near = np.bincount(read[part], minlength=classes)
        seen += 16 * near
    middle = np.searchsorted(LOG[: (inner.columns >> shift) + 1] // 4, np.arange(classes), side="left").astype(np.int32)
    odds = LOG[2 * middle + 1] - LOG[2 * ((inner.columns >> shift) - middle) + 1]
    return odds[read] - np.int32(usual)
