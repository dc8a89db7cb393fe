"""MobileNets for photographs: depthwise 3x3 convolutions between 1x1 convolutions, at any width.

Sources: V1, Howard et al. 2017 (arXiv 1704.04861), table 1, in the public TF-slim form (ReLU6 for ReLU, batch norm with
eps 1e-3); V2, Sandler et al. 2018 (arXiv 1801.04381), table 2, in torchvision's form. Exact at 224x224 pixels and 1000
classes, in millions:

    V1 width                1.0    0.75     0.5    0.25        V2 1.0
    multiply-accumulates  568.7   325.4   149.5    41.0         300.8
    parameters            4.232   2.586   1.332   0.470         3.505

TF-slim's README prints 4.24, 2.59, 1.34 and 0.47 M parameters, which agrees with 1001 classes and a third number per
batch norm channel. Its 317 M for width 0.75 agrees with leaving out the first convolution; Zhang et al. 2018
(arXiv 1707.01083) have 325.

Padding is one pixel on every side. TensorFlow's "same" pads an even image at stride 2 on the right and bottom only:
shapes and counts are equal, but each window lies one pixel further that way, so weights trained there do not carry
over exactly.
"""

from torch import Tensor, nn

from slimwright.errors import ModelError
from slimwright.zoo.weights import he_normal

V1_BLOCKS = (  # output channels, stride: table 1
    (64, 1),
    (128, 2),
    (128, 1),
    (256, 2),
    (256, 1),
    (512, 2),
    *((512, 1),) * 5,
    (1024, 2),
    (1024, 1),
)
V2_STAGES = (  # expansion, output channels, blocks, stride of the first: table 2
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)


def scaled(channels: int, width: float) -> int:
    """Return `channels` x `width` as a multiple of 8: the nearest, at least 8, and the next where that loses over 10 %.

    Raises ModelError for a width that is not positive.
    """
    if width <= 0:
        raise ModelError(f"the width of a MobileNet must be positive, not {width}; 1.0 is the published network")
    exact = channels * width
    nearest = max(8, int(exact + 4) // 8 * 8)
    return nearest if nearest >= 0.9 * exact else nearest + 8


def _conv(in_channels: int, channels: int, kernel: int, stride: int = 1, *, groups: int = 1) -> nn.Conv2d:
    return nn.Conv2d(in_channels, channels, kernel, stride, kernel // 2, groups=groups, bias=False)


class MobileNetV1(nn.Module):
    """A 3x3 convolution and 13 depthwise separable ones; every channel count times `width`."""

    def __init__(self, *, classes: int, in_channels: int, width: float = 1.0) -> None:
        super().__init__()
        channels = scaled(32, width)
        layers = [*self._unit(_conv(in_channels, channels, 3, 2))]
        for out, stride in V1_BLOCKS:
            layers += self._unit(_conv(channels, channels, 3, stride, groups=channels))
            layers += self._unit(_conv(channels, scaled(out, width), 1))
            channels = scaled(out, width)
        self.features = nn.Sequential(*layers)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(channels, classes)
        he_normal(self)

    @staticmethod
    def _unit(conv: nn.Conv2d) -> list[nn.Module]:
        return [conv, nn.BatchNorm2d(conv.out_channels, eps=1e-3), nn.ReLU6()]

    def forward(self, x: Tensor) -> Tensor:
        """[N, in_channels, H, W] -> class scores [N, classes]."""
        scores: Tensor = self.fc(self.pool(self.features(x)).flatten(1))
        return scores


class InvertedResidual(nn.Module):
    """1x1 to `expansion` times the channels, depthwise 3x3, and 1x1 back without an activation."""

    def __init__(self, in_channels: int, channels: int, stride: int, expansion: int) -> None:
        super().__init__()
        inner = in_channels * expansion
        layers: list[nn.Module] = []
        if expansion != 1:
            layers += [_conv(in_channels, inner, 1), nn.BatchNorm2d(inner), nn.ReLU6()]
        layers += [_conv(inner, inner, 3, stride, groups=inner), nn.BatchNorm2d(inner), nn.ReLU6()]
        layers += [_conv(inner, channels, 1), nn.BatchNorm2d(channels)]
        self.branch = nn.Sequential(*layers)
        self.has_shortcut = stride == 1 and in_channels == channels

    def forward(self, x: Tensor) -> Tensor:
        """[N, in_channels, H, W] -> [N, channels, H/stride, W/stride], rounded up."""
        y: Tensor = self.branch(x)
        return x + y if self.has_shortcut else y


class MobileNetV2(nn.Module):
    """17 inverted residuals between a 3x3 and a 1x1 convolution; widths below 1 leave the last 1280 channels."""

    def __init__(self, *, classes: int, in_channels: int, width: float = 1.0) -> None:
        super().__init__()
        channels, last = scaled(32, width), scaled(1280, max(1.0, width))
        layers: list[nn.Module] = [_conv(in_channels, channels, 3, 2), nn.BatchNorm2d(channels), nn.ReLU6()]
        for expansion, base, blocks, first_stride in V2_STAGES:
            for block in range(blocks):
                stride = 1 if block else first_stride
                layers.append(InvertedResidual(channels, scaled(base, width), stride, expansion))
                channels = scaled(base, width)
        layers += [_conv(channels, last, 1), nn.BatchNorm2d(last), nn.ReLU6()]
        self.features = nn.Sequential(*layers)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.dropout = nn.Dropout(0.2)
        self.fc = nn.Linear(last, classes)
        he_normal(self)

    def forward(self, x: Tensor) -> Tensor:
        """[N, in_channels, H, W] -> class scores [N, classes]."""
        scores: Tensor = self.fc(self.dropout(self.pool(self.features(x)).flatten(1)))
        return scores
