"""How near a picture is to another one to the eye: structure at five scales.

Source: Wang, Simoncelli and Bovik 2003; a Gaussian window of 11 pixels with sigma 1.5, on each colour by itself.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)  # table of the paper, coarsest last
WINDOW, SIGMA = 11, 1.5
FIRST, SECOND = (0.01 * 255) ** 2, (0.03 * 255) ** 2


def ms_ssim(one: Tensor, other: Tensor) -> float:
    """Return the structural similarity of pictures [3, H, W] from 0 to 255; fewer scales where a side is below 161."""
    one, other = one[None].double(), other[None].double()
    scales = len(WEIGHTS)
    while scales > 1 and min(one.shape[-2:]) < (WINDOW - 1) * 2 ** (scales - 1) + 1:
        scales -= 1
    weights, found = torch.tensor(WEIGHTS[:scales]).double(), torch.ones(3).double()
    for scale, weight in enumerate(weights / weights.sum()):
        whole, contrast = _similarities(one, other)
        found = found * (whole if scale == scales - 1 else contrast).clamp(min=0) ** weight
        one, other = (F.avg_pool2d(picture, 2, ceil_mode=True, count_include_pad=False) for picture in (one, other))
    return float(found.mean())


def _similarities(one: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
    """Return the means by colour [3] of the whole index, and of contrast and structure alone."""
    places = torch.arange(WINDOW).double() - WINDOW // 2
    line = torch.exp(-places.square() / (2 * SIGMA**2))
    line = (line / line.sum()).expand(3, 1, 1, WINDOW)

    def smooth(picture: Tensor) -> Tensor:
        return F.conv2d(F.conv2d(picture, line, groups=3), line.transpose(2, 3), groups=3)

    mean, other_mean = smooth(one), smooth(other)
    variance, other_variance = smooth(one * one) - mean**2, smooth(other * other) - other_mean**2
    covariance = smooth(one * other) - mean * other_mean
    contrast = (2 * covariance + SECOND) / (variance + other_variance + SECOND)
    light = (2 * mean * other_mean + FIRST) / (mean**2 + other_mean**2 + FIRST)
    return (light * contrast).mean((0, 2, 3)), contrast.mean((0, 2, 3))
