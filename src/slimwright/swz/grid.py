"""Whole numbers behind float32 values: a grid's step, or a table of the few values that there are."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from slimwright.swz.entropy import Ints, bits_of

MOST_VALUES = 4096  # different ones, of a table
TABLE_BYTES = 3.5  # of a value, at least
MOST_ON_GRID = 2**15
MOST_NUMBER = 2**22
PARTS = 64  # the smallest value is looked for as up to so many steps
SAMPLE = 2**16
NEIGHBOURS = 3  # floats beside a step that are tried
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Numbered:
    """Values [n] as whole numbers [n]: times a step, or places in a table in which `zero` is number 0."""

    numbers: Ints
    step: np.float32 | None = None
    table: Floats | None = None
    zero: int = 0


def numbered(values: Floats) -> tuple[Numbered, ...]:
    """Return what values [n] are as whole numbers, to the bit: on a grid, in a table, both or neither."""
    bits = values.view(np.uint32)
    few = np.unique(bits[:SAMPLE])
    if len(few) > MOST_ON_GRID:
        return ()
    if len(bits) > SAMPLE and (told := _told_by(few.view(np.float32), values)):
        return (told,)
    unique, places, counts = np.unique(bits, return_inverse=True, return_counts=True)
    if not len(unique) or len(unique) > MOST_ON_GRID:
        return ()
    found = unique.view(np.float32)
    step = step_of(found)
    made = (Numbered(_multiples(found, step)[places], step=step),) if step is not None else ()
    table_bytes = TABLE_BYTES * len(unique) + bits_of(counts) / 8
    pays = len(unique) <= MOST_VALUES and table_bytes < values.nbytes
    return made + ((_in_table(found, places),) if pays else ())


def _told_by(few: Floats, values: Floats) -> Numbered | None:
    """Values [n] on the grid of the first ones, where a table of them would hardly be shorter; else None."""
    step = step_of(few)
    if step is None or not np.isfinite(values).all() or np.abs(values).max() / float(step) > MOST_NUMBER:
        return None
    numbers = _multiples(values, step)
    if not np.array_equal(from_grid(numbers, step).view(np.uint32), values.view(np.uint32)):
        return None
    counts = np.bincount(numbers - numbers.min())
    return Numbered(numbers, step=step) if 2 * np.count_nonzero(counts) > len(counts) else None


def step_of(values: Floats) -> np.float32 | None:
    """Return the largest step of which all different values [n] are float32(step * k) for whole k; None without one.

    Tried are the smallest value's parts, to a 64th, and a few floats beside each. A zero with a sign is on no grid.
    """
    negative_zero = (values == 0) & np.signbit(values)
    if not np.isfinite(values).all() or negative_zero.any() or not values.any():
        return None
    smallest = np.abs(values[values != 0]).min()
    largest = float(np.abs(values).max())
    few = values[:: max(len(values) // 64, 1)]
    for part in range(1, PARTS + 1):
        step = np.float32(smallest / np.float32(part))
        if step == 0 or largest / float(step) > MOST_NUMBER:
            return None
        for near in _around(step):
            if _fits(few, near) and _fits(values, near):
                return near
    return None


def multiples(values: Floats, most: int) -> tuple[Ints, float] | None:
    """Return values [n] as whole numbers of at most `most` either way and their step; None where they are no such."""
    step = step_of(np.unique(values + np.float32(0))) if values.any() else np.float32(1)  # no zero with a sign
    if step is None:
        return None
    numbers = _multiples(values, step)
    return (numbers, float(step)) if np.abs(numbers).max(initial=0) <= most else None


def rows_numbered(rows: Floats) -> tuple[Ints, Floats] | None:
    """Return rows [R, n] as whole numbers [R n], to the bit, and the step [R] of each; None where one is on no grid."""
    found = []
    for row in rows:
        one = None if (np.signbit(row) & (row == 0)).any() else multiples(row, MOST_ON_GRID)
        if one is None:
            return None
        found.append(one)
    steps = np.array([step for _, step in found], np.float32)
    return np.concatenate([numbers for numbers, _ in found] or [np.zeros(0, np.int32)]), steps


def from_grid(numbers: Ints, step: np.float32 | Floats) -> Floats:
    """Return float32(step * k) for whole numbers k [...]."""
    return (numbers.astype(np.float64) * np.asarray(step, np.float64)).astype(np.float32)


def _around(step: np.float32) -> list[np.float32]:
    found = [step]
    for way in (np.float32(0), np.float32(np.inf)):
        near = step
        for _ in range(NEIGHBOURS):
            near = np.nextafter(near, way)
            found.append(near)
    return [near for near in found if near > 0 and np.isfinite(near)]


def _multiples(values: Floats, step: np.float32) -> Ints:
    return np.rint(values.astype(np.float64) / np.float64(step)).astype(np.int32)


def _fits(values: Floats, step: np.float32) -> bool:
    return bool((from_grid(_multiples(values, step), step) == values).all())


def _in_table(unique: Floats, places: NDArray[np.int64]) -> Numbered:
    """Values by their place in a table in order of size; the one nearest to zero is number 0."""
    order = np.lexsort((unique.view(np.uint32), np.nan_to_num(unique, nan=np.inf)))
    table = unique[order]
    rank = np.empty(len(order), np.int32)
    rank[order] = np.arange(len(order), dtype=np.int32)
    plain = np.flatnonzero(table.view(np.uint32) == 0)
    zero = int(plain[0]) if len(plain) else int(np.argmin(np.abs(np.nan_to_num(table, nan=np.inf))))
    return Numbered(rank[places.reshape(-1)] - np.int32(zero), table=table, zero=zero)
