"""Round a layer's weights to whole multiples of a step, so that output error and coded bits together are least.

    min_K  sum_o  (w_o - s k_o) H (w_o - s k_o)' + price_o bits(k_o)

H is the covariance of what the layer reads, so the first term is the mean squared error of an output. In the first
passes through the columns (`columns.py`) errors are handed on. Each weight takes the integer for which the error that
it makes for good and the price of its bits are least together (after arXiv 2505.18758). Further passes look at each
column again. Bits are those of a coder that knows how often a row and a column are zero; its table is counted anew
between passes.

A high price asks for a coarse step: s^2 = 6 price / (ln 2 * curvature) balances the error of rounding, which is the
curvature times s^2 / 12, with the bit that a weight saves each time that the step doubles.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from slimwright.techniques.solver.columns import Choose, Columns

BALANCE = 6 / math.log(2)  # squared steps for a price, per curvature
FIRST_PASSES, PASSES = 2, 3
PRIOR = 4.0  # weights, by which what is counted in a row or a column is pulled to the whole layer's
MOST_LEVEL = 2**15 - 1
FIRST_BITS = 3.0  # that a number other than zero is taken to need before any are counted, and two for each doubling
RARE = 0.5  # counts of a magnitude that was not seen
LEAST_IMPORTANCE = 1e-4  # of the mean, below which an output counts as much


@dataclass(frozen=True)
class Price:
    """What a bit of a layer costs, in nats, and the importance [O] of its outputs: nats for each squared error.

    As a constraint it asks for whole multiples of a step, as coarse as for a bit that costs `step`, by default `bit`;
    where `zero` [O, D] says so, for none.
    """

    bit: float
    importance: Tensor
    step: float | None = None
    zero: Tensor | None = None

    @property
    def matters(self) -> bool:
        """False where nothing that the layer gives changes the loss."""
        return float(self.importance.mean()) > 0

    def step_for(self, curvature: float) -> Tensor:
        """Return the step, a float32, where a weight's own squared error makes `curvature` times as much of outputs."""
        size = math.sqrt(BALANCE * (self.step or self.bit) / (curvature * float(self.importance.mean())))
        return torch.tensor(size, dtype=torch.float32)

    def nearest(self, weight: Tensor, covariance: Tensor) -> Tensor:
        """Return the weights [O, D] rounded."""
        return rounded(weight, covariance, self).weight

    def held(self, _: Tensor) -> None:
        """Return nothing: integers that were chosen stay."""

    def bias(self, bias: Tensor) -> Tensor:
        """Return a bias [O] as whole multiples of a step, which is as coarse as the price asks for."""
        step = self.step_for(1.0) if self.matters else torch.ones(())
        return ((bias / step).round().clamp_(-MOST_LEVEL, MOST_LEVEL) + 0.0) * step  # no negative zero


@dataclass(frozen=True)
class Rounding:
    """The integers [O, D] of a layer and their step."""

    integers: Tensor
    step: float

    @property
    def weight(self) -> Tensor:
        """The weights [O, D]: each integer times the step, in float32."""
        return self.integers.float() * torch.tensor(self.step, dtype=torch.float32)


def rounded(weight: Tensor, covariance: Tensor, price: Price) -> Rounding:
    """Return the weights [O, D] rounded, by the covariance [G, D, D] of what the G groups read.

    The covariance must be positive definite.
    """
    if not price.matters:
        return Rounding(torch.zeros(weight.shape, dtype=torch.int32), 1.0)
    columns = Columns.of(weight, covariance)
    wanted, own = columns.wanted, columns.own
    prices = (price.bit / floored(price.importance)).reshape(len(wanted), -1).to(wanted.device)  # [G, O/G]
    step = float(price.step_for(float(own.pow(-2).mean())))
    integers = (wanted / step).round().clamp_(-MOST_LEVEL, MOST_LEVEL)
    integers[(wanted / own[:, None]).square() < prices[:, :, None] * (FIRST_BITS + 2 * (integers.abs() + 1).log2())] = 0
    zero = None if price.zero is None else columns.in_order(price.zero.to(wanted.device))
    if zero is not None:
        integers[zero] = 0
    for _ in range(FIRST_PASSES):
        integers = (columns.handed_on(_by_price(step, prices, Code(integers), zero)) / step).round()
    for _ in range(PASSES):
        integers = (columns.again(step * integers, _by_price(step, prices, Code(integers), zero)) / step).round()
    return Rounding(columns.in_place(integers).to(torch.int32), step)


def floored(importance: Tensor) -> Tensor:
    """Return the importance [O] of outputs in float64, none of them so small that an error there would be free."""
    importance = importance.double()
    return importance.clamp_min(LEAST_IMPORTANCE * float(importance.mean()))


class Code:
    """What integers [G, O, D] cost in bits, by how often rows and columns are zero and how large the others are."""

    def __init__(self, integers: Tensor) -> None:
        there = (integers != 0).double()
        share = float(there.mean().clamp(1e-6, 1 - 1e-6))
        rows, columns = (_log_odds(there, dim, share) for dim in (2, 1))  # [G, O, 1], [G, 1, D]
        odds = rows + columns - math.log(share / (1 - share))
        self.zero = torch.nn.functional.softplus(odds) / math.log(2)  # -log2 (1 - p)
        self.other = torch.nn.functional.softplus(-odds) / math.log(2) + 1  # with a sign
        sizes = torch.bincount(integers.abs().long().flatten()).double()
        sizes = torch.nn.functional.pad(sizes, (0, max(3 - len(sizes), 0)))[1:] + RARE
        self.sizes = -(sizes / sizes.sum()).log2()

    def bits(self, integers: Tensor, column: int) -> Tensor:
        """Return the bits of integers [K, G, O] in a column."""
        size = integers.abs().long()
        beyond = (size - len(self.sizes)).clamp_min(0)
        known = self.sizes[(size - 1).clamp(0, len(self.sizes) - 1)] + 2 * beyond
        return torch.where(size == 0, self.zero[:, :, column], self.other[:, :, column] + known)


def _log_odds(there: Tensor, dim: int, share: float) -> Tensor:
    count = there.sum(dim, keepdim=True) + PRIOR * share
    return (count / (there.shape[dim] + PRIOR - count)).log()


def _by_price(step: float, prices: Tensor, code: Code, zero: Tensor | None) -> Choose:
    """Choose, of the multiples of a step near what is wanted, and zero, that with the least error and bits.

    Where `zero` [G, O, D] says so, it is zero.
    """

    def choose(wanted: Tensor, metric: Tensor, column: int) -> Tensor:
        near = (wanted[:, :, 0] / step).clamp(-MOST_LEVEL, MOST_LEVEL)  # [G, O]
        low = near.abs().floor()
        sides = torch.stack([torch.zeros_like(near), near.sign() * low, near.sign() * (low + 1)])
        costs = (wanted[:, :, 0] - step * sides).square() * metric[:, :, 0] + prices * code.bits(sides, column)
        chosen = sides.gather(0, costs.argmin(0, keepdim=True))[0]
        if zero is not None:
            chosen = chosen.masked_fill(zero[:, :, column], 0.0)
        return step * chosen[:, :, None]

    return choose
