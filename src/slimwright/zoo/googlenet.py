"""GoogLeNet for photographs: nine inception blocks, each four ways to look at an image put side by side.

Source: Szegedy et al. 2015 (arXiv 1409.4842), table 1, without the two classifiers that only help training. Two forms:
with local response normalisation and biases, as published (constants of Caffe's BVLC model), and torchvision's, with
batch norm and with a 3x3 convolution in the place of every 5x5 one: 6,624,904 parameters and 1498 M
multiply-accumulates at 224x224 pixels and 1000 classes. Poolings round up, as Caffe's do.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from slimwright.zoo.weights import he_normal

BLOCKS: tuple[tuple[int, ...] | None, ...] = (  # 1x1, 3x3 reduce, 3x3, 5x5 reduce, 5x5, after pooling; None: pooling
    (64, 96, 128, 16, 32, 32),
    (128, 128, 192, 32, 96, 64),
    None,
    (192, 96, 208, 16, 48, 64),
    (160, 112, 224, 24, 64, 64),
    (128, 128, 256, 24, 64, 64),
    (112, 144, 288, 32, 64, 64),
    (256, 160, 320, 32, 128, 128),
    None,
    (256, 160, 320, 32, 128, 128),
    (384, 192, 384, 48, 128, 128),
)

Unit = Callable[[int, int, int], nn.Sequential]  # in_channels, channels, kernel -> a convolution that keeps the size


def plain_unit(in_channels: int, channels: int, kernel: int, stride: int = 1) -> nn.Sequential:
    """Return a convolution with a bias, and ReLU."""
    return nn.Sequential(nn.Conv2d(in_channels, channels, kernel, stride, kernel // 2), nn.ReLU())


def norm_unit(in_channels: int, channels: int, kernel: int, stride: int = 1) -> nn.Sequential:
    """Return a convolution, batch norm and ReLU."""
    conv = nn.Conv2d(in_channels, channels, kernel, stride, kernel // 2, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(channels, eps=1e-3), nn.ReLU())


class Inception(nn.Module):
    """1x1, 1x1 and 3x3, 1x1 and `largest`, pooling and 1x1, side by side."""

    def __init__(self, in_channels: int, widths: tuple[int, ...], unit: Unit, *, largest: int) -> None:
        super().__init__()
        one, reduce3, three, reduce5, five, pooled = widths
        self.one = unit(in_channels, one, 1)
        self.three = nn.Sequential(unit(in_channels, reduce3, 1), unit(reduce3, three, 3))
        self.five = nn.Sequential(unit(in_channels, reduce5, 1), unit(reduce5, five, largest))
        self.pooled = nn.Sequential(nn.MaxPool2d(3, 1, 1), unit(in_channels, pooled, 1))
        self.channels = one + three + five + pooled

    def forward(self, x: Tensor) -> Tensor:
        """[N, in_channels, H, W] -> [N, channels, H, W]."""
        return torch.cat((self.one(x), self.three(x), self.five(x), self.pooled(x)), 1)


class GoogLeNet(nn.Module):
    """A stem that gives 192 channels at an eighth of the size, inception blocks, and one linear layer."""

    def __init__(self, stem: list[nn.Module], blocks: list[nn.Module], dropout: float, *, classes: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(*stem)
        self.blocks = nn.Sequential(*blocks)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(1024, classes)
        he_normal(self)

    def forward(self, x: Tensor) -> Tensor:
        """[N, in_channels, H, W] -> class scores [N, classes]."""
        scores: Tensor = self.fc(self.dropout(self.pool(self.blocks(self.stem(x))).flatten(1)))
        return scores


def googlenet(*, classes: int, in_channels: int) -> GoogLeNet:
    """Return the published form, with local response normalisation."""
    stem = [
        *(plain_unit(in_channels, 64, 7, 2), _pool(), _response_norm()),
        *(plain_unit(64, 64, 1), plain_unit(64, 192, 3), _response_norm(), _pool()),
    ]
    return GoogLeNet(stem, _blocks(plain_unit, largest=5), 0.4, classes=classes)


def googlenet_bn(*, classes: int, in_channels: int) -> GoogLeNet:
    """Return torchvision's form, with batch norm."""
    stem = [norm_unit(in_channels, 64, 7, 2), _pool(), norm_unit(64, 64, 1), norm_unit(64, 192, 3), _pool()]
    return GoogLeNet(stem, _blocks(norm_unit, largest=3), 0.2, classes=classes)


def _blocks(unit: Unit, *, largest: int) -> list[nn.Module]:
    blocks: list[nn.Module] = []
    channels = 192
    for widths in BLOCKS:
        if widths is None:
            blocks.append(_pool())
            continue
        block = Inception(channels, widths, unit, largest=largest)
        blocks.append(block)
        channels = block.channels
    return blocks


def _pool() -> nn.MaxPool2d:
    return nn.MaxPool2d(3, 2, ceil_mode=True)


def _response_norm() -> nn.LocalResponseNorm:
    return nn.LocalResponseNorm(5, alpha=1e-4, beta=0.75, k=1.0)
