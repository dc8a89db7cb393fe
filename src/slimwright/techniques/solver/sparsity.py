"""Make some of a layer's weights zero, so that the error of its outputs is least.

    min_W  sum_o  F_o (w_o - v_o) H (w_o - v_o)'  +  price * weights that are left

v is what was wanted, H the covariance of what the layer reads, and F the importance of an output. A pattern says which
weights are zero together: each by itself, blocks of outputs and input channels, or all but N of M input channels (N:M;
Mishra et al. 2021, arXiv 2104.08378). Along the way through the columns (`columns.py`) each block takes the pattern
for which the error that it makes for good and the price are least together; where M weights of a row are chosen, all
ways of keeping N of them are tried, the others solved. This is the optimal brain surgeon's removal, w^2 / [H^-1]_jj,
in the order of SparseGPT (Frantar and Alistarh 2023, arXiv 2301.00774). Further passes look at each block again, while
all others stand. In the end what is left is solved by least squares (`held.py`).

A number of zeros is met to the block: by the price, and what is still too much or too little by each block's own cost.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations

import torch
from torch import Tensor

from slimwright.techniques.solver.columns import Choose, Columns
from slimwright.techniques.solver.held import Held, on_support
from slimwright.techniques.solver.rounding import floored
from slimwright.train import zeros_of

PASSES = 3
MOST_OF = 8  # of M in N:M: 70 ways to keep half of them
TRIES = 12  # prices, for a number of zeros
NEAR = 0.01  # of the blocks: a number of zeros that is near enough for each block's own cost to do the rest
FIRST_STEP, MOST_STEP = 4.0, 1e9  # times the price, and then its square, as long as all tries lie on one side
LEAST_SHARE = 0.1  # of the way between two prices


@dataclass(frozen=True)
class Pattern:
    """Which weights are zero together: blocks of `rows` outputs and `columns` input channels, at one kernel tap.

    With `kept`, instead, so many of each `columns` input channels in a row stay (N:M).
    """

    rows: int = 1
    columns: int = 1
    kept: int | None = None

    @property
    def block(self) -> int:
        """Weights that are zero together."""
        return self.rows * self.columns

    def misfit(self, shape: Sequence[int], groups: int) -> str:
        """Return why weights [C_out, C_in/groups, ...] cannot have this pattern; "" where they can."""
        if shape[0] // groups % self.rows:
            return f"its {shape[0] // groups} outputs in a group are not a multiple of {self.rows}"
        if shape[1] % self.columns:
            return f"its {shape[1]} input channels in a group are not a multiple of {self.columns}"
        return ""

    def blocks(self, channels: int, taps: int) -> Tensor:
        """Return the columns [n, B] of each block in weights [O, channels * taps], by channel and then by tap."""
        columns = torch.arange(channels * taps).reshape(-1, self.columns, taps)
        return columns.transpose(1, 2).flatten(0, 1)

    @property
    def allowed(self) -> Tensor:
        """Which weights of a row's block may stay together in N:M [P, B]."""
        assert self.kept is not None
        ways = torch.zeros(math.comb(self.columns, self.kept), self.columns, dtype=torch.bool)
        for way, kept in zip(ways, combinations(range(self.columns), self.kept), strict=True):
            way[list(kept)] = True
        return ways


