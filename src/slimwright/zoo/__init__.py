"""Networks by name, untrained."""

from collections.abc import Callable

import torch
from torch import nn

from slimwright.errors import ModelError
from slimwright.zoo.resnet import ResNet
from slimwright.zoo.vgg import SmallVgg

ZOO: dict[str, Callable[[int, int], nn.Module]] = {  # name -> (classes, in_channels) -> network
    "resnet8": lambda classes, channels: ResNet(1, classes=classes, in_channels=channels),
    "resnet8-wide": lambda classes, channels: ResNet(1, classes=classes, in_channels=channels, width=32),
    "resnet20": lambda classes, channels: ResNet(3, classes=classes, in_channels=channels),
    "resnet56": lambda classes, channels: ResNet(9, classes=classes, in_channels=channels),
    "vgg6": lambda classes, channels: SmallVgg(classes=classes, in_channels=channels),
}


def build(name: str, *, classes: int, in_channels: int, seed: int = 0) -> nn.Module:
    """Return the network of this name with fresh weights drawn from `seed`. Raises ModelError for an unknown name."""
    if name not in ZOO:
        raise ModelError(f"there is no network '{name}' in the zoo; it holds {', '.join(sorted(ZOO))}")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return ZOO[name](classes, in_channels)


__all__ = ["ZOO", "build"]
