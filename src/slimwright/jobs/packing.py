"""A network in as few bytes as are asked for: folded, observed, and rounded at the price of a bit that gives this size.

One price for all layers makes them share the bytes (`techniques/round.py`). A higher one gives a smaller file, by a
power of about -0.45 in the networks that were tried; a few roundings find the price for a size.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

import torch

from slimwright.data import Batch, Dataset, like, whole
from slimwright.errors import BudgetError
from slimwright.evidence import Evidence, observe
from slimwright.graph import Net
from slimwright.measure import Original, outputs_of
from slimwright.progress import Event, Tell, silent
from slimwright.storage import packed_bytes
from slimwright.tasks import Task
from slimwright.techniques import fold_batch_norm, importances, rounded_net

OBSERVED, AT_ONCE = 512, 32  # images that show what an error of an output costs
POWER = -0.45  # of the size in the price
TRIES = 12
WITHIN, AIM = 0.01, 0.995  # of the size that was asked for
FARTHEST = 8.0  # times that the size is changed in one step


@dataclass(frozen=True)
class Fitted:
    """A net that takes `size_bytes` in a packed file, and the price of a bit, in nats, at which it was rounded."""

    net: Net
    size_bytes: int
    price: float
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
    price, tried = _first_price(net, evidence), dict[float, Fitted]()
    while len(tried) < TRIES:
        tell(Event(f"round to {size_bytes / 1e3:.4g} kB", len(tried), TRIES))
        small = rounded_net(net, inputs, prices, price)
        tried[price] = Fitted(small, packed_bytes(small), price, len(tried) + 1)
        if 1 - WITHIN <= tried[price].size_bytes / size_bytes <= 1:
            break
        price = _next_price(tried, AIM * size_bytes)
    tell(Event(f"round to {size_bytes / 1e3:.4g} kB", TRIES, TRIES))
    small_enough = [one for one in tried.values() if one.size_bytes <= size_bytes]
    if not small_enough:
        least = min(one.size_bytes for one in tried.values())
        raise BudgetError(
            f"the smallest file that was found has {least:,} bytes, and {int(size_bytes):,} were asked for"
        )
    return max(small_enough, key=lambda one: one.size_bytes)


def scores(original: Original, small: Net, data: Dataset, task: Task) -> Scores:
    """Return the metric of both nets on the part that choices may see, and on the one that none saw."""
    judged = task.data(data, original.forward)
    found = {}
    for part in ("validation", "test"):
        inputs, targets = whole(judged, part)
        found[part] = tuple(
            task.score(outputs, targets) for outputs in (original.forward(inputs), outputs_of(small, inputs))
        )
    return Scores(found["validation"], found["test"])


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


def _next_price(tried: dict[float, Fitted], aim: float) -> float:
    """The price for a size: between the nearest on both sides, or beyond the nearest by the power."""
    above = [one for one in tried.values() if one.size_bytes > aim]
    below = [one for one in tried.values() if one.size_bytes <= aim]
    if above and below:
        large, small = min(above, key=lambda one: one.size_bytes), max(below, key=lambda one: one.size_bytes)
        share = math.log(large.size_bytes / aim) / math.log(large.size_bytes / small.size_bytes)
        share = min(max(share, 0.05), 0.95)
        return math.exp(math.log(large.price) + share * (math.log(small.price) - math.log(large.price)))
    nearest = min(tried.values(), key=lambda one: abs(math.log(one.size_bytes / aim)))
    change = min(max(aim / nearest.size_bytes, 1 / FARTHEST), FARTHEST)
    return nearest.price * change ** (1 / POWER)