@dataclass(frozen=True)
class Sparse:
    """The constraint of a layer with this pattern, of which `zeros` weights become zero (of N:M: what it says).

    `importance` [O] is what squared errors of outputs cost, `price` about what a weight may, in the same unit.
    """

    pattern: Pattern
    importance: Tensor
    taps: int = 1
    zeros: int = 0
    price: float = 1.0

    def nearest(self, weight: Tensor, covariance: Tensor) -> Tensor:
        """Return weights [O, D] with the pattern, near to `weight` in what they give."""
        columns = self.columns(weight, covariance)
        values = self._by_number(columns) if self.pattern.kept is None else self._some_of_each(columns)
        return on_support(weight, covariance, columns.in_place(values) != 0)

    def held(self, weight: Tensor) -> Held:
        """Return what keeps the zeros of a weight."""
        return Held(zeros_of(weight))

    def bias(self, bias: Tensor) -> Tensor:
        """Return the same bias."""
        return bias

    def columns(self, weight: Tensor, covariance: Tensor) -> Columns:
        """Return what is wanted, in the order in which blocks are chosen."""
        return Columns.of(weight, covariance, self.pattern.blocks(weight.shape[1] // self.taps, self.taps))

    def passed(self, columns: Columns, price: float) -> Tensor:
        """Return the weights [G, R, D] that stay at a price, after one way through the columns and further passes."""
        choose = self._all_or_none(columns, price) if self.pattern.kept is None else self._some
        values = columns.handed_on(choose)
        for _ in range(PASSES):
            values = columns.again(values, choose)
        return values

    def _all_or_none(self, columns: Columns, price: float) -> Choose:
        """Choose whether a block stays."""
        rows, cost = self.pattern.rows, price * self.pattern.block
        importance = self._importance(columns)[:, :, 0]  # [G, R]

        def choose(wanted: Tensor, metric: Tensor, _: int) -> Tensor:
            errors = ((wanted @ metric) * wanted).sum(2) * importance
            stays = errors.unflatten(1, (-1, rows)).sum(2) > cost
            return torch.where(stays.repeat_interleave(rows, 1)[:, :, None], wanted, 0.0)

        return choose

    def _some(self, wanted: Tensor, metric: Tensor, _: int) -> Tensor:
        """Choose which weights of a row's block stay; those that do make up for the others."""
        made = wanted[:, None] @ _solves(metric, self.pattern.allowed)  # [G, P, R, B]
        lost = wanted[:, None] - made
        best = ((lost @ metric[:, None]) * lost).sum(3).argmin(1)  # [G, R]
        return made.gather(1, best[:, None, :, None].expand(-1, 1, -1, made.shape[3]))[:, 0]

    def _by_number(self, columns: Columns) -> Tensor:
        """The weights that stay [G, R, D]: as many as are asked for, by a price that leaves about as many."""
        wanted, size = self.zeros // self.pattern.block, columns.wanted.numel() // self.pattern.block
        tried: dict[float, Tensor] = {}

        def zeros_at(price: float) -> int:
            tried[price] = self.passed(columns, price)
            return int((tried[price] == 0).sum()) // self.pattern.block

        price = price_for(zeros_at, wanted, size, self.price)
        return self._exactly(columns, tried[price], wanted)

    def _some_of_each(self, columns: Columns) -> Tensor:
        """The weights that stay [G, R, D]; in turns they are solved, and each block looked at again."""
        values = self.passed(columns, 0.0)
        for _ in range(PASSES):
            solved = on_support(columns.wanted.flatten(0, 1), columns.covariance, values.flatten(0, 1) != 0)
            values = columns.again(solved.view_as(values), self._some)
        return values

    def _exactly(self, columns: Columns, values: Tensor, wanted: int) -> Tensor:
        """`values` with as many blocks zero as wanted: the cheapest more, or those that save most no more."""
        pull = (columns.wanted - values) @ columns.covariance
        variance = columns.covariance.diagonal(dim1=1, dim2=2)[:, None]
        importance = self._importance(columns)
        free = values + pull / variance  # what each weight would be while all others stand
        worth = self._per_block(free.square() * variance * importance).sum(-1)  # [G, R/rows, D/columns]
        zero = (self._per_block(values) == 0).all(-1)
        lacking = wanted - int(zero.sum())
        ranked = torch.where(zero == (lacking < 0), worth, math.inf if lacking > 0 else -math.inf).flatten()
        chosen = ranked.topk(abs(lacking), largest=lacking < 0).indices
        zero.view(-1)[chosen] = lacking > 0
        stays = ~zero.repeat_interleave(self.pattern.rows, 1).repeat_interleave(self.pattern.columns, 2)
        return torch.where(stays, torch.where(values == 0, free, values), 0.0)

    def _importance(self, columns: Columns) -> Tensor:
        """What squared errors of outputs cost [G, R, 1]."""
        return floored(self.importance).reshape(len(columns.wanted), -1, 1).to(columns.wanted.device)

    def _per_block(self, values: Tensor) -> Tensor:
        """[G, R, D] as [G, R/rows, D/columns, rows * columns]."""
        split = values.unflatten(1, (-1, self.pattern.rows)).unflatten(3, (-1, self.pattern.columns))
        return torch.as_tensor(split.transpose(2, 3).flatten(3))


def price_for(zeros_at: Callable[[float], int], wanted: int, size: int, price: float) -> float:
    """Return a price at which about `wanted` of `size` are zero; the first that is tried is `price`.

    More are zero at a higher price. The nearest of a few tries, at most a hundredth of `size` off where that is met.
    """
    tried: dict[float, int] = {}
    step = FIRST_STEP
    while len(tried) < TRIES:
        tried[price] = zeros_at(price) - wanted
        if abs(tried[price]) <= NEAR * size:
            break
        below = [one for one, off in tried.items() if off < 0]
        above = [one for one, off in tried.items() if off >= 0]
        if below and above:
            low, high = max(below), min(above)
            share = tried[low] / (tried[low] - tried[high]) if low < high else 0.5
            share = min(max(share, LEAST_SHARE), 1 - LEAST_SHARE)
            price = low ** (1 - share) * high**share
        else:
            price = max(below) * step if below else min(above) / step
            step = min(step**2, MOST_STEP)
    return min(tried, key=lambda one: abs(tried[one]))


def _solves(metric: Tensor, allowed: Tensor) -> Tensor:
    """Matrices [G, P, B, B] that make rows [B] the nearest by `metric` [G, B, B] that are zero where not allowed."""
    size = metric.shape[1]
    eye = torch.eye(size, dtype=metric.dtype)
    both = allowed[:, :, None] & allowed[:, None]  # [P, B, B]
    inner = torch.where(both, metric[:, None], eye)
    right = metric[:, None].where(allowed[:, :, None], 0.0)  # [G, P, B, B]: rows that stay
    return torch.as_tensor(torch.linalg.solve(inner, right).mT)


def by_magnitude(weight: Tensor, pattern: Pattern, taps: int, zeros: int) -> Tensor:
    """Return weights [O, D] without those of least magnitude, as they are: `zeros` of them, or what N:M says."""
    blocks = pattern.blocks(weight.shape[1] // taps, taps)
    ordered = _in_blocks(weight, pattern, blocks)  # [O/rows, rows, n, columns]
    if pattern.kept is None:
        worth = sizes_of_blocks(weight, pattern, taps)
        dropped = torch.zeros(worth.numel(), dtype=torch.bool)
        dropped[worth.flatten().argsort(stable=True)[: zeros // pattern.block]] = True
        gone = dropped.reshape(worth.shape)[:, None, :, None].expand_as(ordered)
    else:
        gone = torch.ones_like(ordered, dtype=torch.bool)
        gone.scatter_(3, ordered.abs().topk(pattern.kept, 3).indices, value=False)
    made = torch.empty_like(weight)
    made[:, blocks.flatten()] = torch.where(gone, 0.0, ordered).flatten(2).flatten(0, 1)
    return made


def sizes_of_blocks(weight: Tensor, pattern: Pattern, taps: int) -> Tensor:
    """Return the root mean square [O/rows, n] of each block of weights [O, D]."""
    ordered = _in_blocks(weight, pattern, pattern.blocks(weight.shape[1] // taps, taps))
    return ordered.square().mean((1, 3)).sqrt()


def _in_blocks(weight: Tensor, pattern: Pattern, blocks: Tensor) -> Tensor:
    """[O, D] as [O/rows, rows, n, columns]."""
    rows = weight[:, blocks.flatten()].unflatten(0, (-1, pattern.rows))
    return torch.as_tensor(rows.unflatten(2, (-1, pattern.columns)))
