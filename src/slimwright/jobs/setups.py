"""Is the original set up rightly? Its metric is measured first, so that a wrong set-up never passes as a success.

Where the metric is below what was expected, or could be much better, the same labelled images are tried in other ways:
with the classes in another order, normalized otherwise, with other channels, placed otherwise. What does much better
is named. Nothing is said of a model that is just not very good: a variant counts where it is better by a `Margin` on
the same images, which is more than chance explains (McNemar 1947).
"""

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from slimwright.data import Batch, Dataset, StreamedData, Targets, count_of, joined, taken, tensors_of, whole
from slimwright.data.variants import Placing, Variant, placings, some_of, spread, variants
from slimwright.errors import DataError, RequestError
from slimwright.jobs.embedded import embedded
from slimwright.jobs.given import check_inputs
from slimwright.measure import Original
from slimwright.progress import Event, Tell, silent
from slimwright.tasks import Judging, Metric, Order, Outputs, Task

MOST, ENOUGH = 400, 100  # labelled images that are looked at; where validation has fewer, calibration helps out
FEWEST = 20  # with fewer images nothing can be told
FINE = 0.9  # nothing can be better than this by `PLAIN.share`
FAR, HALF = 0.25, 0.5  # what an order of classes that was fitted must gain, and reach
CLEARLY = 0.2  # what another placing must gain: a bad net may prefer larger pictures
SECONDS, LEAST, SCREENED = 30.0, 16, 64  # for all variants together, and images that each is tried with
TRIED = 3  # variants that are looked at on all images
ALIKE = 0.02  # shares that are this close are equally good
SHOWN = 3  # classes that a message names
STAGE = "try other set-ups"
RENAME = "name the model's outputs in their order with --classes"
GO_ON = "go on with --expect 0"
AWAY = 0.2  # of the way from chance to perfect: what is surely below is as good as chance
CONFIDENCE = 1.96  # 95 %


@dataclass(frozen=True)
class Margin:
    """By how much something else must be better on the same images: a share, and in standard deviations of chance."""

    share: float
    deviations: float


PLAIN = Margin(0.10, 3.0)
SHORT = Margin(0.02, 2.0)  # where what was expected is not reached


@dataclass(frozen=True)
class Finding:
    """A set-up that was tried: what it is, what to do for it, and how it did."""

    said: str
    remedy: str
    right: Tensor  # of each image
    loss: float  # the mean, in nats: of equally good set-ups the one with the least is meant

    @property
    def share(self) -> float:
        """The share of images that it has right."""
        return float(self.right.double().mean())


def expectation(text: str, metric: Metric) -> float:
    """Return what is expected of a metric, in its unit: 0.76 and 76% are the same accuracy.

    Raises RequestError for a text that is not a number.
    """
    number, percent, rest = text.strip().partition("%")
    try:
        value = float(number)
    except ValueError as error:
        raise RequestError(f"'{text}' is not what a metric can be expected to be; write 0.76 or 76%") from error
    if rest or not math.isfinite(value):
        raise RequestError(f"'{text}' is not what a metric can be expected to be; write 0.76 or 76%")
    return 100 * value if metric.unit == "%" and not percent and value <= 1 else value


def set_up(
    original: Original, task: Task, data: Dataset, *, expect: str | None, embed: bool, tell: Tell
) -> tuple[Original, Dataset]:
    """Return the original and its data as a job goes on with them: checked, and as levels if `embed`.

    Raises DataError as `check_setup` does, and where model, data and task do not fit one another.
    """
    check_inputs(original.net, data)
    task.check(original.output_shapes)
    check_setup(original, task, data, expect=expect, tell=tell)
    return embedded(original, data) if embed else (original, data)


