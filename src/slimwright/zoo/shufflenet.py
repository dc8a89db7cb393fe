"""ShuffleNet for photographs: grouped 1x1 convolutions, and a shuffle that lets the groups see each other.

Source: Zhang et al. 2018 (arXiv 1707.01083), figure 2 and table 1. The shuffle stands after the first 1x1 convolution,
as in the paper; the authors' later code has it behind the depthwise one, so weights do not carry over between the two.
At 224x224 pixels and 1000 classes:

    groups                         1           2           3           4           8
    parameters             1,531,936   1,733,848   1,865,728   1,968,344   2,434,768
    the paper's M MACs           143         140         137         133         137

The scale multiplies every number of channels. What the paper leaves open is settled so: where the groups do not
divide the channels of a bottleneck (a quarter of its unit's), these are rounded up until they do; and the stem's
channels are those of the authors' code, which has no scale 0.25: there they are 12, and 8 with 8 groups, which do
not divide 12; that comes to between 12.4 and 14.0 M multiply-accumulates where the paper has 13.
"""

import math

import torch
from torch import Tensor, nn

from slimwright.errors import ModelError
from slimwright.zoo.weights import he_normal

WIDTHS = {1: 144, 2: 200, 3: 240, 4: 272, 8: 384}  # groups -> channels of the first stage: table 1
STEM = {0.25: (12, 8), 0.5: (12, 16), 1.0: (24, 24), 1.5: (24, 24), 2.0: (48, 48)}  # scale -> stem; with 8 groups
UNITS = (4, 8, 4)  # per stage, the first at stride 2: table 1


class Shuffle(nn.Module):
    """Deals the channels of each group out over all groups."""

    def __init__(self, groups: int) -> None:
        super().__init__()
        self.groups = groups

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] -> the same channels: those at place i of each group stand together."""
        grouped: Tensor = x.unflatten(1, (self.groups, -1))  # [N, groups, C/groups, H, W]
        return grouped.transpose(1, 2).flatten(1, 2)

    def extra_repr(self) -> str:
        """Return what stands in the brackets when the module is printed."""
        return f"groups={self.groups}"


class Unit(nn.Module):
    """1x1 to a quarter of `channels`, shuffle, depthwise 3x3, 1x1; beside it x, or its average put side by side.

    `groups` are those of the two 1x1 convolutions. Between channels that differ, the unit halves the image.
    """

    def __init__(self, in_channels: int, channels: int, groups: tuple[int, int], *, shuffled: bool) -> None:
        super().__init__()
        self.halves = in_channels != channels
        inner = _divisible(channels / 4, groups[1])
        out = channels - in_channels if self.halves else channels
        stride = 2 if self.halves else 1
        self.branch = nn.Sequential(
            nn.Conv2d(in_channels, inner, 1, groups=groups[0], bias=False),
            nn.BatchNorm2d(inner),
            nn.ReLU(),
            *([Shuffle(groups[1])] if shuffled and groups[1] > 1 else []),
            nn.Conv2d(inner, inner, 3, stride, 1, groups=inner, bias=False),
            nn.BatchNorm2d(inner),
            nn.Conv2d(inner, out, 1, groups=groups[1], bias=False),
            nn.BatchNorm2d(out),
        )
        self.shortcut = nn.AvgPool2d(3, 2, 1) if self.halves else nn.Sequential()
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """[N, in_channels, H, W] -> [N, channels, H/stride, W/stride], rounded up."""
        beside, y = self.shortcut(x), self.branch(x)
        result: Tensor = self.relu(torch.cat((beside, y), 1) if self.halves else beside + y)
        return result


class ShuffleNet(nn.Module):
    """A 3x3 stem, pooling, and three stages of units; the very first 1x1 convolution is not grouped.

    Raises ModelError for groups or a scale that the paper does not have.
    """

    def __init__(
        self, groups: int, scale: float = 1.0, *, classes: int, in_channels: int, shuffled: bool = True
    ) -> None:
        super().__init__()
        if groups not in WIDTHS or scale not in STEM:
            raise ModelError(
                f"there is no ShuffleNet with {groups} groups at scale {scale}; "
                f"groups are {', '.join(map(str, WIDTHS))}, scales {', '.join(map(str, STEM))}"
            )
        channels = STEM[scale][groups == 8]
        self.stem = nn.Sequential(
            nn.Conv2d(in_channels, channels, 3, 2, 1, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(),
            nn.MaxPool2d(3, 2, 1),
        )
        units: list[nn.Module] = []
        for stage, repeats in enumerate(UNITS):
            width = int(WIDTHS[groups] * scale) * 2**stage
            for _ in range(repeats):
                units.append(Unit(channels, width, (groups if units else 1, groups), shuffled=shuffled))
                channels = width
        self.units = nn.Sequential(*units)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(channels, classes)
        he_normal(self)

    def forward(self, x: Tensor) -> Tensor:
        """[N, in_channels, H, W] -> class scores [N, classes]."""
        scores: Tensor = self.fc(self.pool(self.units(self.stem(x))).flatten(1))
        return scores


def _divisible(channels: float, groups: int) -> int:
    """The next whole number of channels that the groups divide."""
    return math.ceil(channels / groups) * groups
