"""The wavelet transform of CDF 9/7 by lifting: a picture as bands, and back.

An analysis in whole numbers gives the same coefficients on every platform; a synthesis in floats can be differentiated.
The transform is near-orthonormal, so an error of the coefficients is about as large in the picture.
Source: Daubechies and Sweldens 1998, table 1; Taubman and Marcellin 2002, sec. 6.4.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

LEVELS = 6
MULTIPLE = 1 << LEVELS  # sizes are padded to it
LIFTS = (-1.586134342, -0.052980118, 0.882911076, 0.443506852)
SCALE = 1.149604398  # of low-pass samples; high-pass ones are divided by it
FRACTION_BITS = 6  # of whole-number coefficients
LIFT_BITS = 20
Times = Callable[[Tensor, float], Tensor]


@dataclass(frozen=True)
class Bands:
    """What a picture of [B, C, H, W] is made of: `low` [B, C, H/64, W/64], and three bands a level, the finest first.

    A level's bands [B, 3, C, h, w] are high-pass across, down, and both.
    """

    low: Tensor
    high: tuple[Tensor, ...]


def analysed(channels: Tensor) -> Bands:
    """Return the bands of whole numbers [B, C, H, W] with `FRACTION_BITS` bits below the point, in the same."""
    return _analysed(channels, _whole)


def analysed_floats(picture: Tensor) -> Bands:
    """Return the bands of floats [B, C, H, W]; they differ from whole numbers' by rounding."""
    return _analysed(picture, torch.mul)


def synthesised(bands: Bands) -> Tensor:
    """Return the picture [B, C, H, W] of bands of floats."""
    low = bands.low
    for across, down, both in (level.unbind(1) for level in reversed(bands.high)):
        top, bottom = _joined(low, across, -1), _joined(down, both, -1)
        low = _joined(top, bottom, -2)
    return low


def _analysed(low: Tensor, times: Times) -> Bands:
    high = []
    for _ in range(LEVELS):
        top, bottom = _split(low, -2, times)
        low, across = _split(top, -1, times)
        down, both = _split(bottom, -1, times)
        high.append(torch.stack((across, down, both), 1))
    return Bands(low, tuple(high))


def _split(values: Tensor, dim: int, times: Times) -> tuple[Tensor, Tensor]:
    """Return the low-pass and the high-pass half along a dimension of even length."""
    even, odd = _phases(values, dim)
    for place, lift in enumerate(LIFTS):
        if place % 2 == 0:
            odd = odd + times(even + _next(even, dim), lift)
        else:
            even = even + times(odd + _previous(odd, dim), lift)
    return times(even, SCALE), times(odd, 1 / SCALE)


def _joined(low: Tensor, high: Tensor, dim: int) -> Tensor:
    """Return what `_split` split, of floats."""
    even, odd = low / SCALE, high * SCALE
    for place, lift in reversed(list(enumerate(LIFTS))):
        if place % 2 == 0:
            odd = odd - lift * (even + _next(even, dim))
        else:
            even = even - lift * (odd + _previous(odd, dim))
    return torch.stack((even, odd), -1).flatten(-2) if dim == -1 else torch.stack((even, odd), -2).flatten(-3, -2)


def _phases(values: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    """Return the samples at even places and those at odd ones."""
    return (values[..., ::2], values[..., 1::2]) if dim == -1 else (values[..., ::2, :], values[..., 1::2, :])


def _next(values: Tensor, dim: int) -> Tensor:
    """Return each sample's successor; the last one is its own, as a mirror at the border has it."""
    last = values.shape[dim] - 1
    return torch.cat((values.narrow(dim, 1, last), values.narrow(dim, last, 1)), dim)


def _previous(values: Tensor, dim: int) -> Tensor:
    return torch.cat((values.narrow(dim, 0, 1), values.narrow(dim, 0, values.shape[dim] - 1)), dim)


def _whole(values: Tensor, factor: float) -> Tensor:
    """Return whole numbers times a factor of `LIFT_BITS` bits below the point, rounded."""
    return (values * round(factor * (1 << LIFT_BITS)) + (1 << LIFT_BITS - 1)) >> LIFT_BITS
