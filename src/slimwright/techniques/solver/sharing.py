"""Let a layer's weights share few values, a codebook, so that the error of its outputs is least.

    min_C,K  sum_o  F_o (w_o - c[k_o]) H (w_o - c[k_o])'

H is the covariance of what the layer reads, F the importance of an output, c the table and k the codes. The first table
is that of weighted k-means in one dimension, in which each weight counts by F_o H_jj (Choi et al. 2017, arXiv
1612.01543, have the Hessian's diagonal). Han, Mao and Dally (2016, arXiv 1510.00149, sec. 3.2) give its three starts:
values at even steps, at even steps of the distribution, or of random weights. Then codes are chosen with errors handed
on to the columns behind (`columns.py`), or the nearest in rows where that errs less, and in turns the table is solved
by least squares for the codes (`held.py`) and each code looked at again while all others stand. No turn makes the error
larger.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from slimwright.techniques.solver.columns import Choose, Columns
from slimwright.techniques.solver.held import Held, on_codes
from slimwright.techniques.solver.rounding import floored
from slimwright.train import ZERO, equals_of

Start = Literal["linear", "density", "forgy"]
TURNS = 3
MOST_STEPS = 200  # of k-means, which ends when no weight changes its cluster


@dataclass(frozen=True)
class Shared:
    """The constraint that a layer's weights have at most `values` values, by the importance [O] of its outputs.

    Weights of `zero` [O, D] stay zero, which is one of the values. K-means begins at `start`, a random one by `seed`.
    """

    values: int
    importance: Tensor
    start: Start = "linear"
    seed: int = 0
    zero: Tensor | None = None

    def nearest(self, weight: Tensor, covariance: Tensor) -> Tensor:
        """Return weights [O, D] of few values, near to `weight` in what they give: a local optimum."""
        columns = Columns.of(weight, covariance)
        importance = floored(self.importance).to(weight.device)
        zero = torch.zeros_like(weight, dtype=torch.bool) if self.zero is None else self.zero.to(weight.device)
        if bool(zero.all()):
            return torch.zeros_like(weight)
        held = columns.in_order(zero)
        made = columns.in_place(self._first(columns, self.table(weight, covariance, importance, zero), held))
        for turn in range(TURNS + 1):
            codes = equals_of(made.masked_fill(zero, 0.0)).where(~zero, ZERO)
            made = on_codes(weight, covariance, codes, importance)
            if turn < TURNS:
                table = made[~zero].double().unique()
                made = columns.in_place(columns.again(columns.in_order(made.double()), _by_table(table, held)))
        return made

    def _first(self, columns: Columns, table: Tensor, held: Tensor) -> Tensor:
        """The values [G, R, D] of a table with errors handed on or, in rows where that is better, the nearest ones.

        A few far weights err more than those behind can make up for with so few values.
        """
        choose = _by_table(table, held)
        handed = columns.handed_on(choose)
        near = _nearest(table, columns.wanted).masked_fill(held, 0.0)
        return torch.where((columns.errors(handed) < columns.errors(near))[:, :, None], handed, near)

    def table(self, weight: Tensor, covariance: Tensor, importance: Tensor, zero: Tensor) -> Tensor:
        """Return the values [K] of weighted k-means, in order, in float64: of the weights that are not to stay zero."""
        variance = covariance.diagonal(dim1=1, dim2=2).double()  # [G, D]
        mass = importance[:, None] * variance.repeat_interleave(len(weight) // len(variance), 0)
        count = self.values - int(zero.any())
        return codebook(weight[~zero].double(), mass[~zero], count, self.start, self.seed)

    def held(self, weight: Tensor) -> Held:
        """Return what keeps equal weights equal, and zeros zero."""
        return Held(equals_of(weight))

    def bias(self, bias: Tensor) -> Tensor:
        """Return the same bias."""
        return bias


def codebook(values: Tensor, mass: Tensor, count: int, start: Start, seed: int = 0) -> Tensor:
    """Return at most `count` centroids, in order, of k-means of values [n] that count by their mass [n]."""
    values, order = values.sort()
    sums = torch.nn.functional.pad(torch.stack([mass[order], mass[order] * values]).cumsum(1), (1, 0))
    centroids = _first(values, count, start, seed)
    ends = torch.empty(0)
    for _ in range(MOST_STEPS):
        between = (centroids[1:] + centroids[:-1]) / 2
        inner = torch.searchsorted(values, between)
        now = torch.cat([inner.new_zeros(1), inner, inner.new_full((1,), len(values))])
        if torch.equal(now, ends):
            break
        ends = now
        masses, weighted = (one[ends[1:]] - one[ends[:-1]] for one in sums)
        centroids = torch.where(masses > 0, weighted / masses.clamp_min(1e-300), centroids).sort().values
    return torch.as_tensor(centroids.unique())


def _first(values: Tensor, count: int, start: Start, seed: int) -> Tensor:
    """The centroids that k-means starts from, of values [n] in order."""
    if start == "linear":
        steps = torch.linspace(0, 1, count, dtype=values.dtype)
        return values[0] + (values[-1] - values[0]) * steps
    if start == "density":
        places = ((torch.arange(count) + 0.5) * len(values) / count).long()
        return values[places.clamp_max(len(values) - 1)]
    unique = values.unique()
    generator = torch.Generator("cpu").manual_seed(seed)
    drawn = torch.randperm(len(unique), generator=generator, device="cpu")[:count]
    return torch.as_tensor(unique[drawn.to(values.device)].sort().values)


def _nearest(table: Tensor, wanted: Tensor) -> Tensor:
    """The nearest of the values [K] of a table, in order, to each that is wanted [...]."""
    return table[torch.bucketize(wanted.contiguous(), (table[1:] + table[:-1]) / 2)]


def _by_table(table: Tensor, zero: Tensor) -> Choose:
    """Choose the nearest value of a table [K], in order; zero where `zero` [G, R, D] says so."""
    return lambda wanted, _, column: _nearest(table, wanted).masked_fill(zero[:, :, column, None], 0.0)
