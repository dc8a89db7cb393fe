"""Which images the steps of a recipe read: each its own part, and as many as it says."""

from dataclasses import replace

import pytest
import torch

from example_nets import SHAPE
from guarded_data import Guarded
from slimwright.coupling import couple
from slimwright.data import ArrayData, Part, labelled
from slimwright.graph import Net
from slimwright.tasks import Classification
from slimwright.techniques import (
    Factorise,
    Fold,
    Prune,
    Quantize,
    Ranks,
    Recipe,
    Regions,
    Solve,
    Step,
    Tune,
    apply,
)
from slimwright.train import Schedule, fit

FEW = 7
LEARNED: dict[str, Step] = {
    "solve": Solve(),
    "solve some": Solve(images=FEW),
    "regions": Regions(epochs=2, seed=5),
    "regions some": Regions(epochs=2, images=FEW, seed=5),
    "factorise": Factorise(layers={"conv2d_1": Ranks(kind="output", ranks=(2,))}, images=12),
    "factorise some": Factorise(layers={"conv2d_1": Ranks(kind="output", ranks=(2,))}, images=FEW),
}  # from calibration images
BLIND: list[Step] = [Fold(), Factorise(layers={"conv2d_1": Ranks(kind="output", ranks=(2,))}), Quantize(images=9)]
TUNE = Tune(epochs=2, rate=0.5, seed=4)


@pytest.fixture(scope="module")
def data() -> ArrayData:
    """Noise; no two parts are of one size, and what trains is loud: its gradients are long."""
    sizes: dict[Part, int] = {"train": 40, "calibration": 12, "validation": 11, "test": 10}
    generator = torch.Generator().manual_seed(0)
    parts = {
        part: (torch.randn(count, *SHAPE, generator=generator), torch.arange(count) % 3)
        for part, count in sizes.items()
    }
    images, labels = parts["train"]
    return ArrayData("noise", ("a", "b", "c"), {**parts, "train": (20 * images, labels)})


def cut(net: Net) -> Prune:
    return Prune(keep={couple(net).groups[0].name: [0, 2, 5]})


def result(net: Net, data: ArrayData | Guarded, *steps: Step) -> str:
    """The digest of what comes of a net that is cut first."""
    return applied(net, data, *steps).digest


def applied(net: Net, data: ArrayData | Guarded, *steps: Step) -> Net:
    """What comes of a net that is cut first. The task is named: nobody looks for labels that would tell it."""
    recipe = Recipe(original=net.digest, steps=(cut(net), *steps))
    return apply(recipe, net, data, task=Classification(data.labels))


@pytest.mark.parametrize("name", LEARNED)
def test_a_step_that_solves_reads_the_calibration_part_alone(residual: Net, data: ArrayData, name: str) -> None:
    guarded = Guarded(data, "train", "validation", "test")
    found = result(residual, guarded, LEARNED[name])
    assert guarded.read == ["calibration"] and found != result(residual, data)


@pytest.mark.parametrize("name", LEARNED)
def test_a_step_that_solves_takes_the_first_images_and_as_many_as_it_says(
    residual: Net, data: ArrayData, name: str
) -> None:
    images, labels = labelled(data.parts["calibration"])
    changed = images.clone()
    changed[FEW:] *= 3
    some = replace(data, parts={**data.parts, "calibration": (images[:FEW], labels[:FEW])})
    others = replace(data, parts={**data.parts, "calibration": (changed, labels)})
    step = LEARNED[name]
    limited = "some" in name
    assert (result(residual, data, step) == result(residual, others, step)) == limited
    assert (result(residual, data, step) == result(residual, some, step)) == limited


@pytest.mark.parametrize("step", BLIND, ids=lambda step: step.step)
def test_a_step_that_learns_nothing_reads_nothing(residual: Net, data: ArrayData, step: Step) -> None:
    guarded = Guarded(data, "train", "calibration", "validation", "test")
    applied(residual, guarded, step)
    assert guarded.read == []


def tuned(net: Net, data: ArrayData, schedule: Schedule, teacher: Net | None) -> str:
    """The digest of the cut net after `fit`."""
    small = applied(net, data)
    module, task = small.to_module(), Classification(data.labels)
    fit(module, data, schedule, task=task, teacher=teacher.to_module() if teacher else None)
    return small.trained(module).digest


def test_a_step_that_tunes_trains_as_it_says_with_the_original_as_teacher(residual: Net, data: ArrayData) -> None:
    guarded = Guarded(data, "calibration", "validation", "test")
    found = result(residual, guarded, TUNE)
    assert guarded.read == ["train"] * 2
    schedule = Schedule(epochs=2, rate=0.5, seed=4, longest_gradient=1.0)
    assert found == tuned(residual, data, schedule, residual)
    others = [
        {"epochs": 1}, {"rate": 0.4}, {"seed": 0}, {"longest_gradient": None}, {"longest_gradient": 0.9},
    ]  # fmt: skip
    assert found not in [tuned(residual, data, replace(schedule, **other), residual) for other in others]  # type: ignore[arg-type]
    small = applied(residual, data)
    assert found not in [tuned(residual, data, schedule, teacher) for teacher in (None, small)]


@pytest.mark.parametrize("other", [{"epochs": 3}, {"rate": 0.02}, {"seed": 6}])
def test_regions_are_trained_as_the_step_says(residual: Net, data: ArrayData, other: dict[str, int]) -> None:
    step = Regions(epochs=2, rate=0.01, seed=5)
    assert result(residual, data, step) != result(residual, data, step.model_copy(update=other))