def check_setup(
    original: Original, task: Task, data: Dataset, *, expect: str | None = None, tell: Tell = silent
) -> None:
    """Raise DataError where the original does not do its task on the validation part of `data`, saying what would help.

    With `expect` its metric must be as good, where 0 takes everything, errors too; without, it must not be as good as
    chance, nor much better in another set-up. Nothing is judged without labels or `expect`.
    """
    wanted = None if expect is None else expectation(expect, task.metric)
    if wanted == 0 or (wanted is None and not isinstance(task, Judging)):
        return
    batch = whole(task.data(data, original.forward), "validation")
    if wanted is not None:
        score = task.score(original.forward(batch[0]), batch[1])
        if task.metric.drop(wanted, score) <= 1e-9:
            return
        found = _better(original, task, data, _sample(data, batch), SHORT, tell) if isinstance(task, Judging) else None
        shown = f"{task.metric.name} {task.metric.shown(score)} on {count_of(batch[0])} validation images"
        raise DataError(f"{shown}, and {task.metric.shown(wanted)} was expected; {_advice(found)}")
    assert isinstance(task, Judging)
    sample = _sample(data, batch)
    right = task.right(original.forward(sample[0]), sample[1])
    share = float(right.double().mean())
    if share >= FINE or len(right) < FEWEST or task.chance(sample[1]) >= FINE:
        return
    by_chance = _near_chance(share, task.chance(sample[1]), len(right))
    found = _better(original, task, data, sample, PLAIN, tell)
    if found or by_chance:
        said = f"{task.metric.name} {_percent(share)} on {len(right)} labelled images"
        alone = f", and chance alone gives {_percent(task.chance(sample[1]))}" if by_chance else ""
        raise DataError(f"{said}{alone}; {_advice(found)}")


def _advice(found: Finding | None) -> str:
    """What to do."""
    if found is None:
        return (
            "no other normalization, channels, placing or order of classes that was tried is much better: check "
            f"weights, labels and preprocessing, or {GO_ON}"
        )
    return f"with {found.said} it is {_percent(found.share)}: {found.remedy}, or {GO_ON}"


def _sample(data: Dataset, validation: Batch) -> Batch:
    """At most `MOST` labelled images, spread evenly over the part, with those of the calibration part where few."""
    batches = [validation]
    if count_of(validation[0]) < ENOUGH:
        batches.append(whole(data, "calibration"))
    inputs, targets = joined([i for i, _ in batches]), joined([t for _, t in batches])
    return _some((inputs, targets), MOST)


def _some(batch: Batch, most: int) -> Batch:
    chosen = spread(count_of(batch[0]), most)
    return taken(batch[0], chosen), taken(batch[1], chosen)


def _near_chance(share: float, chance: float, images: int) -> bool:
    """True where the share may be chance's and is surely far from a working model's (Wilson 1927)."""
    low, high = _interval(share, images)
    return low <= chance and high < chance + AWAY * (1 - chance)


def _interval(share: float, images: int) -> tuple[float, float]:
    z = CONFIDENCE
    middle = (share + z * z / (2 * images)) / (1 + z * z / images)
    half = z / (1 + z * z / images) * math.sqrt(share * (1 - share) / images + z * z / (4 * images**2))
    return middle - half, middle + half


def _better(original: Original, task: Task, data: Dataset, sample: Batch, margin: Margin, tell: Tell) -> Finding | None:
    """The set-up that is right most often, if it is better than the one that is there by far."""
    assert isinstance(task, Judging)
    began = time.perf_counter()
    base = _tried(original, task, sample, "", "")[0]
    seconds = (time.perf_counter() - began) / len(base.right)
    every, placed = list(variants(data, sample[0])), list(placings(data))
    few = min(SCREENED, max(LEAST, int(SECONDS / max(seconds * (len(every) + len(placed)), 1e-9))))
    some = _some(sample, few)
    level = _tried(original, task, some, "", "")[0].share + margin.share
    found = [one for one in _tried(original, task, sample, "", "", RENAME) if _surely(base, one, margin)]
    promising: list[tuple[float, Variant]] = []
    for number, variant in enumerate(every):
        tell(Event(STAGE, number, len(every), variant.said))
        seen = _tried(original, task, (variant.change(some[0]), some[1]), variant.said, "")
        promising.append((max(one.share for one in seen), variant))
    tell(Event(STAGE, len(every), len(every)))
    for share, variant in sorted(promising, key=lambda one: -one[0])[:TRIED]:
        if share >= level:
            remedy = f"give --preprocessing {variant.text}"
            seen = _tried(original, task, (variant.change(sample[0]), sample[1]), variant.said, remedy, RENAME)
            found += [one for one in seen if _surely(base, one, margin)]
    if not found:
        found = [one for placing in placed for one in _placed(original, task, data, placing, margin, few)]
    found = [one for one in found if one.share >= task.chance(sample[1]) + PLAIN.share]
    best = max((one.share for one in found), default=0.0)
    alike = [one for one in found if one.share >= best - ALIKE]
    return min(alike, key=lambda one: one.loss, default=None)


