"""Choose a layer's weights out of a set, some columns at a time, so that the error of its outputs is least.

    min_V  sum_o  (w_o - v_o) H (w_o - v_o)',    v_o out of the set

H is the covariance of what the layer reads, so this is the mean squared error of the outputs. Whatever the set is
(multiples of a step, a table of values, a sparse pattern), there are two ways through the columns:

- *Handed on*: the error of each block of columns goes to the blocks behind it, as its regression on them says (the
  optimal brain surgeon, in the order of Frantar et al. 2023, arXiv 2210.17323). A choice then costs the error that it
  makes for good.
- *Again*: each block is chosen while all others stand (block coordinate descent). No pass makes the error larger where
  the choice is the best for the block.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Self, TypeAlias

import torch
from torch import Tensor

AT_ONCE = 64  # columns whose errors are handed on together

Choose: TypeAlias = Callable[[Tensor, Tensor, int], Tensor]
"""Returns what to take for the weights [G, R, B] that are wanted in a block, by its number in the order.

An error e [B] of a row costs e M e', where M [G, B, B] is the second argument.
"""


@dataclass(frozen=True)
class Columns:
    """The weights [G, R, D] of G groups of R rows that are wanted, and the covariance H [G, D, D], in float64.

    Columns lie in the `order` [D] in which they are chosen, in blocks of `width`: those of the largest variance first.
    """

    wanted: Tensor
    covariance: Tensor
    order: Tensor
    width: int

    @classmethod
    def of(cls, weight: Tensor, covariance: Tensor, blocks: Tensor | None = None) -> Self:
        """Order the columns of weights [O, D] by their covariance [G, D, D], which must be positive definite.

        `blocks` [n, B] says which columns are chosen together; by default each is chosen by itself.
        """
        groups, size, _ = covariance.shape
        blocks = torch.arange(size)[:, None] if blocks is None else blocks
        variance = covariance.diagonal(dim1=1, dim2=2).mean(0)
        order = blocks[variance[blocks].mean(1).argsort(descending=True)].flatten()
        wanted = weight.double().reshape(groups, -1, size)[:, :, order]
        return cls(wanted, covariance[:, order][:, :, order].double(), order, blocks.shape[1])

    def in_place(self, values: Tensor) -> Tensor:
        """Return values [G, R, D] in this order as [O, D] in the layer's own."""
        back = torch.empty_like(values)
        back[:, :, self.order] = values
        return back.flatten(0, 1)

    def in_order(self, values: Tensor) -> Tensor:
        """Return values [O, D] of the layer as [G, R, D] in this order."""
        return values.reshape(self.wanted.shape)[:, :, self.order]

    def errors(self, values: Tensor) -> Tensor:
        """Return the mean squared error [G, R] of outputs with `values` [G, R, D]."""
        lacking = self.wanted - values
        return ((lacking @ self.covariance) * lacking).sum(2)

    @cached_property
    def onto(self) -> Tensor:
        """The upper Cholesky factor [G, D, D] of the inverse covariance: what errors make of the columns behind."""
        inverse = torch.cholesky_inverse(torch.linalg.cholesky(self.covariance))
        return torch.as_tensor(torch.linalg.cholesky(inverse, upper=True))

    @property
    def own(self) -> Tensor:
        """Of each column [G, D], the deviation that those behind cannot make up for, inverted."""
        return self.onto.diagonal(dim1=1, dim2=2)

    def handed_on(self, choose: Choose) -> Tensor:
        """Return what is chosen [G, R, D], where errors go to the columns behind."""
        rest, values = self.wanted.clone(), torch.empty_like(self.wanted)
        size, width = self.wanted.shape[2], self.width
        back = torch.linalg.inv(self._blocks(self.onto))  # [n, G, B, B]
        metrics = back @ back.mT
        at_once = max(AT_ONCE // width, 1) * width
        for start in range(0, size, at_once):
            end = min(start + at_once, size)
            errors = torch.zeros_like(rest[:, :, start:end])
            for at in range(start, end, width):
                number, to = at // width, at + width
                values[:, :, at:to] = choose(rest[:, :, at:to], metrics[number], number)
                error = (rest[:, :, at:to] - values[:, :, at:to]) @ back[number]
                rest[:, :, to:end] -= error @ self.onto[:, at:to, to:end]
                errors[:, :, at - start : to - start] = error
            rest[:, :, end:] -= errors @ self.onto[:, start:end, end:]
        return values

    def again(self, values: Tensor, choose: Choose) -> Tensor:
        """Return what is chosen [G, R, D] in place of `values`, one block after another while all others stand."""
        values, width = values.clone(), self.width
        metrics = self._blocks(self.covariance)  # [n, G, B, B]
        inverses = torch.linalg.inv(metrics)
        pull = (self.wanted - values) @ self.covariance
        for at in range(0, values.shape[2], width):
            number, to = at // width, at + width
            before = values[:, :, at:to]
            after = choose(before + pull[:, :, at:to] @ inverses[number], metrics[number], number)
            moved = after - before
            if bool(moved.any()):
                pull -= moved @ self.covariance[:, at:to]
                values[:, :, at:to] = after
        return values

    def _blocks(self, matrix: Tensor) -> Tensor:
        """The blocks [n, G, B, B] on the diagonal of a matrix [G, D, D]."""
        groups, size, _ = matrix.shape
        count = size // self.width
        split = matrix.reshape(groups, count, self.width, count, self.width)
        return split.diagonal(dim1=1, dim2=3).permute(3, 0, 1, 2)
