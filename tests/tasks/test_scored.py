import pytest
import torch
from torch import Tensor

from slimwright.data import ArrayData, Part, Targets, tensors_of, whole
from slimwright.errors import RequestError
from slimwright.jobs.given import _said
from slimwright.tasks import Imitation, Metric, Outputs, Scored, scored, task_for
from slimwright.tasks.scored import Measure

BOXES: dict[Part, tuple[Tensor, Tensor]] = {
    part: (torch.randn(6, 1, 8, 8), torch.arange(30.0).reshape(6, 5))
    for part in ("train", "calibration", "validation", "test")
}


def original(inputs: Tensor | tuple[Tensor, ...]) -> Outputs:
    images = tensors_of(inputs)[0]
    return images.mean((2, 3)), images[:, :, 0]


def far(outputs: Outputs, targets: Targets) -> float:
    """The mean of what the targets of the data are, which are alone here."""
    assert isinstance(targets, Tensor) and len(outputs) == 2
    return float(targets.mean())


def test_the_loss_is_that_of_imitation_and_the_score_is_ones_own() -> None:
    data = ArrayData("boxes", (), BOXES)
    task = scored("distance", far, Metric("distance", "px", "px", higher_is_better=False))(data, original)
    assert isinstance(task, Scored) and isinstance(task.like, Imitation) and task.outputs == 2
    inputs, targets = whole(task.data(data, original), "validation")
    outputs = original(inputs)
    assert [tensor.shape[1:] for tensor in tensors_of(targets)] == [(5,), (1,), (1, 8)]
    assert torch.equal(task.loss(outputs, targets), torch.zeros(6)) and task.score(outputs, targets) == 14.5
    worse = outputs[0] + 1, outputs[1]
    assert (
        torch.equal(task.loss(worse, targets), task.like.loss(worse, outputs)) and task.loss(worse, targets).min() > 0
    )
    assert task.agreement(outputs, outputs) == 1


def test_what_a_journal_says_of_it_is_the_same_in_every_run() -> None:
    task = scored("distance", far, Metric("distance"))(ArrayData("boxes", (), BOXES), original)
    assert " at 0x" not in "".join(_said(task)) and "far" in "".join(_said(task))


def broken(outputs: Outputs, targets: Targets) -> float:
    raise KeyError("area")


def worded(outputs: Outputs, targets: Targets) -> float:
    return "good"  # type: ignore[return-value]


def none(outputs: Outputs, targets: Targets) -> float:
    return None  # type: ignore[return-value]


def a_tensor(outputs: Outputs, targets: Targets) -> float:
    return torch.tensor(1.5)  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("measure", "why"),
    [(broken, "KeyError: 'area'"), (worded, "ValueError: could not"), (none, "TypeError: .*not 'NoneType'")],
)
def test_a_metric_that_fails_or_gives_no_number_is_told(measure: Measure, why: str) -> None:
    data = ArrayData("boxes", (), BOXES)
    task = scored("distance", measure, Metric("distance"))(data, original)
    inputs, targets = whole(task.data(data, original), "validation")
    with pytest.raises(RequestError, match=f"the metric 'distance' failed: {why}.* a tuple of 2 tensors"):
        task.score(original(inputs), targets)


def test_a_metric_that_is_a_tensor_of_one_number_is_that_number() -> None:
    data = ArrayData("boxes", (), BOXES)
    task = scored("distance", a_tensor, Metric("distance"))(data, original)
    inputs, targets = whole(task.data(data, original), "validation")
    found = task.score(original(inputs), targets)
    assert (found, type(found)) == (1.5, float)


def test_a_metric_in_the_place_of_a_task_is_told() -> None:
    data = ArrayData("boxes", (), BOXES)
    with pytest.raises(RequestError, match=r"could not be made: AssertionError[\s\S]*slimwright\.tasks\.scored"):
        task_for(data, [(1, 1)], original, far)  # type: ignore[arg-type]
    with pytest.raises(RequestError, match="what was made is not a task: it has no name, metric"):
        task_for(data, [(1, 1)], original, lambda data, original: 3)  # type: ignore[arg-type,return-value]
