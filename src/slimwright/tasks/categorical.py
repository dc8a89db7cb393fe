"""Outputs that are probabilities of classes, as a softmax gives them, and what a task makes of such an output.

With p what the original gives at a position and q what is found there, the loss of an image is

    mean over positions of the sum of p (log p - log q)

A class is drawn from q for each position; the gradient of the summed cross-entropies, divided by the root of their
number, gives the Fisher information of that mean (Martens 2020, arXiv 1412.1193, sec. 5).
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from slimwright.tasks.task import classes_drawn

SLACK = 1e-2  # by which probabilities, in half precision, may fail to add up to 1
LEAST = 1e-12  # probability


def class_dims(output: Tensor) -> set[int]:
    """Return the dimensions of an output [N, ...] along which its values are probabilities that add up to 1."""
    if not output.is_floating_point() or output.ndim < 2 or not output.numel():
        return set()
    values = output.detach().float()
    if not bool((values >= 0).all()):
        return set()
    known = {dim for dim in (1, output.ndim - 1) if output.shape[dim] > 1}
    return {dim for dim in known if bool(((values.sum(dim) - 1).abs() <= SLACK).all())}


def divergence(found: Tensor, wanted: Tensor, dim: int) -> Tensor:
    """Return the Kullback-Leibler divergence of `found` from `wanted` [N], the mean over positions."""
    likely = wanted.to(found)
    each = (likely * (_log(likely) - _log(found))).sum(dim)
    return each.reshape(len(each), -1).mean(1)


def drawn_entropy(output: Tensor, dim: int, seeds: Sequence[torch.Generator]) -> Tensor:
    """Return the cross-entropies against classes that generators, one an image, draw, over the root of their number."""
    drawn = classes_drawn(output.detach().cpu().double(), dim, seeds)  # [N, ...]
    entropies = -_log(output).gather(dim, drawn.unsqueeze(dim).to(output.device))
    return entropies.sum() / math.sqrt(drawn[0].numel())


def _log(shares: Tensor) -> Tensor:
    return shares.clamp_min(LEAST).log()
