"""A small detector and a small segmenter for rendered scenes (`scenes:boxes`, `scenes:masks`): our own, for trials.

The detector is CenterNet (Zhou et al. 2019, arXiv 1904.07850) on a feature pyramid of three levels (Lin et al. 2017,
arXiv 1612.03144); the segmenter is a U-Net (Ronneberger et al. 2015, arXiv 1505.04597) of four levels. The sides of
images must be divisible by 16, and by 8.
"""

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from slimwright.zoo.weights import he_normal

RARE = 0.1  # what an untrained detector says of each place, so that the first steps are not spent on the background


class GlyphDetector(nn.Module):
    """Images to the heat map, sizes and offsets of CenterNet at a quarter of their size."""

    def __init__(self, *, classes: int, in_channels: int, width: int = 48) -> None:
        super().__init__()
        self.stem = nn.Sequential(*_conv(in_channels, 16, 2), *_conv(16, 32, 2), *_conv(32, 32))
        self.middle = nn.Sequential(*_conv(32, 64, 2), *_conv(64, 64))
        self.deep = nn.Sequential(*_conv(64, 96, 2), *_conv(96, 96))
        self.laterals = nn.ModuleList(nn.Conv2d(channels, width, 1) for channels in (32, 64, 96))
        self.head = nn.Sequential(*_conv(width, width), *_conv(width, width))
        self.heat, self.size, self.offset = (nn.Conv2d(width, count, 1) for count in (classes, 2, 2))
        he_normal(self)
        for last in (self.heat, self.size, self.offset):
            nn.init.normal_(last.weight, std=0.01)
        nn.init.constant_(_bias(self.heat), math.log(RARE / (1 - RARE)))
        nn.init.constant_(_bias(self.size), 4.0)
        nn.init.constant_(_bias(self.offset), 0.5)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """[N, in_channels, H, W] -> [N, classes, H/4, W/4] in 0..1, and twice [N, 2, H/4, W/4]."""
        levels = [self.stem(x)]
        for stage in (self.middle, self.deep):
            levels.append(stage(levels[-1]))
        low, middle, deep = (lateral(level) for lateral, level in zip(self.laterals, levels, strict=True))
        y = self.head(low + _doubled(middle + _doubled(deep)))
        return self.heat(y).sigmoid(), self.size(y), self.offset(y)


class GlyphUnet(nn.Module):
    """Images to a score for each class and pixel. Most of the work is at the small sizes, where a character fits in."""

    def __init__(self, *, classes: int, in_channels: int, widths: Sequence[int] = (8, 24, 48, 96)) -> None:
        super().__init__()
        down = [nn.Sequential(*_conv(in_channels, widths[0]), *_conv(widths[0], widths[0]))]
        pairs = list(pairwise(widths))
        down += [nn.Sequential(*_conv(wide, deep, 2), *_conv(deep, deep)) for wide, deep in pairs]
        self.down = nn.ModuleList(down)
        self.narrow = nn.ModuleList(nn.Conv2d(deep, wide, 1) for wide, deep in reversed(pairs))
        self.up = nn.ModuleList(nn.Sequential(*_conv(2 * wide, wide)) for wide, _ in reversed(pairs))
        self.scores = nn.Conv2d(widths[0], classes, 1)
        he_normal(self)
        nn.init.normal_(self.scores.weight, std=0.01)

    def forward(self, x: Tensor) -> Tensor:
        """[N, in_channels, H, W] -> scores [N, classes, H, W]."""
        levels = []
        for stage in self.down:
            x = stage(x)
            levels.append(x)
        for narrow, stage, level in zip(self.narrow, self.up, levels[-2::-1], strict=True):
            x = stage(torch.cat([_doubled(narrow(x)), level], 1))
        scores: Tensor = self.scores(x)
        return scores


def _conv(in_channels: int, channels: int, stride: int = 1) -> list[nn.Module]:
    return [nn.Conv2d(in_channels, channels, 3, stride, 1, bias=False), nn.BatchNorm2d(channels), nn.ReLU()]


def _doubled(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2.0, mode="nearest")


def _bias(layer: nn.Conv2d) -> Tensor:
    assert layer.bias is not None
    return layer.bias
