"""DenseNet for photographs: every layer reads all the layers before it in its block and adds 32 channels.

Source: Huang et al. 2017 (arXiv 1608.06993), table 1, the bottleneck form with compression 0.5 (DenseNet-BC); counts
as in torchvision's form: 7,978,856 parameters and 2834 M multiply-accumulates at 224x224 pixels and 1000 classes.
"""

import torch
from torch import Tensor, nn

from slimwright.zoo.weights import he_normal


class DenseLayer(nn.Module):
    """Batch norm, ReLU, 1x1 to 4 x growth, batch norm, ReLU, 3x3 to growth; put behind what came in."""

    def __init__(self, in_channels: int, growth: int) -> None:
        super().__init__()
        inner = 4 * growth
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.conv1 = nn.Conv2d(in_channels, inner, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(inner)
        self.conv2 = nn.Conv2d(inner, growth, 3, padding=1, bias=False)
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """[N, in_channels, H, W] -> [N, in_channels + growth, H, W]."""
        y = self.conv1(self.relu(self.bn1(x)))
        y = self.conv2(self.relu(self.bn2(y)))
        return torch.cat((x, y), 1)


class DenseNet(nn.Module):
    """Blocks of dense layers; between two blocks a 1x1 convolution halves the channels and a pooling the image."""

    def __init__(self, layers: tuple[int, ...], *, classes: int, in_channels: int, growth: int = 32) -> None:
        super().__init__()
        channels = 2 * growth
        self.stem = nn.Sequential(
            nn.Conv2d(in_channels, channels, 7, 2, 3, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(),
            nn.MaxPool2d(3, 2, 1),
        )
        blocks: list[nn.Module] = []
        for place, depth in enumerate(layers):
            if place:
                blocks.append(_transition(channels))
                channels //= 2
            blocks.append(nn.Sequential(*(DenseLayer(channels + growth * layer, growth) for layer in range(depth))))
            channels += growth * depth
        self.blocks = nn.Sequential(*blocks)
        self.end = nn.Sequential(nn.BatchNorm2d(channels), nn.ReLU(), nn.AdaptiveAvgPool2d(1))
        self.fc = nn.Linear(channels, classes)
        he_normal(self)

    def forward(self, x: Tensor) -> Tensor:
        """[N, in_channels, H, W] -> class scores [N, classes]."""
        scores: Tensor = self.fc(self.end(self.blocks(self.stem(x))).flatten(1))
        return scores


def _transition(channels: int) -> nn.Sequential:
    conv = nn.Conv2d(channels, channels // 2, 1, bias=False)
    return nn.Sequential(nn.BatchNorm2d(channels), nn.ReLU(), conv, nn.AvgPool2d(2))


def densenet121(*, classes: int, in_channels: int) -> DenseNet:
    """Return DenseNet-121: blocks of 6, 12, 24 and 16 layers."""
    return DenseNet((6, 12, 24, 16), classes=classes, in_channels=in_channels)
