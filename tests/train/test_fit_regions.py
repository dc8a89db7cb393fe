from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from dots import SHAPE, Killed, joined_stages, killed_after, two_stages
from example_nets import hand_made, net_of
from slimwright.errors import DataError, RequestError
from slimwright.graph import Net
from slimwright.importers import capture
from slimwright.progress import Event
from slimwright.train import Match, Region, RegionSchedule, fit_regions

FRONT = Region("input", Match("relu_1", "relu_1"))  # two layers with a ReLU between
MIDDLE = Region("relu", Match("relu_2", "relu_2"))
BACK = Region("relu_1", Match("linear", "linear"))
QUICK = RegionSchedule(epochs=5)


def images(count: int = 100) -> Tensor:
    return torch.randn(count, *SHAPE, generator=torch.Generator().manual_seed(7))


def shaken(net: Net, layers: Sequence[str], size: float = 0.3) -> Net:
    """The net with noise on the weights of some layers, in shares of their spread."""
    generator = torch.Generator().manual_seed(3)
    names = [name for layer in layers for name in net[layer].tensors.values()]
    noise = {name: size * torch.randn(net.tensors[name].shape, generator=generator) for name in names}
    return net.edited(tensors={name: net.tensors[name] + noise[name] * net.tensors[name].std() for name in names})


def error(original: Net, changed: Net, match: Match, x: Tensor) -> float:
    """The relative error of what the changed net gives, by its own forward pass."""
    with torch.no_grad():
        wanted = match.of(replace(original, outputs=(match.original,)).to_module()(x))
        made = replace(changed, outputs=(match.value,)).to_module()(x)
    return float((made - wanted).square().sum() / wanted.square().sum())


def differing(one: Net, other: Net) -> set[str]:
    assert one.tensors.keys() == other.tensors.keys()
    return {name for name in one.tensors if not torch.equal(one.tensors[name], other.tensors[name])}


def same_net(one: Net, other: Net) -> bool:
    return one.digest == other.digest


def wide_and_narrow() -> tuple[Net, Net]:
    """A net of which half the channels between two layers do nothing, and one without them, its two layers fresh."""
    original = two_stages(1, (8, 4, 5))
    weight = original.tensors["2.weight"].clone()
    weight[:, 4:] = 0
    original = original.edited(tensors={"2.weight": weight})
    exact = {"0.weight": original.tensors["0.weight"][:4], "0.bias": original.tensors["0.bias"][:4]}
    exact |= {"2.weight": weight[:, :4]}
    return original, shaken(original.edited(tensors=exact), ["conv2d", "conv2d_1"], 0.4)


def test_two_layers_whose_exact_solution_is_known_are_recovered() -> None:
    original, narrow = wide_and_narrow()
    region = Region("input", Match("conv2d_1", "conv2d_1"))
    fitted = fit_regions(original, narrow, [region], images(200), schedule=RegionSchedule(epochs=60, rate=0.04))
    unseen = torch.randn(50, *SHAPE)
    assert error(original, narrow, region.end, unseen) > 0.3
    assert error(original, fitted, region.end, unseen) < 1e-6
    assert error(original, fitted, Match("linear", "linear"), unseen) < 1e-6  # all behind it was right already
    assert differing(narrow, fitted) == {"0.weight", "0.bias", "2.weight", "2.bias"}


def test_a_region_that_is_right_is_left_alone() -> None:
    net = two_stages()
    told: list[Event] = []
    assert fit_regions(net, net, [FRONT, BACK], images(), tell=told.append) is net
    assert [(event.done, event.total) for event in told] == [(40, 80), (80, 80)]
    assert all(event.note.endswith("left as it is") for event in told)


@pytest.mark.parametrize("rate", [30.0, 1e30])
def test_a_rate_that_only_does_harm_does_none(rate: float) -> None:
    original = two_stages()
    changed = shaken(original, ["conv2d"], 0.01)
    assert fit_regions(original, changed, [FRONT], images(), schedule=replace(QUICK, rate=rate)) is changed


