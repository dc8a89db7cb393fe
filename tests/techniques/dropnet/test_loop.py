import itertools
import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import SHAPE, SIZES, TASK, convolutions, linears, pictures
from torch import Tensor, nn

from example_nets import net_of
from slimwright.coupling import couple, cut
from slimwright.coupling.views import Ids
from slimwright.data import ArrayData, images_of, labelled
from slimwright.errors import DataError, RequestError
from slimwright.graph import Net
from slimwright.kept import read_tensors
from slimwright.progress import Event
from slimwright.tasks import Classification, Metric, forward_of, imitating
from slimwright.techniques.dropnet import AS_PUBLISHED, Loop, Round, dropnet, retrained
from slimwright.techniques.dropnet.training import module_of
from slimwright.train import fit, score

NETS = {"convolutions": convolutions, "linears": linears}
BRIEF = replace(AS_PUBLISHED, epochs=2, batch_size=8)
Keep = Mapping[str, Ids]


@pytest.fixture(scope="module")
def data() -> ArrayData:
    return pictures()


def same(one: Round, other: Round) -> bool:
    """Of the same units, with the same weights and measurements."""
    measured = all(
        getattr(one, name) == getattr(other, name) for name in ("epochs", "validation_loss", "validation_score")
    )
    return measured and one.net.digest == other.net.digest and one.keep.keys() == other.keep.keys()


def masking(keep: Ids, size: int) -> Callable[[nn.Module, object, Tensor], Tensor]:
    """A hook that sets the units that are not kept to zero."""
    mask = torch.zeros(size)
    mask[keep] = 1

    def hook(_: nn.Module, __: object, made: Tensor) -> Tensor:
        return made * mask.reshape(-1, *[1] * (made.ndim - 2))

    return hook


@pytest.mark.parametrize(
    ("name", "kept", "activations"),
    [
        ("convolutions", ([0, 2, 3], [1, 5]), ("relu", "relu_1")),
        ("linears", ([1, 4, 6, 7], [0, 2, 3]), ("relu", "relu_1")),
    ],
)
def test_training_a_cut_net_is_training_the_masked_one(
    name: str, kept: tuple[list[int], list[int]], activations: tuple[str, str], data: ArrayData
) -> None:
    """Fifteen steps of SGD; the weights that are left to 1e-5, what is computed too."""
    net = NETS[name]()
    coupling = couple(net)
    groups = coupling.groups[:2]
    keep = {group.name: np.array(channels) for group, channels in zip(groups, kept, strict=True)}
    training = replace(BRIEF, seed=None)
    small, whole = cut(net, keep, coupling).to_module(), net.to_module()
    for group, activation in zip(groups, activations, strict=True):
        hook = masking(keep[group.name], group.size)
        whole.get_submodule(net.paths[activation]).register_forward_hook(hook)
    before = cut(net, keep, coupling)
    fit(small, data, training, task=TASK)
    fit(whole, data, training, task=TASK)
    masked = cut(net.trained(whole), keep, coupling)
    trained = before.trained(small)
    images, _ = labelled(data.parts["test"])
    torch.testing.assert_close(small(images), whole(images), rtol=1e-5, atol=1e-5)
    for key, tensor in trained.tensors.items():
        torch.testing.assert_close(tensor, masked.tensors[key], rtol=1e-5, atol=1e-5)
        assert not torch.equal(tensor, before.tensors[key])  # it did train


@pytest.mark.parametrize("rule", ["minimum", "random_layer", "apoz"])
def test_every_round_starts_from_the_first_weights(rule: str, data: ArrayData) -> None:
    net = convolutions()
    coupling = couple(net)
    rounds = dropnet(net, data, Loop(rule=rule, share=0.4, training=BRIEF), task=TASK)  # type: ignore[arg-type]
    for each in rounds:
        module = module_of(cut(net, each.keep, coupling))
        epochs: list[Event] = []
        fit(module, data, BRIEF, tell=epochs.append, task=TASK)
        assert len(epochs) == each.epochs
        for key, tensor in module.state_dict().items():
            assert torch.equal(tensor, each.net.to_module().state_dict()[key])