def _placed(
    original: Original, task: Task, data: Dataset, placing: Placing, margin: Margin, few: int
) -> Iterator[Finding]:
    """Pictures placed in another way, if that is better by far."""
    assert isinstance(data, StreamedData)
    for count in (few, MOST):
        remedy = f"give --preprocessing {placing.text}"
        inputs, targets = some_of(data, count)
        base = _tried(original, task, (inputs, targets), "", "")[0]
        other = _tried(original, task, (some_of(placing.data, count)[0], targets), placing.said, remedy)[0]
        if other.share < base.share + margin.share:
            return
    if _surely(base, other, margin) and (margin is SHORT or other.share >= max(HALF, base.share + CLEARLY)):
        yield other


def _tried(original: Original, task: Task, batch: Batch, said: str, remedy: str, rename: str = "") -> list[Finding]:
    """How the original does on a batch, and with its classes in other orders."""
    assert isinstance(task, Judging)
    outputs, targets = original.net.run(tensors_of(batch[0])), batch[1]

    def finding(order: Order | None, name: str) -> Finding:
        seen = outputs if order is None else task.reordered(outputs, order)
        todo = remedy if order is None else " and ".join(filter(None, (remedy, rename)))
        named = " and ".join(filter(None, (said, name)))
        return Finding(named, todo, task.right(seen, targets).cpu(), float(task.loss(seen, targets).mean()))

    found = [finding(None, ""), *(finding(order, f"its classes in {name}") for name, order in task.orders().items())]
    order = task.assigned(outputs, targets)
    fitted = finding(order, f"its classes in another order ({_shifts(order, task.classes)})")
    held_out = _held_out(task, outputs, targets)
    if held_out >= max(HALF, found[0].share + FAR) and held_out > max(one.share for one in found) + PLAIN.share:
        found.append(fitted)
    return found


def _held_out(task: Judging, outputs: Outputs, targets: Targets) -> float:
    """The share that is right in an order of classes that was found on the other half of the images."""
    places = torch.arange(count_of(targets))
    halves = [places[::2], places[1::2]]
    right = 0
    for one, other in (halves, halves[::-1]):
        order = task.assigned(tuple(o[one] for o in outputs), taken(targets, one))
        seen = task.reordered(tuple(o[other] for o in outputs), order)
        right += int(task.right(seen, taken(targets, other)).sum())
    return right / len(places)


def _shifts(order: Order, names: Sequence[str]) -> str:
    """The first classes whose scores are elsewhere."""
    moved = [f"the score of '{names[k]}' is number {score}" for k, score in enumerate(order) if score != k]
    return ", ".join(moved[:SHOWN]) + (", ..." if len(moved) > SHOWN else "")


def _surely(base: Finding, other: Finding, margin: Margin) -> bool:
    """True where the other is better by a margin on the same images."""
    won, lost = int((other.right & ~base.right).sum()), int((base.right & ~other.right).sum())
    enough = other.share >= base.share + margin.share
    return enough and won - lost >= margin.deviations * math.sqrt(won + lost)


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"
