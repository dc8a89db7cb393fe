"""Weights that training keeps as they are to each other: zeros stay zero, and equal ones stay equal.

A code for each weight says what it is tied to. The gradient is projected onto what the codes leave free: nothing where
a weight stays zero, the mean over all that are equal. That is the gradient of a table's value, which is the sum over
its weights (Han, Mao and Dally 2016, arXiv 1510.00149, sec. 3), at a rate over their number: weights move as far as
alone. Any optimizer that treats each weight by its own gradients keeps the ties, momentum and weight decay included.
"""

import torch
from torch import Tensor, nn

FREE, ZERO = -1, 0  # codes of weights that are tied to nothing, and of those that stay zero


def zeros_of(weight: Tensor) -> Tensor:
    """Return the codes of weights [...] of which the zeros are to stay."""
    return torch.where(weight == 0, ZERO, FREE)


def equals_of(weight: Tensor) -> Tensor:
    """Return the codes of weights [...] of which equal ones are to stay equal, and zeros zero."""
    values, codes = weight.unique(return_inverse=True)
    numbers = torch.arange(1, len(values) + 1, device=weight.device)
    return torch.where(values == 0, ZERO, numbers)[codes]


def tied(values: Tensor, codes: Tensor) -> Tensor:
    """Return values [...] projected onto what codes [...] leave free: zeros, and the mean of those with one code."""
    flat = codes.flatten()
    counts = torch.bincount(flat.clamp_min(0))
    sums = torch.zeros(len(counts), dtype=torch.float64, device=values.device)
    sums.index_add_(0, flat.clamp_min(0), values.flatten().double())
    means = (sums / counts.clamp_min(1)).index_fill(0, torch.tensor([ZERO], device=values.device), 0.0)
    return torch.where(codes == FREE, values, means.to(values.dtype)[codes.clamp_min(0)])


def tie(parameter: nn.Parameter, codes: Tensor) -> None:
    """Let the gradients of a parameter [...] keep the ties that its codes [...] say, from now on."""
    codes = codes.to(parameter.device)
    parameter.register_hook(lambda gradient: tied(gradient, codes))
