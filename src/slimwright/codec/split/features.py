"""Components as whole numbers, and whole numbers as bytes.

A component y, in steps, becomes the whole number towards zero of |y| + 0.4, with its sign: what lies in the middle
between two numbers is cheaper as the smaller one. Under a coarser scale it is divided by a power of the root of two
before. Each component has its own odds and scale in the coder, for each coarser scale, from calibration images; both
sides have these tables. Numbers are clipped, so that no value of a component breaks the code.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from slimwright.codec import symbols
from slimwright.codec.symbols import indices_for
from slimwright.errors import CodecError
from slimwright.swz.entropy import Coder, Decoder, Encoder, Ints

Floats = NDArray[np.float32]
Values = tuple[Floats, ...]  # of one image, for each value that is sent: components [R, places]
ROUNDED_UP = 0.4  # how far from the smaller number a component may be away from the larger one: see the docstring
MOST_NUMBER = 2**18
MOST_ROW = symbols.MOST_SCALE - symbols.LEAST_SCALE
MOST_SCALES = 32  # each coarser by the root of two


@dataclass(frozen=True)
class Tables:
    """By scale [S] and component [R], for one value: the coder's indices of odds and scale. `places` per component."""

    odds: NDArray[np.uint8]  # [S, R]
    scales: NDArray[np.uint8]  # [S, R]
    places: int

    @property
    def components(self) -> int:
        """How many components there are."""
        return int(self.odds.shape[1])


def rounded(components: Floats, scale: int) -> Ints:
    """Return components in steps as whole numbers, under a coarser scale. Raises CodecError for NaN and infinity."""
    if not np.isfinite(components).all():
        raise CodecError("the phone's part gave values that are no numbers; check the input for NaN and infinity")
    sizes = np.floor(np.abs(components) * np.float32(2 ** (-scale / 2)) + np.float32(ROUNDED_UP))
    found: Ints = (np.sign(components) * np.minimum(sizes, MOST_NUMBER)).astype(np.int32)
    return found


def restored(numbers: Ints, scale: int) -> Floats:
    """Return what whole numbers stand for, in steps."""
    return numbers.astype(np.float32) * np.float32(2 ** (scale / 2))


def tables_of(components: Floats) -> Tables:
    """Return the tables that suit the components [N, R, places] of calibration images, in steps.

    The coarsest scale is the first under which all are zero.
    """
    odds, scales = [], []
    for scale in range(MOST_SCALES):
        numbers = rounded(components, scale)
        found = [indices_for(numbers[:, component].ravel()) for component in range(components.shape[1])]
        odds.append([one for one, _ in found])
        scales.append([one for _, one in found])
        if not numbers.any():
            break
    return Tables(np.array(odds, np.uint8), np.array(scales, np.uint8), components.shape[2])


def check_tables(tables: Sequence[Tables]) -> None:
    """Raise CodecError where tables that were read do not fit one another, or the coder."""
    for one in tables:
        if one.odds.shape != one.scales.shape or not 1 <= len(one.odds) <= MOST_SCALES or not one.components:
            raise CodecError(f"tables of shapes {one.odds.shape} and {one.scales.shape} are none of ours")
        if int(one.odds.max()) > 2 * symbols.MOST_ODDS or int(one.scales.max()) > MOST_ROW:
            raise CodecError("tables name rows that the coder does not have")


def scales_of(tables: Sequence[Tables]) -> int:
    """Return how many scales there are; the next one sends nothing."""
    return max(len(one.odds) for one in tables)


def packed(values: Values, tables: Sequence[Tables], scale: int) -> bytes:
    """Return the components of one image as bytes, under a scale."""
    if scale >= scales_of(tables):
        return b""
    coder = Encoder()
    for value, of in zip(values, tables, strict=True):
        _coded(coder, of, scale, rounded(value, scale).ravel())
    return coder.finished()


def unpacked(data: bytes | memoryview, tables: Sequence[Tables], scale: int) -> Values:
    """Return the components that bytes hold, in steps. Raises ModelError for bytes that no encoder wrote."""
    if scale >= scales_of(tables):
        return tuple(np.zeros((of.components, of.places), np.float32) for of in tables)
    coder = Decoder(data)
    found = (_coded(coder, of, scale, None).reshape(of.components, of.places) for of in tables)
    return tuple(restored(numbers, scale) for numbers in found)


def _coded(coder: Coder, tables: Tables, scale: int, given: Ints | None) -> Ints:
    row = min(scale, len(tables.odds) - 1)
    odds, scales = (np.repeat(table[row].astype(np.int64), tables.places) for table in (tables.odds, tables.scales))
    return symbols.coded(coder, odds, scales, given)
