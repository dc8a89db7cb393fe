"""A net in as few bytes as are asked for: rounded at the price of a bit that gives this size.

One price for all layers makes them share the bytes (`pricing.py`). A higher one gives a smaller file, by a
power of about -0.45 in the networks that were tried; a few roundings find the price for a size. The sizes of a small
net jump, so near the size the price follows the trend of all that was tried there, each with slightly other steps.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from torch import Tensor

from slimwright.data import Inputs
from slimwright.errors import BudgetError
from slimwright.evidence import Evidence
from slimwright.graph import Net
from slimwright.progress import Event, Tell, silent
from slimwright.storage import packed_bytes
from slimwright.techniques.pricing import importances, rounded_net, usual_price

POWER, POWERS = -0.45, (-1.0, -0.05)  # of the size in the price; between which it is believed
NEAR_POWER, NEAR_WEIGHT = -0.2, 0.1  # where steps stay about as they are, and what it weighs against what was tried
LEAST_SHARE = 0.1  # of the way between two prices
TRIES = 24
WITHIN = 0.01  # of the size that was asked for
NEAR = 0.08  # of the logarithm of the size: from then on the steps hardly change
AROUND = 0.05  # of the logarithm of their price, by which they change
GOLDEN = 0.618034  # steps of this, modulo 1, lie evenly wherever they end
DOUBLED = 2.0
FARTHEST = 8.0  # times that the size is changed in one step


@dataclass(frozen=True)
class Fitted:
    """A net that takes `size_bytes` in a packed file, and the prices of a bit, in nats, at which it was rounded."""

    net: Net
    size_bytes: int
    price: float
    step_price: float | None


def fitted_net(
    net: Net,
    seen: Evidence,
    inputs: Inputs,
    size_bytes: float,
    *,
    within: float = WITHIN,
    base: Net | None = None,
    zeros: Mapping[str, Tensor] | None = None,
    device: str = "cpu",
    tell: Tell = silent,
) -> Fitted:
    """Return the net rounded so that its packed file takes at most `size_bytes`, and `within` a share less of it.

    What was `seen` of the net says what its errors cost; its weights are solved on the calibration `inputs`. The file
    builds on `base`, where one is given. `zeros` says of layers which weights [O, D] stay zero. Raises BudgetError
    where no price gives a file as small.
    """
    stage = f"round to {size_bytes / 1e3:.4g} kB"
    price, step_price, aim = usual_price(net, seen), None, (1 - within / 2) * size_bytes
    tried: list[Fitted] = []
    near: list[Fitted] = []
    while len(tried) < TRIES:
        tell(Event(stage, len(tried), TRIES))
        small = rounded_net(net, inputs, importances(seen), price, step_price=step_price, zeros=zeros, device=device)
        tried.append(Fitted(small, packed_bytes(small, base=base), price, step_price))
        sizes = [one.size_bytes for one in tried]
        if 1 - within <= sizes[-1] / size_bytes <= 1 or _is_least(tried, size_bytes):
            break
        if near or abs(math.log(sizes[-1] / size_bytes)) < NEAR:
            near.append(tried[-1])
            price = _price_by_trend(near, aim)
            step_price = near[0].price * math.exp(AROUND * (2 * (len(near) * GOLDEN % 1) - 1))
        else:
            price = _next_price(tried, aim)
    tell(Event(stage, TRIES, TRIES))
    small_enough = [one for one in tried if one.size_bytes <= size_bytes]
    if not small_enough:
        least = min(one.size_bytes for one in tried)
        raise BudgetError(
            f"the smallest file that was found has {least:,} bytes, and {int(size_bytes):,} were asked for"
        )
    return max(small_enough, key=lambda one: one.size_bytes)


def _is_least(tried: Sequence[Fitted], size_bytes: float) -> bool:
    """True where all sizes are too large, and a price twice as high saved nothing any more."""
    least = min(tried, key=lambda one: one.size_bytes)
    alike = [one.price for one in tried if one.size_bytes == least.size_bytes]
    return least.size_bytes > size_bytes and max(alike) >= DOUBLED * min(alike)


def _next_price(tried: Sequence[Fitted], aim: float) -> float:
    """The price for a size: between the nearest on both sides, or beyond the nearest by the power that is seen."""
    above = [one for one in tried if one.size_bytes > aim]
    below = [one for one in tried if one.size_bytes <= aim]
    if above and below:
        large, small = min(above, key=lambda one: one.size_bytes), max(below, key=lambda one: one.size_bytes)
        share = math.log(large.size_bytes / aim) / math.log(large.size_bytes / small.size_bytes)
        share = min(max(share, LEAST_SHARE), 1 - LEAST_SHARE)
        return math.exp((1 - share) * math.log(large.price) + share * math.log(small.price))
    nearest, *others = sorted(tried, key=lambda one: abs(math.log(one.size_bytes / aim)))
    power = POWER
    if others and others[0].price != nearest.price:
        seen = math.log(nearest.size_bytes / others[0].size_bytes) / math.log(nearest.price / others[0].price)
        power = min(max(seen, POWERS[0]), POWERS[1])
    change = min(max(aim / nearest.size_bytes, 1 / FARTHEST), FARTHEST)
    return float(nearest.price * change ** (1 / power))


def _price_by_trend(near: Sequence[Fitted], aim: float) -> float:
    """The price for a size by a straight line, in logarithms, through all that were tried near it."""
    prices, sizes = [math.log(one.price) for one in near], [math.log(one.size_bytes) for one in near]
    middle = fmean(prices), fmean(sizes)
    both = sum((p - middle[0]) * (s - middle[1]) for p, s in zip(prices, sizes, strict=True))
    power = (both + NEAR_WEIGHT * NEAR_POWER) / (sum((p - middle[0]) ** 2 for p in prices) + NEAR_WEIGHT)
    power = min(max(power, POWERS[0]), POWERS[1])
    return math.exp(middle[0] + (math.log(aim) - middle[1]) / power)
