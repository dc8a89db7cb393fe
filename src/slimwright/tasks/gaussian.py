"""Outputs as the means of Gaussians: what tasks share whose loss is a squared error.

With y an output, t what it should be and s a deviation, the loss of an image is

    1/2 mean((y - t)^2) / s^2

which is the negative log-likelihood of a Gaussian around y, per element. The Fisher information of its outputs is
estimated by a random projection: the gradient of z . y / (s sqrt(elements)), z normal, has in expectation the square of
the Gauss-Newton matrix of that loss (Martens 2020, arXiv 1412.1193, sec. 6).
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

LEAST_DEVIATION = 1e-6
"""Of a root mean square: what varies less is as good as constant."""
LEAST = 1e-30  # of a deviation that divides


def squares(found: Tensor, wanted: Tensor, deviation: float) -> Tensor:
    """Return the mean squared error over the squared deviation [N] of an output [N, ...]."""
    real = found if found.dtype in (torch.float32, torch.float64) else found.float()
    error = (real - wanted.to(real)).square().reshape(len(found), found[0].numel())  # [N, elements]
    return error.sum(1) / (max(error.shape[1], 1) * deviation**2)


def projected(output: Tensor, deviation: float, seeds: Sequence[torch.Generator]) -> Tensor:
    """Return the summed random projection of an output [N, ...], which a generator for each image draws."""
    drawn = [torch.randn(output.shape[1:], generator=seed, device="cpu") for seed in seeds]
    return (torch.stack(drawn).to(output) * output).sum() / max(deviation * math.sqrt(output[0].numel()), LEAST)
