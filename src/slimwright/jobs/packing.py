"""A network rounded to the size that its packed file may have, and what that cost: its metric before and after."""

from dataclasses import dataclass

from slimwright.cost import memory_there
from slimwright.data import Dataset, Part, unlabelled_inputs, whole
from slimwright.graph import Net
from slimwright.jobs.forecast import check_inspection
from slimwright.measure import Original, outputs_of
from slimwright.progress import Tell, silent
from slimwright.tasks import Metric, Task
from slimwright.techniques import fold_batch_norm, observed
from slimwright.techniques.fitting import Fitted, fitted_net
from slimwright.techniques.memory_plan import images_to_round, images_within
from slimwright.techniques.solver.draft import Draft


@dataclass(frozen=True)
class Scores:
    """The metric of the original and of what was packed, on the validation part and on the test part."""

    metric: Metric
    validation: tuple[float, float]
    test: tuple[float, float]

    @property
    def drop(self) -> float:
        """How much worse the metric is on the test part, in its own steps."""
        return self.metric.drop(*self.test)


def fitted(
    original: Net,
    data: Dataset,
    task: Task,
    size_bytes: float,
    *,
    images: int | None = None,
    base: Net | None = None,
    memory_bytes: int | None = None,
    tell: Tell = silent,
) -> Fitted:
    """Return the net, folded and rounded so that its packed file takes at most `size_bytes`, as `fitted_net` does.

    The net is solved on the first so many `images` of the calibration part and the training part behind it, or on as
    many as show enough (`images_to_round`), or on fewer where `memory_bytes`, by default what the machine has, are too
    few. Raises BudgetError where no price gives a file as small, and RequestError where memory is too short for any
    image, or to score the result.
    """
    check_inspection([original], data, timed=False, memory_bytes=memory_bytes)
    net = fold_batch_norm(original)
    there = memory_there(memory_bytes)
    seen = observed(net, task.data(data, original.run), task, there=there, tell=tell)
    images = images_within(Draft.of(net), images or images_to_round(net, data), there=there, rounded=True, tell=tell)
    return fitted_net(net, seen, unlabelled_inputs(data, images), size_bytes, base=base, tell=tell)


def scores(original: Original, small: Net, data: Dataset, task: Task) -> Scores:
    """Return the metric of both nets on the part that choices may see, and on the one that none saw."""
    judged = task.data(data, original.forward)
    found: list[tuple[float, float]] = []
    parts: tuple[Part, ...] = ("validation", "test")
    for part in parts:
        inputs, targets = whole(judged, part)
        before, after = original.forward(inputs), outputs_of(small, inputs)
        found.append((task.score(before, targets), task.score(after, targets)))
    return Scores(task.metric, *found)
