"""Which whole number a coefficient becomes: the one whose error and bits together cost least.

Each coefficient chooses between the nearest number, the next one towards zero and zero, as if its neighbours' choices
were made; a second round sees what the first one chose. What is compared are float64 sums and products of table
entries, so every platform chooses alike.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import cache

import torch
from torch import Tensor

from slimwright.codec.band_bits import flat, known, unflat
from slimwright.codec.context_net import WholeNet
from slimwright.codec.symbols import DIGITS, LEAST_SCALE, MOST_ODDS, MOST_SCALE, ODDS_UNIT, SCALE_UNIT

FIRST_THRESHOLD = 0.66  # of a step, below which the first round has zero
TRADE = 0.12  # of a squared step, that a bit is worth


@dataclass(frozen=True)
class Costs:
    """Bits by index: of a zero, of a sign and a first step, and of each further step."""

    zero: Tensor
    other: Tensor
    first: Tensor
    further: Tensor


@cache
def costs() -> Costs:
    """Return the bits that the tables of `symbols` stand for."""
    two = DIGITS.ln(2)

    def bits(likely: Decimal) -> float:
        return float(-DIGITS.ln(likely) / two)

    odds = [1 / (1 + DIGITS.exp(-Decimal(at) / ODDS_UNIT)) for at in range(-MOST_ODDS, MOST_ODDS + 1)]
    falls = [DIGITS.power(2, -Decimal(at) / SCALE_UNIT) for at in range(LEAST_SCALE, MOST_SCALE + 1)]
    columns = (
        [bits(one) for one in odds],
        [bits(1 - one) + 1 for one in odds],
        [bits(1 - DIGITS.exp(-one)) for one in falls],
        [float(one / two) for one in falls],
    )
    return Costs(*(torch.tensor(column, dtype=torch.float64) for column in columns))


def first_choice(levels: Sequence[Tensor]) -> list[Tensor]:
    """Return whole numbers for coefficients in steps: the nearest ones, but for what is small."""
    return [one.sign() * torch.where(one.abs() < FIRST_THRESHOLD, 0.0, (one.abs() + 0.4).floor()) for one in levels]


def chosen(
    levels: Sequence[Tensor],
    before: Sequence[Tensor],
    net: WholeNet,
    offsets: Tensor,
    *,
    step: int,
    trade: float = TRADE,
    weights: Sequence[Tensor] = (),
) -> list[Tensor]:
    """Return whole numbers for coefficients [B, 3, C, h, w] in steps, given what was chosen before.

    `offsets` are those of `values_of`; `trade` is what a bit is worth, in squared steps. `weights` [1, 1, 1, h, w] of
    the levels say what their errors count for.
    """
    exact = flat(levels)
    odds, scale = net.by_place(known(before, step), len(exact))
    worth = torch.full_like(exact, trade)
    if weights:
        worth /= flat([one.expand_as(level) for one, level in zip(weights, levels, strict=True)])
    found = _size(exact.abs(), odds, scale, offsets.double(), worth) * exact.sign()
    return unflat(found, levels)


def _size(exact: Tensor, odds: Tensor, scale: Tensor, offsets: Tensor, worth: Tensor) -> Tensor:
    """Return the sizes [n] that cost least for exact ones [n] in steps, where a bit has a worth [n]."""
    table = costs()
    other = table.other[odds] + table.first[scale]
    best, least = torch.zeros_like(exact), exact * exact + worth * table.zero[odds]
    nearest = (exact + 0.5).floor()
    for candidate in (nearest - 1, nearest):
        error = exact - candidate + offsets[(candidate > 1).long(), scale]
        cost = error * error + worth * (other + (candidate - 1) * table.further[scale])
        better = (cost < least) & (candidate > 0)
        best, least = torch.where(better, candidate, best), torch.where(better, cost, least)
    return best
