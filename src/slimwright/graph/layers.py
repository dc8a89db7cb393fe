"""Layers of our own, for operators of which torch has none, or one that does less or takes longer."""

import importlib

import numpy as np
import torch
from torch import nn


class Gather(nn.Module):
    """Picks entries along one dimension: what a channel shuffle becomes once channels are cut."""

    index: torch.Tensor

    def __init__(self, dim: int, length: int) -> None:
        super().__init__()
        self.dim = dim
        self.register_buffer("index", torch.zeros(length, dtype=torch.int64))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[..., n, ...] -> [..., length, ...] along `dim`."""
        return x.index_select(self.dim, self.index)


class GroupNorm(nn.GroupNorm):
    """A group norm that also takes groups of a single number, as a net that was cut may have; these give the bias."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[N, C, ...] -> the same shape."""
        return torch.group_norm(x, self.num_groups, self.weight, self.bias, self.eps)  # F.group_norm refuses


class DropPath(nn.Module):
    """Drops a residual branch for whole images while training (stochastic depth, Huang et al. 2016, 1603.09382)."""

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[N, ...] -> the same; in training, rows are zero with probability p and the others scaled to make up."""
        if not self.training or self.p == 0:
            return x
        kept = torch.empty(x.shape[0], *[1] * (x.ndim - 1), dtype=x.dtype, device=x.device).bernoulli_(1 - self.p)
        return x * kept / max(1 - self.p, 1e-12)


class FakeQuantize(nn.Module):
    """Rounds to the nearest of the levels `low` to `high`, `scale` apart, of which `zero` is 0.0."""

    def __init__(self, scale: float, zero: int, low: int, high: int) -> None:
        super().__init__()
        self.scale, self.zero, self.low, self.high = scale, zero, low, high
        self._scale, self._inverse = float(np.float32(scale)), float(1 / np.float32(scale))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[...] -> the same shape; the gradient is one between the levels and none beyond them."""
        if torch.compiler.is_exporting():  # as runtimes' exporters know it
            importlib.import_module("torch.ao.quantization.fx._decomposed")  # registers the two operators
            how = (self.scale, self.zero, self.low, self.high, torch.int8 if self.low < 0 else torch.uint8)
            known = torch.ops.quantized_decomposed
            found: torch.Tensor = known.dequantize_per_tensor(known.quantize_per_tensor(x, *how), *how)
            return found
        if x.device.type == "meta":  # for which torch has no kernel (2.13.0, 2026-11-30)
            return torch.empty_like(x)
        learns = torch.is_grad_enabled() and x.requires_grad
        if learns or x.dtype != torch.float32:
            return torch.fake_quantize_per_tensor_affine(x, self.scale, self.zero, self.low, self.high)
        # The same numbers to the bit, in a fifth of the time that torch's kernel takes on a CPU (2.13.0).
        rounded = (x * self._inverse).round_().clamp_(self.low - self.zero, self.high - self.zero)
        return rounded.mul_(self._scale)
