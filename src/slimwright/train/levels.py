"""Weights that training keeps on levels: whole multiples, up to some number either way, of a scale for each output.

Layers compute with the nearest level, and gradients pass by the rounding as if it were not there (the straight-through
estimator: Bengio et al. 2013, arXiv 1308.3432): a weight crosses over once what pulls at it adds up to half a step. It
is not pulled farther beyond the outermost level. Binary weights, one level either way and no zero, are the signs of
what is trained (Rastegari et al. 2016, arXiv 1603.05279). Scales are trained, too, by the gradient of the rounded
weights over the square root of how many weights and levels they scale (Esser et al. 2020, arXiv 1902.08153, sec. 2).
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

LEAST = 1e-12  # of a scale that divides


class OnLevels(nn.Module):
    """Weights [O, ...] on levels from -most to most, or -1 and 1 where they are `binary`, times a scale [O, 1, ...].

    An output whose scale is zero stays zero, and so does a weight that is tied to zero.
    """

    scale: nn.Parameter

    def __init__(self, scale: Tensor, most: int, *, binary: bool) -> None:
        super().__init__()
        self.scale = nn.Parameter(scale)
        self.most, self.binary = most, binary

    def forward(self, weight: Tensor) -> Tensor:
        """Return the weights [O, ...] that a layer computes with."""
        on_levels: Tensor = _Rounded.apply(weight, self.scale.abs(), self.most, self.binary)  # type: ignore[no-untyped-call]
        return on_levels


class _Rounded(torch.autograd.Function):
    """Weights [O, ...] on the nearest levels of a scale [O, 1, ...]."""

    @staticmethod
    def forward(weight: Tensor, scale: Tensor, most: int, binary: bool) -> Tensor:
        return _whole(weight / scale.clamp_min(LEAST), most, binary) * scale + 0.0  # no negative zero

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, int, bool], output: Tensor) -> None:
        weight, scale, ctx.most, ctx.binary = inputs
        ctx.save_for_backward(weight, scale)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None, None]:
        (gradient,), (weight, scale) = gradients, ctx.saved_tensors
        steps = weight / scale.clamp_min(LEAST)
        beyond = steps.abs() > ctx.most
        whole = _whole(steps, ctx.most, ctx.binary)
        by_scale = gradient * (whole if ctx.binary else torch.where(beyond, whole, whole - steps))
        slower = (ctx.most * weight[0].numel()) ** -0.5
        summed = slower * by_scale.flatten(1).sum(1).reshape(scale.shape)
        return gradient.masked_fill(beyond & (gradient * weight < 0), 0.0), summed, None, None


def keep_on_levels(layer: nn.Module, scale: Tensor, most: int, *, binary: bool) -> None:
    """Let a layer compute with its weights [O, ...] on levels of a scale [O] from now on, and train both."""
    weight = layer.get_parameter("weight")
    rows = scale.to(weight).reshape(-1, *[1] * (weight.ndim - 1))
    parametrize.register_parametrization(layer, "weight", OnLevels(rows, most, binary=binary), unsafe=True)


def settle_on_levels(model: nn.Module) -> None:
    """Let the layers of a model that compute with weights on levels own just these."""
    for layer in model.modules():
        if parametrize.is_parametrized(layer, "weight"):
            parametrize.remove_parametrizations(layer, "weight", leave_parametrized=True)


def _whole(steps: Tensor, most: int, binary: bool) -> Tensor:
    return steps.sign() if binary else steps.round().clamp(-most, most)
