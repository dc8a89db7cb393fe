"""CustomNet and CustomNet2 for 32x32 images: three branches of small convolutions, whose probabilities are averaged.

Source: Winoto et al. 2020 (IEEE Access 8:125210), in the form of the authors' published code. There the last
convolution of a Gamma block reads the block's input, so that the two before it have no effect and do not exist
(`Gamma`); `IntendedGamma` is the block as it was meant. Batch norms have Keras's constants. For 10 classes:
CustomNet 528,086 numbers, 518,358 of them trained (batch norm statistics are not), CustomNet2 897,878 and 882,006.

The result is the logarithm of the mean of the three softmaxes, so that its softmax is the mean itself, and the cross
entropy of it is that of the averaged probabilities.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from slimwright.zoo.weights import he_normal


@dataclass(frozen=True)
class Round:
    """A Beta block to `channels`, an Alpha and a Gamma block. With `dropout` it begins with 2x2 pooling and dropout."""

    channels: int
    stride: int = 1
    dropout: float | None = None


ONE = (Round(128, dropout=0.3), Round(256, dropout=0.4))
TWO = (Round(128, stride=2), Round(256), Round(256, stride=2))


class Head(nn.Module):
    """What the three branches share: images to three values of 64 channels at half the size."""

    def __init__(self, in_channels: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(in_channels, 8, (5, 1), padding=(2, 0)),
            nn.Conv2d(8, 8, (1, 5), padding=(0, 2)),
            nn.SiLU(),
            nn.Conv2d(8, 16, 3),
            nn.SiLU(),
            nn.MaxPool2d(2),
            nn.Dropout(0.2),
        )
        self.wide = nn.Sequential(_conv3(16, 16), _conv3(16, 32), *_norm(32))
        self.narrow = nn.Sequential(nn.Conv2d(16, 16, 1), _conv3(16, 32), nn.ReLU(), *_norm(32))
        self.deep = nn.Sequential(_conv3(32, 32), nn.ReLU(), _conv3(32, 64), nn.ReLU(), *_norm(64))
        self.left = nn.Sequential(_conv3(32, 64), nn.ReLU())
        self.right = nn.Conv2d(32, 64, 1)
        self.sum_norm = nn.Sequential(*_norm(64))
        self.shallow = nn.Sequential(nn.Conv2d(32, 32, 1), _conv3(32, 64), nn.ReLU(), *_norm(64))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """[N, in_channels, H, W] -> three times [N, 64, H/2 - 1, W/2 - 1]."""
        x = self.stem(x)
        wide, narrow = self.wide(x), self.narrow(x)
        return self.deep(wide), self.sum_norm(self.left(wide) + self.right(narrow)), self.shallow(narrow)


class Gamma(nn.Module):
    """x plus a 1x1 convolution of it: what the authors' code computes."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.branch = nn.Sequential(nn.Conv2d(channels, channels, 1), *_norm(channels))

    def forward(self, x: Tensor) -> Tensor:
        """[N, channels, H, W] -> the same shape."""
        y: Tensor = self.branch(x)
        return x + y


class IntendedGamma(nn.Module):
    """x plus a bottleneck of it around a separable 3x3 convolution, padded so that the shapes agree."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        inner = channels // 4
        self.branch = nn.Sequential(
            nn.Conv2d(channels, inner, 1),
            *_norm(inner),
            nn.Conv2d(inner, 2 * inner, 3, padding=1, groups=inner, bias=False),
            nn.Conv2d(2 * inner, inner, 1),
            *_norm(inner),
            nn.Conv2d(inner, channels, 1),
            *_norm(channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        """[N, channels, H, W] -> the same shape."""
        y: Tensor = self.branch(x)
        return x + y


class CustomNet(nn.Module):
    """A head and three branches of the same rounds, each with its own weights. `dropout` comes before the classes."""

    def __init__(
        self,
        rounds: Sequence[Round],
        dropout: float = 0.0,
        *,
        classes: int,
        in_channels: int,
        gamma: Callable[[int], nn.Module] = Gamma,
    ) -> None:
        super().__init__()
        self.head = Head(in_channels)
        self.branches = nn.ModuleList(_branch(rounds, dropout, classes, gamma) for _ in range(3))
        he_normal(self)

    def forward(self, x: Tensor) -> Tensor:
        """[N, in_channels, H, W] -> logarithms of probabilities [N, classes]."""
        scores = [branch(y) for branch, y in zip(self.branches, self.head(x), strict=True)]
        each = torch.stack([F.log_softmax(s, 1) for s in scores])  # [3, N, classes]
        return torch.logsumexp(each, 0) - math.log(3)


def _branch(rounds: Sequence[Round], dropout: float, classes: int, gamma: Callable[[int], nn.Module]) -> nn.Sequential:
    layers: list[nn.Module] = []
    channels = 64
    for one in rounds:
        layers += [*_beta(channels, one), *_alpha(one.channels), gamma(one.channels)]
        channels = one.channels
    layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    layers += [nn.Dropout(dropout)] if dropout else []
    return nn.Sequential(*layers, nn.Linear(channels, classes))


def _beta(in_channels: int, one: Round) -> list[nn.Module]:
    """1x1 to a quarter of the channels, depthwise 3x3, 1x1."""
    inner = one.channels // 4
    return [
        *([] if one.dropout is None else [nn.MaxPool2d(2), nn.Dropout(one.dropout)]),
        nn.Conv2d(in_channels, inner, 1, one.stride),
        *_norm(inner),
        _conv3(inner, inner, inner),
        *_norm(inner),
        nn.Conv2d(inner, one.channels, 1),
        *_norm(one.channels),
    ]


def _alpha(channels: int) -> list[nn.Module]:
    """1x1 to a quarter of the channels, depthwise 3x3, and a depthwise 3x3 that gives four for each."""
    inner = channels // 4
    return [
        nn.Conv2d(channels, inner, 1),
        *_norm(inner),
        _conv3(inner, inner, inner),
        *_norm(inner),
        _conv3(inner, channels, inner),
        *_norm(channels),
    ]


def _conv3(in_channels: int, channels: int, groups: int = 1) -> nn.Conv2d:
    return nn.Conv2d(in_channels, channels, 3, padding=1, groups=groups)


def _norm(channels: int) -> list[nn.Module]:
    return [nn.BatchNorm2d(channels, eps=1e-3, momentum=0.01), nn.SiLU()]