@pytest.mark.parametrize("rate", [1e-4, 0.003, 0.05, 0.5])
def test_no_region_gets_worse_on_the_images_held_out(rate: float) -> None:
    original = two_stages()
    changed = shaken(original, ["conv2d", "conv2d_1", "conv2d_2"], 0.3)
    fitted = fit_regions(original, changed, [FRONT], images(), schedule=replace(QUICK, rate=rate))
    held = images()[4::5]
    assert error(original, fitted, FRONT.end, held) <= error(original, changed, FRONT.end, held)


def test_a_region_starts_from_what_those_before_it_became() -> None:
    original = two_stages()
    changed = shaken(original, ["conv2d", "conv2d_1", "conv2d_2", "linear"])
    both = fit_regions(original, changed, [BACK, FRONT], images(), schedule=QUICK)
    front = fit_regions(original, changed, [FRONT], images(), schedule=QUICK)
    assert same_net(both, fit_regions(original, front, [BACK], images(), schedule=QUICK))
    assert not same_net(both, front)


def test_a_value_is_compared_with_the_channels_it_stands_for() -> None:
    original, kept = two_stages(), (3, 0)
    tensors = {
        "0.weight": original.tensors["0.weight"][list(kept)],
        "0.bias": original.tensors["0.bias"][list(kept)],
        "2.weight": original.tensors["2.weight"][:, list(kept)],
    }
    small = shaken(original.edited(tensors=tensors), ["conv2d"])
    region = Region("input", Match("relu", "relu", kept))
    fitted = fit_regions(original, small, [region], images(), schedule=RegionSchedule(60, rate=0.02))
    assert error(original, fitted, region.end, images()) < 1e-3 < error(original, small, region.end, images())
    torch.testing.assert_close(fitted.tensors["0.weight"], tensors["0.weight"], atol=0.02, rtol=0)


def test_batch_norms_keep_their_statistics_and_learn_their_scale() -> None:
    original = net_of(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.5), nn.Conv2d(4, 3, 1), shape=SHAPE
    )
    changed = shaken(original, ["batch_norm"])
    first = changed.nodes[1:4]
    fitted = fit_regions(original, changed, [Region("input", Match("conv2d_1", "conv2d_1"))], images(), schedule=QUICK)
    assert [node.op for node in first] == ["conv2d", "batch_norm", "relu"]
    assert differing(changed, fitted) == {"0.weight", "0.bias", "1.weight", "1.bias", "4.weight", "4.bias"}


def test_weights_that_are_used_elsewhere_too_stay() -> None:
    original = capture(hand_made("Twice"), SHAPE)
    convs = [node.name for node in original.nodes if node.op == "conv2d"]
    assert original[convs[1]].tensors == original[convs[2]].tensors
    changed = shaken(original, convs[:1])
    end = original[convs[2]].source  # behind the first of its two calls
    told: list[Event] = []
    fitted = fit_regions(
        original, changed, [Region("relu", Match(end, end))], images(), schedule=QUICK, tell=told.append
    )
    assert fitted is changed and "left as it is" in told[-1].note
    fitted = fit_regions(original, changed, [Region("x", Match(end, end))], images(), schedule=QUICK)
    assert differing(changed, fitted) == {"stem.weight", "stem.bias", "bn.weight", "bn.bias"}


def test_the_seed_fixes_every_weight() -> None:
    original = two_stages()
    changed = shaken(original, ["conv2d", "conv2d_1"])
    one, same, other = (
        fit_regions(original, changed, [FRONT], images(), schedule=replace(QUICK, seed=seed)) for seed in (1, 1, 2)
    )
    assert same_net(one, same) and not same_net(one, other)


@pytest.mark.parametrize("improves", [True, False])
def test_killed_work_goes_on_with_the_region_it_was_at(improves: bool, tmp_path: Path) -> None:
    original = two_stages()
    changed = shaken(original, ["conv2d", "conv2d_1", "linear"] if improves else ["linear"])
    regions, checkpoint = [FRONT, BACK], tmp_path / "run" / "regions.safetensors"
    first = QUICK.epochs if improves else 1  # what is right already is left at once
    told: list[Event] = []
    whole = fit_regions(original, changed, regions, images(), schedule=QUICK, tell=told.append)
    with pytest.raises(Killed):
        tell = killed_after(first + 2)[1]
        fit_regions(original, changed, regions, images(), schedule=QUICK, checkpoint=checkpoint, tell=tell)
    assert checkpoint.exists()
    resumed: list[Event] = []
    again = fit_regions(
        original, changed, regions, images(), schedule=QUICK, checkpoint=checkpoint, tell=resumed.append
    )
    assert same_net(again, whole) and resumed == told[first:] and not checkpoint.exists()


