"""Untrained networks and random images: neither time nor memory of a job depends on what they hold."""

import torch
from torch import Tensor, nn

from slimwright.data import PARTS, ArrayData
from slimwright.zoo import build

CLASSES = 10


def resnet18() -> nn.Module:
    """ResNet-18 with ten classes."""
    return settled(build("resnet18", classes=CLASSES), (3, 64, 64))


def resnet50() -> nn.Module:
    """ResNet-50 with ten classes."""
    return settled(build("resnet50", classes=CLASSES), (3, 224, 224))


def mobilenet_v2() -> nn.Module:
    """MobileNetV2 with ten classes."""
    return settled(build("mobilenet-v2", classes=CLASSES), (3, 224, 224))


def small() -> nn.Module:
    """A residual network of eight layers with ten classes."""
    return settled(build("resnet8-wide", classes=CLASSES, in_channels=3), (3, 16, 16))


def images_64() -> ArrayData:
    """256 calibration images of 64x64, and fewer in the other parts."""
    return random_images(256, 64)


def images_224() -> ArrayData:
    """256 calibration images of 224x224, and fewer in the other parts."""
    return random_images(256, 224)


def few_images_16() -> ArrayData:
    """32 calibration images of 16x16, and fewer in the other parts."""
    return random_images(32, 16)


def settled(model: nn.Module, shape: tuple[int, int, int]) -> nn.Module:
    """Return a model whose batch norms hold the statistics of random images, so that values neither grow nor vanish."""
    images = torch.randn(4, *shape, generator=torch.Generator().manual_seed(1))
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None  # the statistics are those of these images, not a running mean
    with torch.no_grad():
        model.train()(images)
    return model.eval()


def random_images(count: int, side: int) -> ArrayData:
    """So many calibration images, and fewer in the other parts."""
    parts = {}
    for number, part in enumerate(PARTS):
        some = count if part == "calibration" else max(count // 4, 16)
        generator = torch.Generator().manual_seed(number)
        images: Tensor = torch.randn(some, 3, side, side, generator=generator)
        parts[part] = images, torch.randint(CLASSES, (some,), generator=generator)
    return ArrayData(f"random-{side}", tuple(map(str, range(CLASSES))), parts)
