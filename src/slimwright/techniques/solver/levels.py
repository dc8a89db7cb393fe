"""Weights on as many levels as some bits have: whole multiples, from -most to most, of a scale for each output.

The scale is the one with the least error among some shares of the largest weight, each error counted by what the other
columns cannot make up for. Then weights are rounded column by column (`columns.py`), and with few levels each scale
becomes the one that fits the integers best, in turns, of which each output takes the best.

Two bits are ternary weights: -1, 0 and 1 times the scale. One bit is binary weights: -1 and 1, and no zero. Without a
covariance ternary weights have the threshold of Li and Liu (2016, arXiv 1605.04711, eq. 6), 0.7 of the mean magnitude,
and as scale the mean of what lies above; binary ones the mean magnitude, which is the best for a row by itself
(Rastegari et al. 2016, arXiv 1603.05279, eq. 6).
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from slimwright.techniques.solver.columns import Choose, Columns

SHARES = torch.linspace(1.0, 0.3, 36, dtype=torch.float64)  # of the largest weight, for the scale
PASSES = 3
FEW_BITS, TURNS, MORE_TURNS = 5, 2, 6  # up to so many bits, scales are fitted in so many turns; in more for one level
THRESHOLD = 0.7  # of the mean magnitude: smaller ternary weights are zero
TINY = torch.finfo(torch.float32).tiny


@dataclass(frozen=True)
class WeightLevels:
    """A layer's weights are whole multiples, of at most 2^(bits - 1) - 1 either way, of a scale for each output.

    With one bit they are -1 and 1 times the scale. Weights of `zero` [O, D] stay zero, but for binary ones.
    """

    bits: int
    zero: Tensor | None = None

    @property
    def most(self) -> int:
        """The largest level; the smallest is its negative."""
        return max(int(2 ** (self.bits - 1)) - 1, 1)

    @property
    def binary(self) -> bool:
        """True where zero is no level."""
        return self.bits == 1

    def nearest(self, weight: Tensor, covariance: Tensor) -> Tensor:
        """Return weights [O, D] on levels, by the covariance [G, D, D] of what the G groups read."""
        columns = Columns.of(weight, covariance)
        held = None if self.zero is None or self.binary else columns.in_order(self.zero.to(weight.device))
        scale = self.best_scale(columns.wanted, columns.own[:, None].square().reciprocal())
        turns = MORE_TURNS if self.most == 1 else TURNS if self.bits <= FEW_BITS else 1
        best, best_scale, least = columns.wanted, scale, torch.full_like(scale[:, :, 0], torch.inf)
        chosen = columns.wanted
        for turn in range(turns):
            if turn:
                scale = _fitted(columns.wanted, chosen / scale, columns.covariance, scale)
            choose = self._choose(scale, held)
            chosen = columns.handed_on(choose)
            for _ in range(PASSES):
                chosen = columns.again(chosen, choose)
            errors = columns.errors(chosen)
            better = (errors < least)[:, :, None]
            best, best_scale = torch.where(better, chosen, best), torch.where(better, scale, best_scale)
            least = torch.minimum(errors, least)
        steps = best_scale.flatten(0, 1).float()
        found = columns.in_place((best / best_scale).round()).float() * steps
        return found.where(weight.any(1, keepdim=True), 0.0) + 0.0  # no negative zero

    def held(self, _: Tensor) -> None:
        """Return nothing: levels that were chosen stay."""

    def bias(self, bias: Tensor) -> Tensor:
        """Return a bias [O] as it is: runtimes hold it in 32 bits."""
        return bias

    def each_nearest(self, weight: Tensor) -> Tensor:
        """Return weights [O, D], each rounded to the nearest level of the scale that its output asks by itself."""
        sizes = weight.abs()
        if self.binary:
            return weight.sign() * _mean_of(sizes, weight != 0) + 0.0
        if self.most == 1:
            above = sizes > THRESHOLD * sizes.mean(1, keepdim=True)
            return weight.sign() * above * _mean_of(sizes, above) + 0.0
        scale = (sizes.amax(1, keepdim=True) / self.most).clamp_min(TINY)
        return (weight / scale).round() * scale + 0.0

    def errors(self, columns: Columns) -> Tensor:
        """Return about how large the mean squared error [O] of each output will be: a lower bound."""
        costs = columns.own[:, None].square().reciprocal()
        scale = self.best_scale(columns.wanted, costs)
        lacking = columns.wanted - self._choose(scale)(columns.wanted, costs, 0)
        return (lacking.square() * costs).sum(2).flatten()

    def best_scale(self, wanted: Tensor, costs: Tensor) -> Tensor:
        """Return the scale [G, O, 1] for weights [G, O, D], whose squared errors cost [G, 1, D]."""
        largest = wanted.abs().amax(2, keepdim=True).clamp_min(TINY) / self.most
        least = torch.full_like(largest, torch.inf)
        best = largest
        for share in SHARES:
            scale = share * largest
            error = ((wanted - self._choose(scale)(wanted, costs, 0)).square() * costs).sum(2, keepdim=True)
            best, least = torch.where(error < least, scale, best), torch.minimum(error, least)
        return best

    def _choose(self, scale: Tensor, held: Tensor | None = None) -> Choose:
        """Choose the nearest level of a scale [G, O, 1]; zero where `held` [G, O, D] says so."""

        def choose(wanted: Tensor, _: Tensor, column: int) -> Tensor:
            if self.binary:
                return torch.where(wanted < 0, -scale, scale)
            found = (wanted / scale).round().clamp(-self.most, self.most) * scale
            return found if held is None else found.masked_fill(held[:, :, column, None], 0.0)

        return choose


def _mean_of(sizes: Tensor, some: Tensor) -> Tensor:
    """The mean [O, 1] of some of the sizes [O, D] of each row."""
    return (sizes * some).sum(1, keepdim=True) / some.sum(1, keepdim=True).clamp_min(1)


def _fitted(wanted: Tensor, levels: Tensor, covariance: Tensor, scale: Tensor) -> Tensor:
    """The scale [G, O, 1] with which levels [G, O, D] come nearest to weights; as it was where all are zero."""
    read = levels @ covariance
    square = (read * levels).sum(2, keepdim=True)
    found = (read * wanted).sum(2, keepdim=True) / square.clamp_min(TINY)
    return torch.where(found > 0, found, scale)