@pytest.mark.parametrize("other", ["net", "images", "regions", "schedule", "damaged"])
def test_the_checkpoint_of_other_work_is_not_used(other: str, tmp_path: Path) -> None:
    original, checkpoint = two_stages(), tmp_path / "regions.safetensors"
    changed = shaken(original, ["conv2d", "conv2d_1", "linear"])
    with pytest.raises(Killed):
        tell = killed_after(7)[1]
        fit_regions(original, changed, [FRONT, BACK], images(), schedule=QUICK, checkpoint=checkpoint, tell=tell)
    assert checkpoint.exists()
    if other == "damaged":
        checkpoint.write_bytes(b"garbage" * 9)
    changed = shaken(original, ["conv2d"]) if other == "net" else changed
    regions = [Region("input", Match("relu", "relu")), BACK] if other == "regions" else [FRONT, BACK]
    schedule = replace(QUICK, epochs=4) if other == "schedule" else QUICK
    seen = images(90) if other == "images" else images()
    told: list[Event] = []
    resumed = fit_regions(original, changed, regions, seen, schedule=schedule, checkpoint=checkpoint, tell=told.append)
    assert len(told) == 2 * schedule.epochs
    assert same_net(resumed, fit_regions(original, changed, regions, seen, schedule=schedule))


def test_what_cannot_be_trained_is_refused_before_any_region_is() -> None:
    original = two_stages()
    changed = shaken(original, ["conv2d", "conv2d_1"])
    told: list[Event] = []
    for region, said in (
        (Region("relu_1", Match("relu", "relu")), "does not follow"),
        (Region("relu", Match("relu_1", "relu_9")), "the original net has no node 'relu_9'"),
        (Region("relu", Match("relu_1", "relu")), "cannot be matched"),
    ):
        with pytest.raises(RequestError, match=said):
            fit_regions(original, changed, [FRONT, region], images(), tell=told.append)
    with pytest.raises(DataError, match="4 images are too few"):
        fit_regions(original, changed, [FRONT], images(4))
    broken = images()
    broken[4] = float("nan")
    with pytest.raises(DataError, match="what 'relu_1' gives, or shall give, holds NaN"):
        fit_regions(original, changed, [FRONT], broken, tell=told.append)
    assert not told


def test_overlapping_regions_are_taken_in_the_order_of_their_ends() -> None:
    original = two_stages()
    changed = shaken(original, ["conv2d_1", "conv2d_2"])
    told: list[Event] = []
    fitted = fit_regions(original, changed, [BACK, MIDDLE, FRONT], images(), schedule=QUICK, tell=told.append)
    assert [event.note.partition(":")[0] for event in told[::5]] == ["relu_1", "relu_2", "linear"]
    assert [event.done for event in told] == list(range(1, 16)) and {event.total for event in told} == {15}
    assert error(original, fitted, BACK.end, images()) < error(original, changed, BACK.end, images())


def test_regions_of_a_net_with_several_inputs_are_fitted_on_all_of_them() -> None:
    original = joined_stages()
    changed = shaken(original, ["conv2d_1"])
    region = Region("add", Match("relu_1", "relu_1"))
    inputs = images(), torch.randn(100, 6, 6, 6, generator=torch.Generator().manual_seed(8))

    def off(net: Net) -> float:
        with torch.no_grad():
            wanted, made = (replace(each, outputs=("relu_1",)).to_module()(*inputs) for each in (original, net))
        return float((made - wanted).square().sum() / wanted.square().sum())

    fitted = fit_regions(original, changed, [region], inputs, schedule=replace(QUICK, epochs=30))
    assert off(fitted) < 0.1 * off(changed)
    assert differing(fitted, changed) == {"2.weight", "2.bias"}
