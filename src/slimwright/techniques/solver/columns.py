"""Give weights other values column by column, so that each error is made up for by the columns behind it.

The order is that of Frantar et al. 2023 (arXiv 2210.17323): columns that are read strongest come first, and the error
of each is handed on to those behind it as its regression on them says (the optimal brain surgeon). Then each column is
looked at again while all others stand (coordinate descent). What a weight may become, `Choose` says.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

BLOCK = 64  # columns whose errors are handed on together
Choose = Callable[[Tensor, Tensor, int], Tensor]  # wanted [G, O], what its squared errors cost [G, 1], column -> values


class Rule(Protocol):
    """What the weights and the bias of a layer may be."""

    def weight(self, weight: Tensor, covariance: Tensor) -> Tensor:
        """Return weights [O, D] that may be, by the covariance [G, D, D] of what the G groups read."""

    def bias(self, bias: Tensor) -> Tensor:
        """Return a bias [O] that may be."""


@dataclass(frozen=True)
class Columns:
    """The columns that G groups of outputs read, in order, with their covariance [G, D, D].

    `onto` [G, D, D] is the upper Cholesky factor of its inverse. A row of it over its diagonal is the regression of a
    column on those behind it; the diagonal is one over the deviation that these cannot make up for.
    """

    order: Tensor
    covariance: Tensor
    onto: Tensor

    @classmethod
    def of(cls, covariance: Tensor) -> "Columns":
        """Return the columns of a covariance [G, D, D], which must be positive definite."""
        order = covariance.diagonal(dim1=1, dim2=2).mean(0).argsort(descending=True)
        ordered = covariance[:, order][:, :, order].double()
        inverse = torch.cholesky_inverse(torch.linalg.cholesky(ordered))
        return cls(order, ordered, torch.linalg.cholesky(inverse, upper=True))

    @property
    def own(self) -> Tensor:
        """The diagonal of `onto` [G, D]: an error e of a column costs (e / own)^2 in the end."""
        return self.onto.diagonal(dim1=1, dim2=2)

    def ordered(self, weights: Tensor) -> Tensor:
        """Return weights [G, O, D] in the order of the columns."""
        return weights[:, :, self.order]

    def in_place(self, ordered: Tensor) -> Tensor:
        """Return weights [G, O, D] in the order in which they were."""
        back = torch.empty_like(ordered)
        back[:, :, self.order] = ordered
        return back


def handed_on(wanted: Tensor, onto: Tensor, choose: Choose) -> Tensor:
    """Return values for the weights `wanted` [G, O, D], each error handed on to the columns behind it."""
    rest, chosen = wanted.clone(), torch.empty_like(wanted)
    size = wanted.shape[2]
    for start in range(0, size, BLOCK):
        end = min(start + BLOCK, size)
        errors = torch.zeros_like(rest[:, :, start:end])
        for at in range(start, end):
            own = onto[:, at, at, None]
            chosen[:, :, at] = choose(rest[:, :, at], 1 / own.square(), at)
            error = (rest[:, :, at] - chosen[:, :, at]) / own
            rest[:, :, at:end] -= error[:, :, None] * onto[:, None, at, at:end]
            errors[:, :, at - start] = error
        rest[:, :, end:] -= errors @ onto[:, start:end, end:]
    return chosen


def looked_at_again(wanted: Tensor, chosen: Tensor, covariance: Tensor, choose: Choose) -> Tensor:
    """Return values for the weights `wanted` [G, O, D], each column of `chosen` chosen anew while the others stand."""
    chosen = chosen.clone()
    pull = (wanted - chosen) @ covariance  # [G, O, D]
    for at in range(wanted.shape[2]):
        scale = covariance[:, at, at, None]
        before = chosen[:, :, at]
        after = choose(before + pull[:, :, at] / scale, scale, at)
        moved = after - before
        if bool(moved.any()):
            pull -= moved[:, :, None] * covariance[:, None, at]
            chosen[:, :, at] = after
    return chosen
