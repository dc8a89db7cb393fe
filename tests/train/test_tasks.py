"""Training for tasks other than classification, and of models with several inputs and outputs."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from dots import TASK, Killed, dots, fit_labels, killed_after, same_bits, small_net
from slimwright.data import PARTS, ArrayData, Dataset, Part, Targets, images_of, labelled, split, tensors_of, whole
from slimwright.errors import DataError
from slimwright.progress import Event
from slimwright.tasks import Classification, Forward, Metric, MultiLabel, Outputs, Task, forward_of, imitating
from slimwright.train import Schedule, fit, mean_loss, score

TINY = Schedule(epochs=6, batch_size=16, rate=0.05)


@dataclass(frozen=True)
class Distance:
    """A user's own task: one output [N] near a number, in metres."""

    name: str = "distance"
    classes: tuple[str, ...] = ("all",)
    outputs: int = 1

    @property
    def metric(self) -> Metric:
        return Metric("mean distance", unit="m", step="m", higher_is_better=False)

    def check(self, shapes: Sequence[Sequence[int]]) -> None:
        if [tuple(shape) for shape in shapes] != [(1,)]:
            raise DataError("one number is wanted")

    def data(self, data: Dataset, original: Forward) -> Dataset:
        return data

    def class_of(self, targets: Targets) -> Tensor:
        return torch.zeros(len(tensors_of(targets)[0]), dtype=torch.int64)

    def loss(self, outputs: Outputs, targets: Targets, *, label_smoothing: float = 0.0) -> Tensor:
        return (outputs[0] - tensors_of(targets)[0]).square()

    def drawn_loss(self, outputs: Outputs, numbers: Tensor) -> Tensor:
        normal: Tensor = torch.special.ndtri(numbers)
        return (outputs[0] * normal.to(outputs[0])).sum()

    def distance(self, outputs: Outputs, wanted: Outputs, temperature: float) -> Tensor:
        return (outputs[0] - wanted[0]).square().mean()

    def score(self, outputs: Outputs, targets: Targets) -> float:
        return float((outputs[0] - tensors_of(targets)[0]).abs().mean())

    def agreement(self, found: Outputs, expected: Outputs) -> float:
        return float(((found[0] - expected[0]).abs() < 0.1).double().mean())


class Scaled(nn.Module):
    """A model of two inputs: what is seen, and a number that it is scaled by."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.fc = nn.Linear(9, 1)

    def forward(self, image: Tensor, scale: Tensor) -> Tensor:
        made: Tensor = self.fc(image.flatten(1))[:, 0]
        return made * scale


def scaled() -> ArrayData:
    """Noise, of which the first pixel times a number is wanted."""
    generator = torch.Generator().manual_seed(0)
    images, scale = torch.randn(320, 1, 3, 3, generator=generator), torch.rand(320, generator=generator) + 0.5
    return ArrayData("scaled", (), split((images, scale), images[:, 0, 0, 0] * scale, seed=0))


def unlabelled() -> ArrayData:
    return ArrayData(
        "dots", (), {part: (images, torch.zeros(len(images), 0)) for part, images in dots_images().items()}
    )


def dots_images() -> dict[Part, Tensor]:
    return {part: labelled(dots().parts[part])[0] for part in PARTS}


def test_a_task_of_the_users_own_and_several_inputs_train() -> None:
    task: Task = Distance()
    data, model = scaled(), Scaled()
    before = score(model, data, "test", task), mean_loss(model, data, "test", task)
    told: list[Event] = []
    fit(model, data, replace(TINY, epochs=30, patience=30, weight_decay=0), task=task, tell=told.append)
    after = score(model, data, "test", task), mean_loss(model, data, "test", task)
    assert after[0] < 0.2 * before[0] and after[1] < 0.05 * before[1]
    inputs, targets = whole(data, "test")
    with torch.no_grad():
        off = model(*tensors_of(inputs)) - tensors_of(targets)[0]
    assert after == pytest.approx((float(off.abs().mean()), float(off.square().mean())), rel=1e-5)
    assert f"least validation loss {mean_loss(model, data, 'validation', task):.3f}" in told[-1].note


def test_a_net_learns_to_imitate_without_labels() -> None:
    teacher = fit_labels(small_net(3), dots(), TINY)
    original = forward_of(teacher)
    task = imitating(unlabelled(), original)
    data = task.data(unlabelled(), original)
    model = small_net(1)
    before = score(model, data, "test", task)
    fit(model, data, replace(TINY, epochs=20), task=task)
    after = score(model, data, "test", task)
    assert after < 50 < before
    images = dots_images()["test"]
    with torch.no_grad():
        error = (model(images) - teacher(images)).square().mean().sqrt() / task.deviations[0]
    assert after == pytest.approx(100 * float(error), rel=1e-5)


def test_several_labels_an_image_are_learnt() -> None:
    """Both sides, one or none are bright."""
    generator = torch.Generator().manual_seed(0)
    flags = torch.rand(200, 2, generator=generator) < 0.5
    images = 0.3 * torch.randn(200, 1, 8, 8, generator=generator) + flags.repeat_interleave(4, 1)[:, None, None, :]
    data = ArrayData("sides", ("left", "right"), split(images, flags.long(), seed=0))
    task, model = MultiLabel(data.labels), small_net()
    before = score(model, data, "test", task)
    fit(model, data, TINY, task=task)
    assert score(model, data, "test", task) > 95 > before


def test_the_checkpoint_of_another_task_is_not_used(tmp_path: Path) -> None:
    checkpoint = tmp_path / "checkpoint.safetensors"
    tasks: tuple[Task, ...] = TASK, Classification(TASK.classes, name="another")
    for task, epochs in zip(tasks, (4, 6), strict=True):
        with pytest.raises(Killed):
            fit(small_net(), dots(), TINY, task=TASK, checkpoint=checkpoint, tell=killed_after(3)[1])
        told: list[Event] = []
        model = fit(small_net(), dots(), TINY, task=task, checkpoint=checkpoint, tell=told.append)
        assert len(told) == epochs  # the third was killed before it was saved
        assert same_bits(model, fit(small_net(), dots(), TINY, task=TASK))


def test_the_score_is_of_the_whole_part_whatever_the_batches() -> None:
    """A metric that is not a mean over images, of more images than a batch holds."""
    generator = torch.Generator().manual_seed(0)
    images, flags = torch.randn(800, 1, 2, 2, generator=generator), torch.rand(800, 3, generator=generator) < 0.2
    data = ArrayData("flags", ("a", "b", "c"), split(images, flags.long(), seed=0))
    task = MultiLabel(data.labels)
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
    inputs, targets = whole(data, "train")
    assert len(images_of(inputs)) == 400
    with torch.no_grad():
        outputs = model.eval()(images_of(inputs))
    assert score(model, data, "train", task) == pytest.approx(task.score((outputs,), targets))
