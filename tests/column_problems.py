"""Layers whose weights may not be any number, as problems: weights, what their inputs have in common, and the error."""

import torch
from torch import Tensor


def covariance(groups: int, size: int, seed: int, *, alike: float = 0.9) -> Tensor:
    """Of inputs that resemble each other, [G, D, D]."""
    x = torch.randn(groups, size, 8 * size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    x = x + alike * x[:, :1]
    return x @ x.mT / (8 * size) + 1e-3 * torch.eye(size, dtype=torch.float64)


def weights(outputs: int, size: int, seed: int) -> Tensor:
    """Weights [O, D]."""
    return torch.randn(outputs, size, generator=torch.Generator().manual_seed(seed))


def error(made: Tensor, weight: Tensor, curvature: Tensor) -> float:
    """The squared error of outputs, with weights `made` [O, D] in place of `weight`, for a covariance [G, D, D]."""
    groups, size, _ = curvature.shape
    lacking = (weight - made).double().reshape(groups, -1, size)
    return float(((lacking @ curvature) * lacking).sum())
