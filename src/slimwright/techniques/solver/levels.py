"""Weights on as many levels as some bits have: whole multiples, from -most to most, of a scale for each output.

The scale is the one with the least error among some shares of the largest weight, each error counted by what the other
columns cannot make up for. Then weights are rounded column by column (`columns.py`), and with few levels each scale
becomes the one that fits the integers best, in turns.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from slimwright.techniques.solver.columns import Choose, Columns

SHARES = torch.linspace(1.0, 0.3, 36, dtype=torch.float64)  # of the largest weight, for the scale
PASSES = 3
FEW_BITS, TURNS = 5, 2  # up to so many bits, scales are fitted in so many turns


@dataclass(frozen=True)
class WeightLevels:
    """A layer's weights are whole multiples, of at most 2^(bits - 1) - 1 either way, of a scale for each output."""

    bits: int

    @property
    def most(self) -> int:
        """The largest level; the smallest is its negative."""
        return int(2 ** (self.bits - 1)) - 1

    def nearest(self, weight: Tensor, covariance: Tensor) -> Tensor:
        """Return weights [O, D] on levels, by the covariance [G, D, D] of what the G groups read."""
        columns = Columns.of(weight, covariance)
        scale = self.best_scale(columns.wanted, columns.own[:, None].square().reciprocal())
        chosen = columns.wanted
        for turn in range(TURNS if self.bits <= FEW_BITS else 1):
            if turn:
                scale = _fitted(columns.wanted, chosen / scale, columns.covariance, scale)
            choose = self._choose(scale)
            chosen = columns.handed_on(choose)
            for _ in range(PASSES):
                chosen = columns.again(chosen, choose)
        steps = scale.flatten(0, 1).float()
        return columns.in_place((chosen / scale).round()).float() * steps + 0.0  # no negative zero

    def held(self, _: Tensor) -> None:
        """Return nothing: levels that were chosen stay."""

    def bias(self, bias: Tensor) -> Tensor:
        """Return a bias [O] as it is: runtimes hold it in 32 bits."""
        return bias

    def each_nearest(self, weight: Tensor) -> Tensor:
        """Return weights [O, D], each rounded to the nearest level of the scale that the largest of its output asks."""
        scale = (weight.abs().amax(1, keepdim=True) / self.most).clamp_min(torch.finfo(torch.float32).tiny)
        return (weight / scale).round() * scale + 0.0

    def errors(self, columns: Columns) -> Tensor:
        """Return about how large the mean squared error [O] of each output will be: a lower bound."""
        costs = columns.own[:, None].square().reciprocal()
        scale = self.best_scale(columns.wanted, costs)
        lacking = columns.wanted - self._choose(scale)(columns.wanted, costs, 0)
        return (lacking.square() * costs).sum(2).flatten()

    def best_scale(self, wanted: Tensor, costs: Tensor) -> Tensor:
        """Return the scale [G, O, 1] for weights [G, O, D], whose squared errors cost [G, 1, D]."""
        largest = wanted.abs().amax(2, keepdim=True).clamp_min(torch.finfo(torch.float32).tiny) / self.most
        least = torch.full_like(largest, torch.inf)
        best = largest
        for share in SHARES:
            scale = share * largest
            error = ((wanted - self._choose(scale)(wanted, costs, 0)).square() * costs).sum(2, keepdim=True)
            best, least = torch.where(error < least, scale, best), torch.minimum(error, least)
        return best

    def _choose(self, scale: Tensor) -> Choose:
        return lambda wanted, _, __: (wanted / scale).round().clamp(-self.most, self.most) * scale


def _fitted(wanted: Tensor, levels: Tensor, covariance: Tensor, scale: Tensor) -> Tensor:
    """The scale [G, O, 1] with which levels [G, O, D] come nearest to weights; as it was where all are zero."""
    read = levels @ covariance
    square = (read * levels).sum(2, keepdim=True)
    found = (read * wanted).sum(2, keepdim=True) / square.clamp_min(torch.finfo(torch.float32).tiny)
    return torch.where(found > 0, found, scale)