@pytest.mark.parametrize("rule", ["minimum", "maximum_layer", "random", "apoz_layer", "oracle"])
def test_units_that_went_stay_away_and_every_layer_keeps_one(rule: str, data: ArrayData) -> None:
    rounds = dropnet(linears(), data, Loop(rule=rule, share=0.3, least=0.0, training=BRIEF), task=TASK)  # type: ignore[arg-type]
    for before, after in itertools.pairwise(rounds):
        assert after.units < before.units
        for name, kept in after.keep.items():
            assert set(kept.tolist()) <= set(before.keep[name].tolist())
    assert [len(kept) for kept in rounds[-1].keep.values()] == [1, 1]
    assert all(each.net.tensors["1.weight"].shape[0] == len(each.keep["linear"]) for each in rounds)


def test_only_filters_are_dropped_unless_other_groups_are_named(data: ArrayData) -> None:
    net = convolutions()
    assert list(dropnet(net, data, Loop(least=0.9, training=BRIEF), task=TASK)[0].keep) == ["conv2d", "conv2d_1"]
    found = dropnet(net, data, Loop(training=BRIEF), units=["linear"], task=TASK)
    assert list(found[-1].keep) == ["linear"] and found[-1].net.tensors["0.weight"].shape[0] == 5
    with pytest.raises(RequestError, match=r"'fc'; the groups are conv2d, conv2d_1, linear"):
        dropnet(net, data, Loop(), units=["fc"], task=TASK)


def test_the_loop_ends_with_the_round_after_the_one_that_fell_too_far(data: ArrayData) -> None:
    whole = dropnet(linears(), data, Loop(rule="maximum", training=BRIEF), task=TASK)
    limit = min(each.validation_score for each in whole[:-2]) / whole[0].validation_score
    first = next(i for i, each in enumerate(whole) if each.validation_score <= limit * whole[0].validation_score)
    stopped = dropnet(linears(), data, Loop(rule="maximum", kappa=limit, training=BRIEF), task=TASK)
    assert len(stopped) == first + 2 < len(whole) + 1
    assert all(same(one, other) for one, other in zip(stopped, whole, strict=False))
    assert len(dropnet(linears(), data, Loop(rule="maximum", kappa=1.0, training=BRIEF), task=TASK)) == 2


def test_the_seed_fixes_what_random_drops(data: ArrayData) -> None:
    once, again, other = (
        dropnet(linears(), data, Loop(rule="random", seed=seed, training=BRIEF), task=TASK)[1].keep
        for seed in (0, 0, 1)
    )
    assert all(np.array_equal(once[name], again[name]) for name in once)
    assert any(not np.array_equal(once[name], other[name]) for name in once)


@pytest.mark.parametrize(
    ("higher", "scores", "fallen"),
    [
        (True, (80.0, 41.0), False),
        (True, (80.0, 40.0), True),
        (False, (10.0, 19.0), False),
        (False, (10.0, 20.0), True),
    ],
)
def test_a_metric_falls_by_getting_worse(higher: bool, scores: tuple[float, float], fallen: bool) -> None:
    first, now = (Round({}, linears(), 1, 0.0, scored) for scored in scores)
    metric = Metric("any", higher_is_better=higher)
    assert Loop(kappa=0.5).fallen(now, first, metric) is fallen
    assert not Loop(kappa=0.0).fallen(now, first, metric)


def test_units_can_be_dropped_without_labels(data: ArrayData) -> None:
    """From an untrained net that learns to give what another gives."""
    original = forward_of(linears(7).to_module())
    bare = {part: (images_of(data.parts[part][0]), torch.zeros(size, 0)) for part, size in SIZES.items()}
    plain = ArrayData("plain", (), bare)
    task = imitating(plain, original)
    taught = task.data(plain, original)
    told: list[Event] = []
    rounds = dropnet(linears(), taught, Loop(rule="oracle", share=0.5, training=BRIEF), task=task, tell=told.append)
    assert [each.units for each in rounds] == [14, 7, 4, 2]
    for each in rounds:
        assert each.validation_score == score(module_of(each.net), taught, "validation", task)
    assert f"validation relative error {rounds[0].validation_score:.2f} %" in told[0].note


class Killed(Exception):
    pass


