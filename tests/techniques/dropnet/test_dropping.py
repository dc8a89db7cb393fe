from dataclasses import replace
from typing import get_args

import numpy as np
import pytest
import torch
from tiny import SHAPE, TASK, convolutions, linears, pictures
from torch import Tensor, nn

from example_nets import hand_made, net_of
from slimwright.coupling import Coupling, couple, cut
from slimwright.data import ArrayData, images_of, labelled
from slimwright.errors import RequestError
from slimwright.graph import Net
from slimwright.importers import capture
from slimwright.techniques.dropnet import AS_PUBLISHED, Loop, Round, Rule, counts_per_round, filters_of
from slimwright.techniques.dropnet.dropping import activations, without
from slimwright.techniques.importance import Score
from slimwright.zoo import build

MODEL_C = [64, 64, 128, 128]
BRIEF = replace(AS_PUBLISHED, epochs=2, batch_size=8)


@pytest.fixture(scope="module")
def data() -> ArrayData:
    return pictures()


def untrained(net: Net, keep: dict[str, list[int]]) -> tuple[Round, Coupling]:
    """A round of these units with the weights as they are."""
    coupling = couple(net)
    kept = {name: np.array(channels) for name, channels in keep.items()}
    return Round(kept, cut(net, kept, coupling), 0, 0.0, 0.0), coupling


def test_filters_of_model_c_by_round_are_those_of_the_authors_code() -> None:
    """The percentages in their cache: 1.000, .516, .333, .216, .115 and so on of 384."""
    plan = counts_per_round(MODEL_C, Loop(rule="minimum"))
    assert [sum(counts) for counts in plan] == [384, 308, 247, 198, 159, 128, 103, 83, 67, 54, 44, 36]


def test_the_first_layer_wise_step_of_model_c() -> None:
    plan = counts_per_round(MODEL_C, Loop(rule="minimum_layer"))
    assert plan[1] == (52, 52, 103, 103) and sum(plan[1]) == 310
    shares = [round(sum(counts) / 384, 3) for counts in plan]
    assert {0.526, 0.349, 0.234, 0.109} <= set(shares) and shares[-1] <= 0.1 < shares[-2]


def test_one_at_a_time_where_the_share_is_nothing() -> None:
    assert counts_per_round([3, 4], Loop(share=0.0, rule="oracle")) == [(7,), (6,), (5,), (4,), (3,), (2,)]
    assert counts_per_round([3, 4], Loop(share=0.0, least=0.5, rule="random_layer")) == [(3, 4), (2, 3), (1, 2)]
    assert counts_per_round([1, 1], Loop(share=0.0, rule="minimum")) == [(2,)]


def test_the_units_of_model_c_are_its_filters() -> None:
    net = capture(build("dropnet-c"), (3, 32, 32))
    coupling = couple(net)
    sizes = {group.name: group.size for group in coupling.groups}
    assert [sizes[name] for name in filters_of(net, coupling)] == MODEL_C and len(sizes) == 5
    dense = linears()
    assert filters_of(dense, couple(dense)) == ["linear", "linear_1"]


def test_activations_are_taken_behind_the_relu_and_before_the_pooling(data: ArrayData) -> None:
    """By hand, of a net that was cut: to 1e-6."""
    last, coupling = untrained(convolutions(), {"conv2d": [0, 2, 4], "conv2d_1": [1, 2, 3, 5]})
    found = activations(last, coupling, data)
    x, _ = labelled(data.parts["train"])
    layers = dict(last.net.to_module().named_modules())
    first = torch.relu(layers["0"](x))
    second = torch.relu(layers["3"](torch.max_pool2d(first, 2)))
    for name, value in (("conv2d", first), ("conv2d_1", second)):
        size, nonzero = found[name]
        np.testing.assert_allclose(size, value.abs().mean((0, 2, 3)).detach(), rtol=1e-6)
        np.testing.assert_allclose(nonzero, (value != 0).float().mean((0, 2, 3)), rtol=1e-6)


def test_activations_behind_a_norm_and_in_front_of_a_sum(data: ArrayData) -> None:
    """Residual: conv1, bn1, ReLU are read twice; the group's first layer is conv1."""
    net = capture(hand_made("Residual"), SHAPE)
    kept = [0, 3, 4]
    last, coupling = untrained(net, {couple(net).groups[0].name: kept})
    ((size, _),) = activations(last, coupling, data).values()
    model = hand_made("Residual")
    conv, norm = model.get_submodule("conv1"), model.get_submodule("bn1")
    with torch.no_grad():
        wanted = torch.relu(norm(conv(images_of(data.parts["train"][0])))).mean((0, 2, 3))[kept]
    np.testing.assert_allclose(size, wanted, rtol=1e-5)


def test_activations_are_taken_in_front_of_a_norm_that_follows(data: ArrayData) -> None:
    """As in the paper's VGG: the mask stands between ReLU and batch norm."""
    layers = (nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(144, 3))
    last, coupling = untrained(net_of(*layers, shape=SHAPE), {"conv2d": [1, 3]})
    ((size, _),) = activations(last, coupling, data).values()
    with torch.no_grad():
        made = torch.relu(last.net.to_module().get_submodule("0")(images_of(data.parts["train"][0])))
    np.testing.assert_allclose(size, made.mean((0, 2, 3)), rtol=1e-6)


