"""What a recipe was given and what it gave, side by side."""

from collections.abc import Mapping

from slimwright.cost import count
from slimwright.data import Dataset, whole
from slimwright.measure import Original, outputs_of
from slimwright.tasks import Task
from slimwright.techniques import Work

Side = Mapping[str, float]


def applied_sides(original: Original, data: Dataset, task: Task, work: Work) -> dict[str, Side]:
    """Return MACs, parameters and the score on the validation part of a model and of what a recipe made of it."""
    sides: dict[str, Side] = {}
    given = task.data(data, original.forward)
    for name, net, judge, judged in (
        ("original", original.net, task, given),
        ("result", work.draft.net, work.task, work.data),
    ):
        inputs, targets = whole(judged, "validation")
        counted, score = count(net), judge.score(outputs_of(net, inputs), targets)
        sides[name] = {"macs": counted.macs, "params": counted.params, "validation_score": score}
    return sides
