import torch
from torch import Tensor

from slimwright.data import ArrayData, Part, Targets, tensors_of, whole
from slimwright.jobs.given import _said
from slimwright.tasks import Imitation, Metric, Outputs, Scored, scored

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
