"""What a difference between two scores is worth: a 95 % interval from the very images that both were scored on.

Both networks saw the same images, so the difference is paired. A metric that is a mean over images shows in that the
scores of single images have the whole's as their mean; the interval is then that of the mean difference, with two
images added on which the networks differ once each way (Agresti & Min 2005, Statistics in Medicine 24, sec. 3: for
shares this holds what it promises for few images, and where no image differs it is not of width zero). For any other
metric images are drawn again, RESAMPLES times by a fixed seed, and the middle 95 % of the differences count (Efron
1979, Annals of Statistics 7).
"""

import math
from time import monotonic

import torch
from torch import Tensor

from slimwright.data import Targets, count_of, taken, tensors_of
from slimwright.errors import DataError, RequestError
from slimwright.measure.records import DropInterval
from slimwright.tasks import Metric, Outputs, Task

Z = 1.96  # of a normal distribution: 95 % lie within
RESAMPLES, LEAST_RESAMPLES = 200, 40
LONGEST_S = 20.0  # after which a metric that is slow is resampled no more than LEAST_RESAMPLES times
PROBED = 8  # images by which a metric shows whether it is a mean over images
WHOLE = 100.0  # an image that is right, in a share given in percent


def drop_interval(task: Task, before: Outputs, after: Outputs, targets: Targets, *, seed: int = 0) -> DropInterval:
    """Return how much worse `after` is than `before` on the same N images, in the metric's steps, with 95 % limits."""
    count, metric = count_of(targets), task.metric
    drop = metric.drop(task.score(before, targets), task.score(after, targets))
    (judge, before), (_, after) = _condensed(task, before), _condensed(task, after)
    if _is_mean(judge, before, targets) and _is_mean(judge, after, targets):
        singles = _scores(judge, before, targets), _scores(judge, after, targets)
        if math.isclose(metric.drop(*(float(one.mean()) for one in singles)), drop, rel_tol=1e-6, abs_tol=1e-6):
            low, high = _of_mean(metric, *singles)
            return DropInterval(drop=drop, low=low, high=high, images=count, method="paired", resamples=0)
    generator = torch.Generator().manual_seed(seed)
    drops, began = list[float](), monotonic()
    while len(drops) < RESAMPLES and (len(drops) < LEAST_RESAMPLES or monotonic() - began < LONGEST_S):
        chosen = torch.randint(count, (count,), generator=generator)
        of = taken(targets, chosen)
        drops.append(metric.drop(*(_score(judge, _some(side, chosen), of) for side in (before, after))))
    known = torch.tensor([each for each in drops if math.isfinite(each)] or [drop], dtype=torch.float64)
    low, high = torch.quantile(known, torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    return DropInterval(
        drop=drop, low=min(low, drop), high=max(high, drop), images=count, method="bootstrap", resamples=len(drops)
    )


def least_drop(task: Task, outputs: Outputs, targets: Targets, images: int) -> float | None:
    """Return the drop that so many images can tell from none where hardly any image changes.

    None where the metric is not a share of images that are right; some outputs and targets show that.
    """
    if task.metric.unit != "%" or not task.metric.higher_is_better or not _is_mean(task, outputs, targets):
        return None
    first = torch.arange(min(PROBED, count_of(targets)))
    right = _scores(task, _some(outputs, first), taken(targets, first))
    return least_share(images) if _is_share(right) else None


def least_share(images: int) -> float:
    """Return half the width of the interval, in percent, where no image of so many differs."""
    return Z * WHOLE / (images + 2)


def _of_mean(metric: Metric, before: Tensor, after: Tensor) -> tuple[float, float]:
    """The interval of the mean drop of single images [N], with two more that differ once each way."""
    drops = before - after if metric.higher_is_better else after - before
    count = len(drops) + 2
    most = WHOLE if _is_share(before) and _is_share(after) else float(drops.abs().max())
    mean = float(drops.sum()) / count
    squares = (float(drops.square().sum()) + most**2) / count  # each of the two adds half an image each way
    width = Z * math.sqrt(max(squares - mean**2, 0.0) / count)
    whole = float(drops.mean())
    return min(mean - width, whole), max(mean + width, whole)


def _is_share(scores: Tensor) -> bool:
    """True where each image is right or wrong."""
    return bool(((scores == 0) | (scores == WHOLE)).all())


def _is_mean(task: Task, outputs: Outputs, targets: Targets) -> bool:
    """True where the score of the first images is the mean of theirs."""
    first = torch.arange(min(PROBED, count_of(targets)))
    some, of = _some(outputs, first), taken(targets, first)
    singles = float(_scores(task, some, of).mean())
    return len(first) > 1 and math.isclose(_score(task, some, of), singles, rel_tol=1e-9, abs_tol=1e-9)


def _scores(task: Task, outputs: Outputs, targets: Targets) -> Tensor:
    """The score of each image alone [N]."""
    places = torch.arange(count_of(targets)).split(1)
    return torch.tensor([_score(task, _some(outputs, at), taken(targets, at)) for at in places], dtype=torch.float64)


def _score(task: Task, outputs: Outputs, targets: Targets) -> float:
    """The score of some images; not a number where they show nothing to be found, or are too few for the metric.

    All of them have a score, so a metric of the user's own that fails here (with images of one class, as the area under
    a curve does) does so for the same reason.
    """
    try:
        return task.score(outputs, targets)
    except (DataError, RequestError):
        return math.nan


def _condensed(task: Task, outputs: Outputs) -> tuple[Task, Outputs]:
    """What scores are computed from again and again: a task may say so, where its outputs take long to be read."""
    found: tuple[Task, Outputs] = task.condensed(outputs) if hasattr(task, "condensed") else (task, outputs)
    return found


def _some(outputs: Outputs, chosen: Tensor) -> Outputs:
    return tensors_of(taken(outputs, chosen))
