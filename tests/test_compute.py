"""What computes elsewhere gives what the processor gives. The tests that need an accelerator are skipped without."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from dots import TASK, Killed, dots, fit_labels, killed_after, same_bits
from example_nets import SHAPE, classification, hand_made
from slimwright.compute import device_of, placed, usable
from slimwright.coupling import couple
from slimwright.data import ArrayData, images_of, labelled, split
from slimwright.errors import RequestError
from slimwright.evidence import observe
from slimwright.graph import Net
from slimwright.importers import capture
from slimwright.techniques import Factorise, Fold, Prune, Ranks, Recipe, Regions, Solve, Tune, apply
from slimwright.techniques.low_rank import Factors, factorise
from slimwright.techniques.ranks import damages
from slimwright.techniques.solver.draft import Draft
from slimwright.techniques.solver.refit import refit
from slimwright.train import Schedule, score

CUDA = "cuda"
needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no CUDA device here")


@pytest.fixture(scope="module")
def data() -> ArrayData:
    images = torch.randn(240, *SHAPE, generator=torch.Generator().manual_seed(0))
    return ArrayData("noise", ("a", "b", "c"), split(images, torch.arange(240) % 3, seed=0))


@pytest.fixture(scope="module")
def net() -> Net:
    torch.manual_seed(3)
    model = nn.Sequential(
        nn.Conv2d(1, 12, 3, padding=1, bias=False), nn.BatchNorm2d(12), nn.ReLU(),
        nn.Conv2d(12, 16, 3, padding=1), nn.ReLU(), nn.Dropout(0.1),
        nn.Conv2d(16, 10, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(10, 3),
    )  # fmt: skip
    return capture(model.eval(), SHAPE)


def scores(net: Net, data: ArrayData) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = net.to_module()(images_of(data.parts["test"][0]))
    return found


def assert_near(one: torch.Tensor, other: torch.Tensor, within: float) -> None:
    """Equal up to a share of the largest entry."""
    assert one.device == other.device
    assert float((one - other).abs().max()) <= within * max(float(other.abs().max()), 1e-12)


@pytest.mark.parametrize("device", ["nowhere", "cuda:99", "meta"])
def test_a_device_that_is_not_there_is_named(device: str, data: ArrayData, net: Net) -> None:
    for request in (
        lambda: usable(device),
        lambda: apply(Recipe(original=None, steps=(Fold(),)), net, data, device=device),
        lambda: observe(net, data.batches("calibration", 8), task=classification(3), device=device),
        lambda: refit(Draft.of(net), images_of(data.parts["calibration"][0]), device=device),
    ):
        with pytest.raises(RequestError, match=f"device '{device}'.*'cpu' is always there"):
            request()


def test_the_processor_needs_no_place() -> None:
    with placed("cpu"):
        assert str(torch.zeros(1).device) == "cpu"
    assert device_of(nn.ReLU()) == device_of(nn.Linear(2, 2)) == "cpu"


def test_a_teacher_elsewhere_is_refused() -> None:
    model, teacher = nn.Sequential(nn.Flatten(), nn.Linear(64, 2)), nn.Linear(64, 2, device="meta")
    with pytest.raises(RequestError, match="the model lies on cpu, its teacher on meta"):
        fit_labels(model, dots(), Schedule(epochs=1), teacher=teacher)


def test_a_net_that_is_where_it_shall_be_keeps_its_tensors(net: Net) -> None:
    assert all(net.on("cpu").tensors[name] is tensor for name, tensor in net.tensors.items())
    assert net.device == "cpu" and net.on("meta").device == "meta"


@needs_cuda
@pytest.mark.parametrize("name", ["Residual", "Concat", "Separable", "Gated"])
def test_evidence_is_the_same_sums(name: str, data: ArrayData) -> None:
    net = hand_made_net(name)
    classes = net[net.outputs[0]].shape[1]
    batches = [(images, labels % classes) for images, labels in map(labelled, data.batches("calibration", 16))]
    here, there = (observe(net, batches, task=classification(classes), device=device) for device in ("cpu", CUDA))
    assert here.tensors().keys() == there.tensors().keys()
    for key, tensor in here.tensors().items():
        assert_near(there.tensors()[key], tensor, 1e-4)
    for exact in ("images", "taylor_images"):
        assert torch.equal(here.tensors()[exact], there.tensors()[exact])


def hand_made_net(name: str) -> Net:
    return capture(hand_made(name), SHAPE)


@needs_cuda
def test_damages_are_the_same(net: Net, data: ArrayData) -> None:
    evidence = observe(net, data.batches("calibration", 16), task=classification(3))
    for kinds in ({"conv2d_1": "cp", "linear": "svd"}, {"conv2d_1": "input"}, {"conv2d_1": "output"}):
        one, other = (damages(net, evidence, kinds, device=device) for device in ("cpu", CUDA))  # type: ignore[arg-type]
        for name, damage in one.items():
            assert np.allclose(damage, other[name], rtol=1e-3, atol=1e-6 * damage.max())


@needs_cuda
@pytest.mark.parametrize("factors", [Factors("cp", (9,)), Factors("tucker2", (6, 7)), Factors("input", (6,))])
@pytest.mark.parametrize("aware", [False, True])
def test_a_layer_is_factorised_alike(factors: Factors, aware: bool, net: Net, data: ArrayData) -> None:
    evidence = observe(net, data.batches("calibration", 16), task=classification(3)) if aware else None
    here, there = (factorise(net, {"conv2d_1": factors}, evidence, device=device) for device in ("cpu", CUDA))
    assert there.device == "cpu"
    assert_near(scores(there, data), scores(here, data), 1e-3)


@needs_cuda
@pytest.mark.parametrize("name", ["Residual", "Concat", "Gated"])
def test_weights_are_solved_alike(name: str, data: ArrayData) -> None:
    net = hand_made_net(name)
    coupling = couple(net)
    group = next(g for g in coupling.groups if g.name not in coupling.balanced)
    draft = Draft.of(net).cut({group.name: np.arange(group.size // 2)})
    here, there = (refit(draft, images_of(data.parts["train"][0]), device=device) for device in ("cpu", CUDA))
    assert there.net.device == "cpu" and dict(here.unsolved) == dict(there.unsolved)
    assert_near(scores(there.net, data), scores(here.net, data), 1e-3)


@needs_cuda
def test_every_step_of_a_recipe_runs_there_and_replays(net: Net, data: ArrayData, tmp_path: Path) -> None:
    recipe = Recipe(
        original=net.digest,
        steps=(
            Prune(keep={couple(net).groups[0].name: list(range(8))}),
            Factorise(layers={"conv2d_1": Ranks(kind="tucker2", ranks=(6, 8))}, images=32),
            Solve(),
            Regions(epochs=2),
            Tune(epochs=2, rate=0.01),
            Fold(),
        ),
    )
    once, again, here = (apply(recipe, net, data, device=device) for device in (CUDA, CUDA, "cpu"))
    assert once.device == "cpu" and once.digest == again.digest
    assert_near(scores(once, data), scores(here, data), 0.05)  # trained: rounding grows from step to step


@needs_cuda
def test_training_there_goes_on_where_it_was_killed(tmp_path: Path) -> None:
    schedule = replace(Schedule(epochs=4, batch_size=16), average_over=1)

    def fresh() -> nn.Module:
        torch.manual_seed(1)
        layers = nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(0.2), nn.Flatten(), nn.Linear(288, 2)
        return nn.Sequential(*layers).to(CUDA)

    whole = fit_labels(fresh(), dots(), schedule)
    path = tmp_path / "run.safetensors"
    with pytest.raises(Killed):
        fit_labels(fresh(), dots(), schedule, checkpoint=path, tell=killed_after(2)[1])
    resumed = fit_labels(fresh(), dots(), schedule, checkpoint=path)
    assert same_bits(whole, resumed)
    assert score(whole, dots(), "test", TASK) == score(whole.cpu(), dots(), "test", TASK)


@needs_cuda
def test_a_model_that_lies_there_is_captured_here(data: ArrayData) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 16, 3))
    expected = scores(capture(model, SHAPE), data)
    found = capture(model.to(CUDA), SHAPE)
    assert device_of(model).startswith(CUDA)  # it was left where it was
    assert torch.equal(scores(found, data), expected)
