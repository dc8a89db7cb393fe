"""What a job starts from: the original is asked for outputs when they are needed, and never twice."""

from dataclasses import dataclass, field

import pytest
import torch
from torch import Tensor, nn

from slimwright.data import ArrayData, Inputs, count_of, split, whole
from slimwright.errors import DataError
from slimwright.importers import capture
from slimwright.jobs.given import LOOKED_AT, check_inputs, given_of
from slimwright.measure import Original, expected_of
from slimwright.tasks import Classification, Outputs, imitating, known_outputs

DATA = ArrayData(
    "noise",
    ("dark", "bright"),
    split(torch.randn(40, 1, 4, 4, generator=torch.Generator().manual_seed(0)), torch.arange(40) % 2, seed=0),
)


@dataclass
class Counted:
    """A network, and of how many images it was asked for the outputs each time."""

    model: nn.Module
    asked: list[int] = field(default_factory=list)

    def __call__(self, inputs: Inputs) -> Outputs:
        self.asked.append(count_of(inputs))
        assert isinstance(inputs, Tensor)
        with torch.no_grad():
            return (self.model(inputs),)


def original() -> tuple[Original, list[int]]:
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 2)).eval()
    counted = Counted(model)
    return Original(capture(model, (1, 4, 4)), counted, "torch"), counted.asked


def test_an_imitations_targets_are_computed_when_a_candidate_is_judged_and_once() -> None:
    given, asked = original()
    task = imitating(DATA, given.forward)
    asked.clear()
    start = given_of(given, task, DATA)
    assert asked == [LOOKED_AT]
    exam = start.exam()
    assert asked == [LOOKED_AT, DATA.size("validation")]
    assert start.exam() is exam
    assert exam.score(given.forward(exam.inputs)) == 0


def test_what_the_original_gave_as_targets_is_what_an_artefact_must_give() -> None:
    given, asked = original()
    taught = imitating(DATA, given.forward).data(DATA, given.forward)
    inputs, targets = whole(taught, "test")
    asked.clear()
    found = expected_of(given, inputs, known_outputs(taught, targets, given.forward, 1))
    assert not asked
    assert torch.equal(found[0], given.forward(inputs)[0])
    other, _ = original()
    assert known_outputs(taught, targets, other.forward, 1) is None
    assert known_outputs(DATA, whole(DATA, "test")[1], given.forward, 1) is None


def test_labels_are_judged_by_as_they_were_given() -> None:
    given, asked = original()
    start = given_of(given, Classification(DATA.labels), DATA)
    inputs, labels = whole(DATA, "validation")
    exam = start.exam()
    assert torch.equal(exam.inputs, inputs) and torch.equal(exam.targets, labels)  # type: ignore[arg-type]
    assert asked == [LOOKED_AT]


def test_a_job_is_known_by_its_images_and_by_how_the_original_runs() -> None:
    given, _ = original()
    task = imitating(DATA, given.forward)
    digests = given_of(given, task, DATA).digests
    assert given_of(given, task, DATA).digests == digests
    half = Original(given.net, given.forward, "ONNX Runtime", 0.02)
    assert given_of(half, task, DATA).digests != digests
    parts = dict(DATA.parts)
    parts["validation"] = torch.zeros(3, 1, 4, 4), torch.tensor([0, 1, 0])
    assert given_of(given, task, ArrayData("noise", DATA.labels, parts)).digests != digests


def test_inputs_in_another_order_are_told() -> None:
    sizes = (torch.randn(40, 2, 4, 4), torch.randn(40, 3))
    data = ArrayData("two", (), split(sizes, torch.zeros(40, 0), seed=0))

    class Two(nn.Module):
        def forward(self, number: Tensor, image: Tensor) -> Tensor:
            return image.flatten(1).sum(1, keepdim=True) + number

    with pytest.raises(DataError, match="the same in another order: list their names"):
        check_inputs(capture(Two(), [(3,), (2, 4, 4)]), data)
