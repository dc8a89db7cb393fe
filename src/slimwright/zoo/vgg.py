"""A small plain network: 3x3 convolutions in pairs, each pair followed by pooling.

Source: the shape of Simonyan and Zisserman 2015 (arXiv 1409.1556), at a size for 32x32 images.
"""

from torch import Tensor, nn


class SmallVgg(nn.Module):
    """Six 3x3 convolutions with batch norm, three poolings, one linear layer."""

    def __init__(self, widths: tuple[int, ...] = (32, 32, 64, 64, 128, 128), *, classes: int, in_channels: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = in_channels
        for index, width in enumerate(widths):
            layers += [nn.Conv2d(channels, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
            if index % 2:
                layers.append(nn.MaxPool2d(2))
            channels = width
        self.features = nn.Sequential(*layers)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        """[N, in_channels, H, W] -> class scores [N, classes]."""
        scores: Tensor = self.fc(self.pool(self.features(x)).flatten(1))
        return scores
