"""Whole numbers as coefficients again, and what a small filter puts right in the picture that they give.

Within its step a coefficient is nearer to zero than the middle on average; how much is a table over the index of its
scale. The filter sees the picture in steps of the quantizer and no mean of its surroundings, so that one filter serves
every coarse step: y = x + step * filter(x / step).
"""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from slimwright.codec.wavelet import Bands, synthesised

FILTER = 8  # hidden channels
FILTERED_FROM = 34  # the index of the least step that pictures are filtered at: below it a filter gains nothing
STEP_UNIT = 8  # a step of index i is 2^(i/8) levels


def step_of(index: int) -> float:
    """Return the quantizer's step in levels."""
    return float(2.0 ** (index / STEP_UNIT))


def values_of(numbers: Tensor, scales: Tensor, offsets: Tensor) -> Tensor:
    """Return coefficients in steps for whole numbers and the indices of their scales; `offsets` [2, scales]."""
    sizes = numbers.abs()
    shift = torch.where(sizes == 1, offsets[0][scales], offsets[1][scales])
    return numbers.sign() * (sizes - shift)


def channels_of(coefficients: Bands, step: float, filter_: Mapping[str, Tensor]) -> Tensor:
    """Return a picture's channels [B, C, H, W] of coefficients in steps, filtered."""
    picture = synthesised(coefficients)
    if step >= step_of(FILTERED_FROM):
        picture = picture + correction(picture, filter_)
    return step * picture


def correction(picture: Tensor, filter_: Mapping[str, Tensor]) -> Tensor:
    """Return what the filter adds to channels [B, C, H, W] in steps."""
    first = filter_["filter_weight0"]
    first = first - first.mean((2, 3), keepdim=True)
    padded = F.pad(picture, (1, 1, 1, 1), mode="replicate")
    hidden = F.conv2d(padded, first, filter_["filter_bias0"]).relu()
    return F.conv2d(hidden, filter_["filter_weight1"], filter_["filter_bias1"], padding=1)


def fresh_filter(channels: int, seed: int) -> dict[str, Tensor]:
    """Return a filter that adds nothing yet."""
    chance = torch.Generator().manual_seed(seed)
    return {
        "filter_weight0": torch.randn(FILTER, channels, 3, 3, generator=chance) * 0.2,
        "filter_bias0": torch.zeros(FILTER),
        "filter_weight1": torch.zeros(channels, FILTER, 3, 3),
        "filter_bias1": torch.zeros(channels),
    }
