"""The networks that DropNet removes filters from.

Source: Tan and Motani 2020 (arXiv 2207.06646), in the form of the authors' published code: A and B for 28x28 images, C,
a ResNet-18 without batch norm and a VGG-19 for 32x32 ones. Filters are dropped behind their activation and before the
pooling; C has 384 of them.
"""

from torch import Tensor, nn

from slimwright.zoo.weights import he_normal


def model_a(*, classes: int, in_channels: int) -> nn.Sequential:
    """Return two linear layers of 40 nodes and one to the classes."""
    return nn.Sequential(
        nn.Flatten(),
        *(nn.Linear(in_channels * 28 * 28, 40), nn.ReLU()),
        *(nn.Linear(40, 40), nn.ReLU()),
        nn.Linear(40, classes),
    )


def model_b(*, classes: int, in_channels: int) -> nn.Sequential:
    """Return two convolutions of 64 filters with pooling, and one linear layer."""
    return nn.Sequential(
        *(*_conv(in_channels, 64), nn.MaxPool2d(2)),
        *(*_conv(64, 64), nn.MaxPool2d(2)),
        nn.Flatten(),
        nn.Linear(64 * 7 * 7, classes),
    )


def model_c(*, classes: int, in_channels: int) -> nn.Sequential:
    """Return convolutions of 64, 64, 128 and 128 filters with pooling, and two linear layers."""
    return nn.Sequential(
        *(*_conv(in_channels, 64), nn.MaxPool2d(2)),
        *(*_conv(64, 64), nn.MaxPool2d(2)),
        *(*_conv(64, 128), nn.MaxPool2d(2)),
        *(*_conv(128, 128), nn.MaxPool2d(2)),
        nn.Flatten(),
        *(nn.Linear(128 * 2 * 2, 256), nn.ReLU()),
        nn.Linear(256, classes),
    )


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions beside x, or beside a third where the channels differ; ReLU before the sum, not after."""

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        self.branch = nn.Sequential(*_conv(in_channels, channels), *_conv(channels, channels))
        self.shortcut = nn.Sequential(*(_conv(in_channels, channels) if in_channels != channels else []))

    def forward(self, x: Tensor) -> Tensor:
        """[N, in_channels, H, W] -> [N, channels, H, W]."""
        result: Tensor = self.shortcut(x) + self.branch(x)
        return result


def resnet18(*, classes: int, in_channels: int) -> nn.Sequential:
    """Return a ResNet-18 without batch norm, with pooling in the place of strides."""
    layers: list[nn.Module] = _conv(in_channels, 64)
    channels = 64
    for width in (64, 128, 256, 512):
        layers += [nn.MaxPool2d(2), ResidualBlock(channels, width), ResidualBlock(width, width)]
        channels = width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, classes))


def vgg19(*, classes: int, in_channels: int) -> nn.Sequential:
    """Return a VGG-19 with one batch norm in each stage, behind its last activation, and two linear layers."""
    layers: list[nn.Module] = []
    channels = in_channels
    for width, convs in ((64, 2), (128, 2), (256, 4), (512, 4), (512, 4)):
        for _ in range(convs):
            layers += _conv(channels, width)
            channels = width
        layers += [nn.BatchNorm2d(width, eps=1e-3, momentum=0.01), nn.MaxPool2d(2)]
    model = nn.Sequential(*layers, nn.Flatten(), nn.Linear(channels, 256), nn.ReLU(), nn.Linear(256, classes))
    he_normal(model)
    return model


def _conv(in_channels: int, channels: int) -> list[nn.Module]:
    return [nn.Conv2d(in_channels, channels, 3, padding=1), nn.ReLU()]
