"""How good a model is on a part of a data set: its mean loss, and the task's metric."""

from collections.abc import Iterator

from torch import nn

from slimwright.data import Dataset, Part, Targets, joined, moved, no_images, tensors_of
from slimwright.tasks import Outputs, Task, forward_of


def mean_loss(model: nn.Module, data: Dataset, part: Part, task: Task) -> float:
    """Return the task's mean loss, in nats, of the model in eval mode on a part."""
    total = 0.0
    for outputs, targets in _given(model, data, part, task):
        total += float(task.loss(outputs, targets).sum())
    return total / data.size(part)


def score(model: nn.Module, data: Dataset, part: Part, task: Task) -> float:
    """Return the task's metric, in its unit, of the model in eval mode on a part, all of whose outputs are held."""
    outputs, targets = zip(*_given(model, data, part, task, keep_on="cpu"), strict=True)
    return task.score(tensors_of(joined(outputs)), joined(targets))


def _given(
    model: nn.Module, data: Dataset, part: Part, task: Task, *, keep_on: str | None = None
) -> Iterator[tuple[Outputs, Targets]]:
    """What the model gives for a part, less values to be matched, and the targets; both lie where it computes."""
    if not data.size(part):
        raise no_images(data.name, part)
    forward = forward_of(model)
    for inputs, targets in data.batches(part, 128):
        outputs = forward(inputs)[: task.outputs]
        device = keep_on or str(outputs[0].device)
        yield tensors_of(moved(outputs, device)), moved(targets, device)
