"""SqueezeNet for photographs: fire blocks, which squeeze the channels before they expand them again.

Source: Iandola et al. 2016 (arXiv 1602.07360), table 1, and the authors' version 1.1 with a smaller stem and earlier
poolings; counts as in torchvision's form, at 224x224 pixels and 1000 classes: 1,248,424 parameters and 819 M
multiply-accumulates; version 1.1 has 1,235,496 and 349 M.
"""

import torch
from torch import Tensor, nn

from slimwright.zoo.weights import he_normal

FIRES = ((16, 64), (16, 64), (32, 128), (32, 128), (48, 192), (48, 192), (64, 256), (64, 256))  # squeeze, each expand


class Fire(nn.Module):
    """1x1 to `squeeze` channels; from there 1x1 and 3x3 to `expand` each, side by side."""

    def __init__(self, in_channels: int, squeeze: int, expand: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(in_channels, squeeze, 1)
        self.one = nn.Conv2d(squeeze, expand, 1)
        self.three = nn.Conv2d(squeeze, expand, 3, padding=1)
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """[N, in_channels, H, W] -> [N, 2 expand, H, W]."""
        y = self.relu(self.squeeze(x))
        return torch.cat((self.relu(self.one(y)), self.relu(self.three(y))), 1)


class SqueezeNet(nn.Module):
    """A stem, eight fire blocks with a pooling before those of `pools`, and a 1x1 convolution to the classes."""

    def __init__(self, stem: nn.Conv2d, pools: tuple[int, ...], *, classes: int) -> None:
        super().__init__()
        layers: list[nn.Module] = [stem, nn.ReLU()]
        channels = stem.out_channels
        for place, (squeeze, expand) in enumerate(FIRES):
            if place in pools:
                layers.append(nn.MaxPool2d(3, 2, ceil_mode=True))
            layers.append(Fire(channels, squeeze, expand))
            channels = 2 * expand
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Sequential(nn.Dropout(), nn.Conv2d(channels, classes, 1), nn.ReLU())
        self.pool = nn.AdaptiveAvgPool2d(1)
        he_normal(self)

    def forward(self, x: Tensor) -> Tensor:
        """[N, in_channels, H, W] -> class scores [N, classes]."""
        scores: Tensor = self.pool(self.classifier(self.features(x))).flatten(1)
        return scores


def squeezenet1_0(*, classes: int, in_channels: int) -> SqueezeNet:
    """Return version 1.0: a 7x7 stem of 96 channels."""
    return SqueezeNet(nn.Conv2d(in_channels, 96, 7, 2), (0, 3, 7), classes=classes)


def squeezenet1_1(*, classes: int, in_channels: int) -> SqueezeNet:
    """Return version 1.1: a 3x3 stem of 64 channels."""
    return SqueezeNet(nn.Conv2d(in_channels, 64, 3, 2), (0, 2, 4), classes=classes)
