"""Residual networks: 6n+2 layers for small images, and ResNet-18 and -50 for photographs.

Source: He et al. 2016 (arXiv 1512.03385), sec. 4.2 and table 1; where the shape changes, a 1x1 convolution as
shortcut (their option B). A bottleneck has its stride in the 3x3 convolution, as torchvision's form does, rather than
in the first 1x1. At 224x224 pixels and 1000 classes: ResNet-18 11,689,512 parameters, ResNet-50 25,557,032. For small
images ResNet-18 has a 3x3 stem without pooling: 11,173,962 parameters for 10 classes.
"""

from torch import Tensor, nn

from slimwright.zoo.weights import he_normal


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut around them."""

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU()
        self.shortcut = _shortcut(in_channels, channels, stride)

    def forward(self, x: Tensor) -> Tensor:
        """[N, in_channels, H, W] -> [N, channels, H/stride, W/stride], rounded up."""
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        result: Tensor = self.relu(y + self.shortcut(x))
        return result


class Bottleneck(nn.Module):
    """1x1 to a quarter of `channels`, 3x3, 1x1 to `channels`, and a shortcut around them."""

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        inner = channels // 4
        self.conv1 = nn.Conv2d(in_channels, inner, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(inner)
        self.conv2 = nn.Conv2d(inner, inner, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(inner)
        self.conv3 = nn.Conv2d(inner, channels, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU()
        self.shortcut = _shortcut(in_channels, channels, stride)

    def forward(self, x: Tensor) -> Tensor:
        """[N, in_channels, H, W] -> [N, channels, H/stride, W/stride], rounded up."""
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        result: Tensor = self.relu(y + self.shortcut(x))
        return result


def _shortcut(in_channels: int, channels: int, stride: int) -> nn.Sequential:
    if stride == 1 and in_channels == channels:
        return nn.Sequential()
    return nn.Sequential(nn.Conv2d(in_channels, channels, 1, stride, bias=False), nn.BatchNorm2d(channels))


Block = type[BasicBlock] | type[Bottleneck]


def _stages(block: Block, channels: int, stages: list[tuple[int, int]]) -> nn.Sequential:
    """Blocks from `channels` through stages of (output channels, blocks); each stage but the first halves the image."""
    blocks: list[nn.Module] = []
    for stage, (out, depth) in enumerate(stages):
        for place in range(depth):
            blocks.append(block(channels, out, 2 if stage and not place else 1))
            channels = out
    return nn.Sequential(*blocks)


def _stem(in_channels: int, channels: int, kernel: int, stride: int) -> list[nn.Module]:
    conv = nn.Conv2d(in_channels, channels, kernel, stride, kernel // 2, bias=False)
    return [conv, nn.BatchNorm2d(channels), nn.ReLU()]


class ResNet(nn.Module):
    """6n+2 layers for images of 32x32 or so. `width` is the channels of the first stage, 16 in the paper."""

    def __init__(self, blocks: int, *, classes: int, in_channels: int, width: int = 16) -> None:
        super().__init__()
        self.stem = nn.Sequential(*_stem(in_channels, width, 3, 1))
        self.blocks = _stages(BasicBlock, width, [(width * 2**stage, blocks) for stage in range(3)])
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(4 * width, classes)

    def forward(self, x: Tensor) -> Tensor:
        """[N, in_channels, H, W] -> class scores [N, classes]."""
        scores: Tensor = self.fc(self.pool(self.blocks(self.stem(x))).flatten(1))
        return scores


class FourStageResNet(nn.Module):
    """Four stages behind a stem that gives 64 channels."""

    def __init__(self, stem: list[nn.Module], block: Block, stages: list[tuple[int, int]], *, classes: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(*stem)
        self.blocks = _stages(block, 64, stages)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(stages[-1][0], classes)
        he_normal(self)

    def forward(self, x: Tensor) -> Tensor:
        """[N, in_channels, H, W] -> class scores [N, classes]."""
        scores: Tensor = self.fc(self.pool(self.blocks(self.stem(x))).flatten(1))
        return scores


def resnet18(*, classes: int, in_channels: int) -> FourStageResNet:
    """Return ResNet-18 for photographs: 7x7 stem with pooling, four stages of two basic blocks."""
    stem = [*_stem(in_channels, 64, 7, 2), nn.MaxPool2d(3, 2, 1)]
    return FourStageResNet(stem, BasicBlock, [(64, 2), (128, 2), (256, 2), (512, 2)], classes=classes)


def small_resnet18(*, classes: int, in_channels: int) -> FourStageResNet:
    """Return ResNet-18 for images of 32x32 or so: 3x3 stem without pooling, the same four stages."""
    stem = _stem(in_channels, 64, 3, 1)
    return FourStageResNet(stem, BasicBlock, [(64, 2), (128, 2), (256, 2), (512, 2)], classes=classes)


def resnet50(*, classes: int, in_channels: int) -> FourStageResNet:
    """Return ResNet-50 for photographs: 7x7 stem with pooling, four stages of bottlenecks."""
    stem = [*_stem(in_channels, 64, 7, 2), nn.MaxPool2d(3, 2, 1)]
    return FourStageResNet(stem, Bottleneck, [(256, 3), (512, 4), (1024, 6), (2048, 3)], classes=classes)