class Paired(nn.Module):
    """Six filters, of which each pair is averaged."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 6, 3, padding=1)
        self.fc = nn.Linear(108, 3)

    def forward(self, x: Tensor) -> Tensor:
        pairs = torch.relu(self.conv(x)).unflatten(1, (3, 2)).mean(2)
        return self.fc(pairs.flatten(1))  # type: ignore[no-any-return]


def test_filters_that_must_go_together_are_one_unit(data: ArrayData) -> None:
    model = Paired().eval()
    last, coupling = untrained(capture(model, SHAPE), {"conv2d": [0, 2]})
    ((size, _),) = activations(last, coupling, data).values()
    with torch.no_grad():
        made = torch.relu(model.conv(images_of(data.parts["train"][0]))).mean((0, 2, 3))
    np.testing.assert_allclose(size, made.reshape(3, 2).mean(1)[[0, 2]], rtol=1e-6)


def expected(metric: str, size: Score, nonzero: Score, count: int) -> list[int]:
    """The places that go, by hand."""
    score = {"minimum": size, "maximum": -size, "apoz": nonzero}[metric]
    return [int(place) for place in np.sort(np.argsort(score)[:count])]


@pytest.mark.parametrize("metric", ["minimum", "maximum", "apoz"])
def test_the_rules_drop_what_they_say(metric: str, data: ArrayData) -> None:
    last, coupling = untrained(linears(), {"linear": [0, 1, 2, 4, 5, 7], "linear_1": [1, 2, 3, 5]})
    seen = activations(last, coupling, data)
    keep = without(last, coupling, (4, 2), data, Loop(rule=f"{metric}_layer"), task=TASK)  # type: ignore[arg-type]
    for name, kept in last.keep.items():
        gone = expected(metric, *seen[name], count=2)
        assert keep[name].tolist() == np.delete(kept, gone).tolist()
    keep = without(last, coupling, (7,), data, Loop(rule=metric), task=TASK)  # type: ignore[arg-type]
    size, nonzero = (np.concatenate([seen[name][i] for name in last.keep]) for i in (0, 1))
    units = [(name, int(unit)) for name, kept in last.keep.items() for unit in kept]
    left = np.delete(np.arange(10), expected(metric, size, nonzero, count=3))
    assert {(name, int(unit)) for name, kept in keep.items() for unit in kept} == {units[i] for i in left}


def test_random_drops_any(data: ArrayData) -> None:
    last, coupling = untrained(linears(), {"linear": [*range(8)], "linear_1": [*range(6)]})
    found = [without(last, coupling, (10,), data, Loop(rule="random", seed=seed), task=TASK) for seed in range(30)]
    kept = np.array([[len(keep["linear"]), len(keep["linear_1"])] for keep in found])
    assert (kept.sum(1) == 10).all() and len(np.unique(kept[:, 0])) > 2
    assert 5 < kept[:, 0].mean() < 6.5  # 8 of 14 units are in the first layer: 5.7 of 10


def loss_with_zeros(net: Net, data: ArrayData, gone: list[tuple[str, int]]) -> float:
    """The training loss of the whole net with some of its nodes held at zero."""
    module = net.to_module()
    images, labels = labelled(data.parts["train"])
    held = {"linear": [c for name, c in gone if name == "linear"], "linear_1": [c for n, c in gone if n == "linear_1"]}
    x = images.flatten(1)
    for name, path in (("linear", "1"), ("linear_1", "3")):
        x = torch.relu(module.get_submodule(path)(x))
        x[:, held[name]] = 0
    return float(nn.functional.cross_entropy(module.get_submodule("5")(x), labels))


def test_the_oracle_tries_every_single_removal(data: ArrayData) -> None:
    """Two units, one after the other, against masks by hand."""
    net = linears(3)
    last, coupling = untrained(net, {"linear": [*range(8)], "linear_1": [*range(6)]})
    gone: list[tuple[str, int]] = []
    with torch.no_grad():
        for _ in range(2):
            units = [(n, c) for n, size in (("linear", 8), ("linear_1", 6)) for c in range(size) if (n, c) not in gone]
            gone.append(min(units, key=lambda unit: loss_with_zeros(net, data, [*gone, unit])))
    keep = without(last, coupling, (12,), data, Loop(rule="oracle"), task=TASK)
    left = {(name, int(unit)) for name, kept in keep.items() for unit in kept}
    assert {("linear", c) for c in range(8)} | {("linear_1", c) for c in range(6)} == left | set(gone)


def test_the_oracle_finds_units_by_what_they_were_in_the_whole_net(data: ArrayData) -> None:
    """Two filters that nothing reads with a weight: dropping them costs nothing, wherever they stand by then."""
    net = convolutions(2)
    weight = net.tensors["3.weight"].clone()
    weight[:, [2, 4]] = 0
    silent = net.edited(tensors={"3.weight": weight})
    last, coupling = untrained(silent, {"conv2d": [1, 2, 3, 4], "conv2d_1": [0, 5]})
    before = loss(last.net, data)
    keep = without(last, coupling, (4,), data, Loop(rule="oracle"), task=TASK)
    after = loss(cut(silent, keep, coupling), data)
    assert after <= before + 1e-6


def loss(net: Net, data: ArrayData) -> float:
    images, labels = labelled(data.parts["train"])
    with torch.no_grad():
        return float(nn.functional.cross_entropy(net.to_module()(images), labels))


def test_a_rule_or_share_that_is_none_is_refused() -> None:
    with pytest.raises(RequestError, match="no rule 'min'; the rules are minimum, maximum"):
        Loop(rule="min")  # type: ignore[arg-type]
    for wrong in ({"share": 1.0}, {"share": -0.1}, {"least": 1.0}, {"kappa": 1.5}):
        with pytest.raises(RequestError, match="must be at least 0"):
            Loop(**wrong)  # type: ignore[arg-type]
    assert len(get_args(Rule)) == 9
