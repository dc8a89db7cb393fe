"""Solve a layer's weights again where zeros stay zero and equal values stay equal.

    min_W  sum_o  F_o (w_o - v_o) H (w_o - v_o)'    v what was wanted, F the importance of an output

is least squares in what is free: the weights of each output's support by themselves, or the values of a table, each
times a whole matrix of zeros and ones. Exact, up to rounding in float64; for large tables, whose normal equations are
never made but multiplied with (conjugate gradients), up to `RESIDUAL`.
"""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from slimwright.techniques.solver.rounding import floored
from slimwright.train import ZERO

MOST_VALUES = 512  # of a table whose normal equations are made
RESIDUAL, MOST_STEPS = 1e-7, 300  # of conjugate gradients: the residual beside the first, and steps at most
MOST_NUMBERS = 2**25  # of matrices that are factorised, or multiplied, at once


class Constraint(Protocol):
    """What a layer's weights may be."""

    def nearest(self, weight: Tensor, covariance: Tensor) -> Tensor:
        """Return weights [O, D] that may be, near to `weight` [O, D] in what they give; inputs have `covariance`."""

    def held(self, weight: Tensor) -> "Constraint | None":
        """Return what holds the structure of weights that may be, the rest being free; None if nothing else is."""

    def bias(self, bias: Tensor) -> Tensor:
        """Return what a bias [O] becomes."""


@dataclass(frozen=True)
class Held:
    """A layer's weights have these codes [O, D]: FREE, ZERO, or one for those that are equal.

    Errors of outputs count by their importance [O] where values are shared; None: all alike.
    """

    codes: Tensor
    importance: Tensor | None = None

    def nearest(self, weight: Tensor, covariance: Tensor) -> Tensor:
        """Return the weights with these codes whose outputs are nearest, in the mean over all outputs."""
        codes = self.codes.to(weight.device)
        if bool((codes > ZERO).any()):
            every = torch.ones(len(weight)) if self.importance is None else floored(self.importance)
            return on_codes(weight, covariance, codes, every.to(weight.device))
        return on_support(weight, covariance, codes != ZERO)

    def held(self, _: Tensor) -> "Held":
        """Return the same."""
        return self

    def bias(self, bias: Tensor) -> Tensor:
        """Return the same bias."""
        return bias


@dataclass(frozen=True)
class BiasAlone:
    """A layer's weights stay what they are; its bias alone is solved (`refit.py`)."""

    def nearest(self, weight: Tensor, _: Tensor) -> Tensor:
        """Return the same weights."""
        return weight

    def held(self, _: Tensor) -> "BiasAlone":
        """Return the same."""
        return self

    def bias(self, bias: Tensor) -> Tensor:
        """Return the same bias."""
        return bias


def on_support(weight: Tensor, covariance: Tensor, kept: Tensor) -> Tensor:
    """Return weights [O, D] that are zero but where `kept` [O, D], nearest to `weight` in what they give.

    `covariance` [G, D, D] of what the G groups read must be positive definite.
    """
    groups, size, _ = covariance.shape
    group = torch.arange(len(weight)) // (len(weight) // groups)
    pull = torch.matmul(weight.double().reshape(groups, -1, size), covariance.double()).reshape(-1, size)
    found = torch.zeros(len(weight), size, dtype=torch.float64)
    counts = kept.sum(1)
    for rows in _alike(counts):
        most = int(counts[rows].max())
        if not most:
            continue
        places = kept[rows].int().argsort(dim=1, descending=True, stable=True)[:, :most]  # [R, K]: the kept come first
        there = kept[rows].gather(1, places)
        inner = covariance[group[rows][:, None, None], places[:, :, None], places[:, None]].double()
        inner = torch.where(there[:, :, None] & there[:, None], inner, torch.eye(most, dtype=torch.float64))
        wanted = pull[rows].gather(1, places).where(there, 0.0)
        solved = torch.cholesky_solve(wanted[:, :, None], torch.linalg.cholesky(inner))[:, :, 0]
        found[rows] = found[rows].scatter(1, places, solved.where(there, 0.0))
    return found.to(weight.dtype)


def on_codes(weight: Tensor, covariance: Tensor, codes: Tensor, importance: Tensor) -> Tensor:
    """Return weights [O, D] of which those with one code are equal, nearest to `weight` in what they give.

    Codes are ZERO or larger, none FREE. Errors of outputs count by their importance [O]; `covariance` [G, D, D] must
    be positive definite.
    """
    groups, size, _ = covariance.shape
    count, each = int(codes.max()) + 1, len(weight) // groups
    if count > MOST_VALUES:
        return _by_gradients(weight, covariance, codes, importance)
    left, right = torch.zeros(count, count, dtype=torch.float64), torch.zeros(count, dtype=torch.float64)
    pull = torch.matmul(weight.double().reshape(groups, each, size), covariance.double()).reshape(-1, size)
    pull *= importance.double()[:, None]
    right.index_add_(0, codes.flatten(), pull.flatten())
    for row in range(len(weight)):
        along = torch.zeros(size, count, dtype=torch.float64)
        along.index_add_(1, codes[row], covariance[row // each].double())
        left.index_add_(0, codes[row], along * float(importance[row]))
    used = torch.bincount(codes.flatten(), minlength=count) > 0
    used[ZERO] = False
    values = torch.zeros(count, dtype=torch.float64)
    values[used] = torch.linalg.lstsq(left[used][:, used], right[used], driver="gelsd").solution
    return values.to(weight.dtype)[codes]


def _by_gradients(weight: Tensor, covariance: Tensor, codes: Tensor, importance: Tensor) -> Tensor:
    """What `on_codes` returns, by conjugate gradients that the diagonal of the normal equations conditions."""
    count, groups = int(codes.max()) + 1, len(covariance)
    flat, inner, rows = codes.flatten(), covariance.double(), importance.double()[:, None]
    free = torch.ones(count, dtype=torch.float64).index_fill(0, torch.tensor([ZERO]), 0.0)

    def summed(values: Tensor) -> Tensor:
        return torch.zeros(count, dtype=torch.float64).index_add_(0, flat, values.flatten()) * free

    def pulled(values: Tensor) -> Tensor:
        return rows * (values.reshape(groups, -1, values.shape[1]) @ inner).flatten(0, 1)

    diagonal = inner.diagonal(dim1=1, dim2=2).repeat_interleave(len(weight) // groups, 0)  # [O, D]
    mass = summed(rows * diagonal)
    inverse = torch.where(mass > 0, 1 / mass, 0.0)
    found = summed(rows * diagonal * weight.double()) * inverse
    residual = summed(pulled(weight.double() - found[codes]))
    ahead = inverse * residual
    gain = residual @ ahead
    enough = RESIDUAL**2 * gain
    for _ in range(MOST_STEPS):
        if gain <= enough:
            break
        given = summed(pulled(ahead[codes]))
        step = gain / (ahead @ given)
        found, residual = found + step * ahead, residual - step * given
        conditioned = inverse * residual
        gain, before = residual @ conditioned, gain
        ahead = conditioned + gain / before * ahead
    return found.to(weight.dtype)[codes]


def _alike(counts: Tensor) -> list[Tensor]:
    """Rows with about as many weights [R], in portions whose matrices fit into memory together."""
    order = counts.argsort(descending=True)
    portions, start = [], 0
    while start < len(order):
        most = max(int(counts[order[start]]), 1)
        end = start + max(MOST_NUMBERS // most**2, 1)
        portions.append(order[start:end])
        start = end
    return portions
