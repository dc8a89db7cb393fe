"""A network in as few bytes as are asked for: folded, observed, and rounded at the price of a bit that gives this size.

One price for all layers makes them share the bytes (`techniques/round.py`). A higher one gives a smaller file, by a
power of about -0.45 in the networks that were tried; a few roundings find the price for a size.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import torch

from slimwright.data import Batch, Dataset, Part, like, whole
from slimwright.errors import BudgetError
from slimwright.evidence import Evidence, observe
from slimwright.graph import Net
from slimwright.measure import Original, outputs_of
from slimwright.progress import Event, Tell, silent
from slimwright.storage import packed_bytes
from slimwright.tasks import Task
from slimwright.techniques import fold_batch_norm, importances, rounded_net

OBSERVED, AT_ONCE = 512, 32  # images that show what an error of an output costs
POWER, POWERS = -0.45, (-1.0, -0.05)  # of the size in the price; between which it is believed
LEAST_SHARE = 0.1  # of the way between two prices
TRIES = 12
WITHIN, AIM = 0.01, 0.995  # of the size that was asked for
NEAR = 0.08  # of the logarithm of the size: from then on the steps stay, and only the price of a bit changes
FARTHEST = 8.0  # times that the size is changed in one step


@dataclass(frozen=True)
class Fitted:
    """A net that takes `size_bytes` in a packed file, and the prices of a bit, in nats, at which it was rounded."""

    net: Net
    size_bytes: int
    price: float
    step_price: float | None
    tries: int


@dataclass(frozen=True)
class Scores:
    """The metric of the original and of what was packed, on the validation part and on the test part."""

    validation: tuple[float, float]
    test: tuple[float, float]


def fitted(
    original: Net, data: Dataset, task: Task, size_bytes: float, *, images: int | None = None, tell: Tell = silent
) -> Fitted:
    """Return the net rounded so that its packed file takes at most `size_bytes`, and no less than 99 % of that.

    It is solved on the first so many `images` of the calibration part, or on all. Raises BudgetError where no price
    gives a file as small.
    """
    net = fold_batch_norm(original)
    evidence = observe(net, _few(task.data(data, original.run)), task=task, images=OBSERVED, taylor=False, tell=tell)
    prices = importances(evidence)
    inputs = like(whole(data, "calibration")[0], lambda tensor: tensor[:images])
    price, step_price = _first_price(net, evidence), None
    tried: list[Fitted] = []
    while len(tried) < TRIES:
        tell(Event(f"round to {size_bytes / 1e3:.4g} kB", len(tried), TRIES))
        small = rounded_net(net, inputs, prices, price, step_price=step_price)
        tried.append(Fitted(small, packed_bytes(small), price, step_price, len(tried) + 1))
        sizes = [one.size_bytes for one in tried]
        if 1 - WITHIN <= sizes[-1] / size_bytes <= 1 or (min(sizes) > size_bytes and len(set(sizes)) < len(sizes)):
            break  # met, or higher prices save nothing any more
        if step_price is None and abs(math.log(tried[-1].size_bytes / size_bytes)) < NEAR:
            step_price = price
        alike = [one for one in tried if step_price is None or step_price in (one.step_price, one.price)]
        price = _next_price(alike, AIM * size_bytes)
    tell(Event(f"round to {size_bytes / 1e3:.4g} kB", TRIES, TRIES))
    small_enough = [one for one in tried if one.size_bytes <= size_bytes]
    if not small_enough:
        least = min(one.size_bytes for one in tried)
        raise BudgetError(
            f"the smallest file that was found has {least:,} bytes, and {int(size_bytes):,} were asked for"
        )
    return max(small_enough, key=lambda one: one.size_bytes)


def scores(original: Original, small: Net, data: Dataset, task: Task) -> Scores:
    """Return the metric of both nets on the part that choices may see, and on the one that none saw."""
    judged = task.data(data, original.forward)
    found: list[tuple[float, float]] = []
    parts: tuple[Part, ...] = ("validation", "test")
    for part in parts:
        inputs, targets = whole(judged, part)
        before, after = original.forward(inputs), outputs_of(small, inputs)
        found.append((task.score(before, targets), task.score(after, targets)))
    return Scores(*found)


def _few(data: Dataset) -> Iterator[Batch]:
    return islice(data.batches("calibration", AT_ONCE), OBSERVED // AT_ONCE)


def _first_price(net: Net, evidence: Evidence) -> float:
    """The price at which a step is about as large as a weight, in the mean over the layers by their weights."""
    seen = evidence.all()
    logs, counts = [], []
    for name, sums in seen.layers.items():
        weight = net.tensors[net[name].tensors["weight"]]
        read = float(sums.gram[0].diagonal(dim1=1, dim2=2).mean() / sums.count[0])
        nats = 0.5 * float(sums.fisher[0].mean() / seen.images[0])
        value = math.log(2) / 6 * float(torch.var(weight, correction=0)) * read * nats
        if value > 0:
            logs.append(math.log(value) * weight.numel())
            counts.append(weight.numel())
    if not counts:
        raise BudgetError(
            "nothing that the layers give changes the loss on the calibration images: no weight can be priced"
        )
    return math.exp(sum(logs) / sum(counts))


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
