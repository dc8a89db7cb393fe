"""Counts of networks that take no memory: built on the meta device, counted by torch's own counter."""

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from slimwright.zoo import ZOO, build


def parameters(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def without_memory(name: str, *, classes: int | None = None) -> nn.Module:
    with torch.device("meta"):
        return build(name, classes=classes).eval()


def macs_by_torch(model: nn.Module, shape: tuple[int, ...]) -> int:
    """Multiply-accumulates for one image: half of what torch counts."""
    with torch.device("meta"), torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(torch.empty(1, *shape))
    return int(counter.get_total_flops()) // 2


def counts_of(name: str) -> tuple[int, int]:
    """Parameters and multiply-accumulates of a network of the zoo, on images of its own shape."""
    model = without_memory(name)
    return parameters(model), macs_by_torch(model, ZOO[name].image_shape)