def test_a_killed_loop_goes_on_from_its_last_whole_round(data: ArrayData, tmp_path: Path) -> None:
    loop = Loop(rule="minimum", share=0.4, training=BRIEF)

    def kill(event: Event) -> None:
        if event.done == 2:
            raise Killed

    with pytest.raises(Killed):
        dropnet(linears(), data, loop, folder=tmp_path, tell=kill, task=TASK)
    saved = {path.name: path.stat().st_mtime_ns for path in tmp_path.glob("*.safetensors")}
    assert len(saved) == 2
    heard: list[Event] = []
    resumed = dropnet(linears(), data, loop, folder=tmp_path, tell=heard.append, task=TASK)
    assert all(same(one, other) for one, other in zip(resumed, dropnet(linears(), data, loop, task=TASK), strict=True))
    assert {name: (tmp_path / name).stat().st_mtime_ns for name in saved} == saved  # not trained again
    assert [event.done for event in heard] == list(range(1, heard[0].total + 1)) and "minimum" in heard[0].note
    _, said = read_tensors(next(tmp_path.glob("14-*.safetensors")), "a round", DataError)
    assert json.loads(said["round"])["validation_score"] == resumed[0].validation_score
    assert json.loads(said["keep"])["linear"] == [*range(8)]


def test_rounds_of_other_weights_data_or_training_are_not_mixed_up(data: ArrayData, tmp_path: Path) -> None:
    loop = Loop(least=0.9, training=BRIEF)
    first = dropnet(linears(), data, loop, folder=tmp_path, task=TASK)
    for net, pictured, training in (
        (linears(1), data, BRIEF),
        (linears(), pictures(1), BRIEF),
        (linears(), data, replace(BRIEF, rate=0.05)),
    ):
        other = dropnet(net, pictured, Loop(least=0.9, training=training), folder=tmp_path, task=TASK)
        assert other[0].net.digest != first[0].net.digest
    count = len(list(tmp_path.iterdir()))
    dropnet(linears(), data, loop, folder=tmp_path, task=Classification(TASK.classes, top=2))
    assert len(list(tmp_path.iterdir())) == count + len(first)  # nor are those of another metric
    assert same(dropnet(linears(), data, loop, folder=tmp_path, task=TASK)[0], first[0])


@pytest.mark.parametrize("damage", [b"", b"{}", b'{"epochs": []}'])
def test_a_damaged_round_is_trained_again(damage: bytes, data: ArrayData, tmp_path: Path) -> None:
    loop = Loop(least=0.9, training=BRIEF)
    whole = dropnet(linears(), data, loop, folder=tmp_path, task=TASK)
    first = next(tmp_path.glob("14-*.safetensors"))
    first.write_bytes(first.read_bytes()[:-1] + b"\x7f")
    next(tmp_path.glob("12-*.safetensors")).write_bytes(damage)
    again = dropnet(linears(), data, loop, folder=tmp_path, task=TASK)
    assert all(same(one, other) for one, other in zip(again, whole, strict=True))


def test_retraining_takes_the_same_units_of_other_first_weights(data: ArrayData) -> None:
    rounds = dropnet(linears(), data, Loop(share=0.4, training=BRIEF), task=TASK)
    others = retrained(linears(5), rounds, data, BRIEF, task=TASK)
    for one, other in zip(rounds, others, strict=True):
        assert one.keep is other.keep and one.net.digest != other.net.digest
        module = module_of(cut(linears(5), one.keep))
        fit(module, data, BRIEF, task=TASK)
        assert other.net.digest == cut(linears(5), one.keep).trained(module).digest


def grouped() -> Net:
    """A convolution in two groups of four channels between ordinary layers."""
    torch.manual_seed(0)
    middle = nn.Conv2d(8, 8, 3, padding=1, groups=2)
    layers = (nn.Conv2d(1, 8, 1), nn.ReLU(), middle, nn.ReLU(), nn.Flatten(), nn.Linear(288, 3))
    return net_of(*layers, shape=SHAPE)


def test_groups_of_a_convolution_stay_equal(data: ArrayData) -> None:
    rounds = dropnet(grouped(), data, Loop(rule="minimum", share=0.4, training=BRIEF), task=TASK)
    assert rounds[-1].units < rounds[0].units
    assert all(len(kept) % 2 == 0 for each in rounds for kept in each.keep.values())
    with pytest.raises(RequestError, match="needs equal parts of group 'conv2d'"):
        dropnet(grouped(), data, Loop(rule="oracle", training=BRIEF), task=TASK)


def test_the_test_part_takes_no_part(data: ArrayData) -> None:
    images, labels = labelled(data.parts["test"])
    other = ArrayData("other", data.labels, {**data.parts, "test": (images + 1, labels.flip(0))})
    loop = Loop(rule="oracle", share=0.5, training=BRIEF)
    pairs = zip(dropnet(linears(), data, loop, task=TASK), dropnet(linears(), other, loop, task=TASK), strict=True)
    assert all(same(one, two) for one, two in pairs)
