from collections.abc import Mapping

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor, nn

from example_nets import HAND_MADE, SHAPE, Command, commands, hand_made, lively, net_of, random_net
from slimwright.cost import count
from slimwright.cost.latency import LatencyTable
from slimwright.errors import RequestError
from slimwright.graph import ChannelGroup, Coupling, Net, capture, couple, cut, plan_memory
from slimwright.graph.channels import is_depthwise
from slimwright.graph.liveness import value_bytes
from slimwright.plan import Predictor
from slimwright.zoo import build

Keep = Mapping[str, NDArray[np.int64]]


def random_keep(coupling: Coupling, seed: int, most: int | None = None) -> dict[str, NDArray[np.int64]]:
    """Some channels, at least one, of each group."""
    rng = np.random.default_rng(seed)
    return {
        group.name: np.sort(rng.choice(group.size, int(rng.integers(1, group.size + 1)), replace=False))
        for group in coupling.groups[:most]
    }


def blinded(net: Net, coupling: Coupling, keep: Keep) -> Net:
    """The whole net, with the weights by which layers read the dropped channels set to zero."""
    tensors: dict[str, Tensor] = {}
    for group in coupling.groups:
        dropped = np.setdiff1d(np.arange(group.size), keep.get(group.name, np.arange(group.size)))
        for place in group.of("in"):
            name = net[place.node].tensors["weight"]
            weight = tensors.setdefault(name, net.tensors[name].clone())
            weight[:, torch.from_numpy(place.positions[dropped].reshape(-1))] = 0
    return net.edited(tensors=tensors)


def assert_cut_is_blinded(net: Net, keep: Keep, coupling: Coupling) -> Net:
    """The property that makes cutting exact. Both run in float64, so 1e-5 is far above what rounding explains."""
    small = cut(net, keep, coupling)
    images = torch.randn(3, *net.input.shape[1:], dtype=torch.float64)
    wanted = blinded(net, coupling, keep).to_module().double()(images)
    got = small.to_module().double()(images)
    assert got.shape == wanted.shape
    assert float((got - wanted).abs().max()) <= 1e-5 * max(float(wanted.abs().max()), 1e-6)
    return small


def named(coupling: Coupling, name: str) -> ChannelGroup:
    return next(group for group in coupling.groups if group.name == name)


def layer(net: Net, weight: str) -> str:
    return next(n.name for n in net.nodes if n.tensors.get("weight") == weight)


@given(program=commands(), flat=st.booleans(), seed=st.integers(0, 99))
@settings(max_examples=80)
def test_cutting_a_random_net_equals_blinding_its_readers(program: list[Command], flat: bool, seed: int) -> None:
    net = random_net(program, flat=flat, seed=seed)
    coupling = couple(net)
    torch.manual_seed(seed)
    small = assert_cut_is_blinded(net, random_keep(coupling, seed), coupling)
    assert_predicted_exactly(
        net, small, coupling, {g.name: len(random_keep(coupling, seed)[g.name]) for g in coupling.groups}
    )


@pytest.mark.parametrize("name", ["resnet8", "resnet20", "vgg6"])
def test_cutting_a_zoo_net_equals_blinding_its_readers(name: str) -> None:
    net = capture(lively(build(name, classes=10, in_channels=1)), (1, 32, 32))
    coupling = couple(net)
    small = assert_cut_is_blinded(net, random_keep(coupling, 1), coupling)
    assert_predicted_exactly(net, small, coupling, {n: len(kept) for n, kept in random_keep(coupling, 1).items()})


@pytest.mark.parametrize("name", HAND_MADE)
@pytest.mark.parametrize("seed", range(4))
def test_cutting_a_hand_made_net_equals_blinding_its_readers(name: str, seed: int) -> None:
    net = capture(hand_made(name), SHAPE)
    coupling = couple(net)
    small = assert_cut_is_blinded(net, random_keep(coupling, seed), coupling)
    assert_predicted_exactly(net, small, coupling, {n: len(kept) for n, kept in random_keep(coupling, seed).items()})


def assert_predicted_exactly(net: Net, small: Net, coupling: Coupling, counts: Mapping[str, int]) -> None:
    """What is predicted from counts alone equals what the cut net really costs."""
    predictor = Predictor(net, coupling, LatencyTable(lambda shape: 1.0, None, {}), 1)
    assert predictor.macs(counts) == count(small).macs
    assert (
        predictor.peak_activation_bytes(counts) == plan_memory(small).peak_bytes == count(small).peak_activation_bytes
    )
    assert predictor.weight_bytes(counts) == 4 * sum(
        small.tensors[n.tensors["weight"]].numel() for n in small.weighted()
    )
    whole = {group.name: group.size for group in coupling.groups}
    for node in net.nodes:
        gone = sum((whole[name] - counts[name]) * n for name, n in coupling.elements[node.name].items())
        assert value_bytes(net, node.name) - 4 * gone == value_bytes(small, node.name)


def test_every_group_alone_can_be_cut_to_one_channel() -> None:
    for name in HAND_MADE:
        net = capture(hand_made(name), SHAPE)
        coupling = couple(net)
        for group in coupling.groups:
            assert_cut_is_blinded(net, {group.name: np.array([group.size - 1])}, coupling)


def test_a_residual_sum_couples_both_its_sides(residual: Net) -> None:
    coupling = couple(residual)
    (group,) = coupling.groups
    conv1, conv2, fc = (layer(residual, f"{name}.weight") for name in ("conv1", "conv2", "fc"))
    assert group.name == conv1 and group.size == 6
    assert {(c.node, c.role) for c in group.cuts} == {
        (conv1, "out"),
        (layer(residual, "bn1.weight"), "each"),
        (conv2, "in"),
        (conv2, "out"),
        (fc, "in"),
    }
    small = cut(residual, {conv1: np.array([0, 2, 5])}, coupling)
    shapes = {name: tuple(t.shape) for name, t in small.tensors.items()}
    assert shapes["conv1.weight"] == (3, 1, 3, 3) and shapes["conv2.weight"] == (3, 3, 3, 3)
    assert shapes["bn1.running_var"] == (3,) and shapes["conv2.bias"] == (3,) and shapes["fc.weight"] == (3, 3)
    assert torch.equal(small.tensors["conv1.weight"], residual.tensors["conv1.weight"][[0, 2, 5]])
    assert torch.equal(small.tensors["fc.bias"], residual.tensors["fc.bias"])


def test_a_flattened_channel_takes_all_its_positions() -> None:
    net = net_of(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 16, 3), shape=SHAPE)
    coupling = couple(net)
    (group,) = coupling.groups
    place = next(group.of("in"))
    assert place.positions.shape == (4, 16)
    assert place.positions[1].tolist() == list(range(16, 32))
    small = cut(net, {group.name: np.array([3])}, coupling)
    assert torch.equal(small.tensors["3.weight"], net.tensors["3.weight"][:, 48:])
    assert coupling.elements[net.input.name] == {}
    assert coupling.elements[group.name] == {group.name: 16}


def test_concatenated_channels_stay_in_their_own_groups() -> None:
    net = capture(hand_made("Concat"), SHAPE)
    coupling = couple(net)
    assert [group.size for group in coupling.groups] == [4, 3, 5]
    merge = layer(net, "merge.weight")
    left, right, _ = coupling.groups
    assert next(c for c in left.of("in") if c.node == merge).positions.reshape(-1).tolist() == [0, 1, 2, 3]
    assert next(c for c in right.of("in") if c.node == merge).positions.reshape(-1).tolist() == [4, 5, 6]


def test_a_gate_is_coupled_to_what_it_gates() -> None:
    net = capture(hand_made("Gated"), SHAPE)
    coupling = couple(net)
    assert [group.size for group in coupling.groups] == [6, 2]
    stem, excite = layer(net, "stem.weight"), layer(net, "excite.weight")
    assert {c.node for c in coupling.groups[0].of("out")} == {stem, excite}


def test_a_depthwise_convolution_loses_groups_with_its_channels(separable: Net) -> None:
    coupling = couple(separable)
    stem, depthwise, doubled = (layer(separable, f"{n}.weight") for n in ("stem", "depthwise", "doubled"))
    group = named(coupling, stem)
    assert {c.node for c in group.of("each")} >= {depthwise, doubled}
    assert next(c for c in group.of("each") if c.node == doubled).positions.tolist() == [[0, 1], [2, 3], [4, 5], [6, 7]]
    small = cut(separable, {stem: np.array([0, 1, 3])}, coupling)
    assert small[depthwise].arguments["groups"] == 3 == small[doubled].arguments["groups"]
    assert tuple(small.tensors["doubled.weight"].shape) == (6, 1, 3, 3)
    assert is_depthwise(small, small[depthwise]) and not is_depthwise(small, small[stem])


def test_grouped_convolutions_and_what_they_read_stay_whole() -> None:
    net = capture(hand_made("Grouped"), SHAPE)
    coupling = couple(net)
    assert [group.name for group in coupling.groups] == [layer(net, "last.weight")]
    assert "in 2 groups" in coupling.frozen[layer(net, "stem.weight")]
    assert "has 2 groups" in coupling.frozen[layer(net, "grouped.weight")]


def test_a_layer_that_is_called_twice_stays_whole() -> None:
    net = capture(hand_made("Twice"), SHAPE)
    coupling = couple(net)
    assert not coupling.groups
    assert all(
        "shares its weights" in why
        for name, why in coupling.frozen.items()
        if net[name].tensors["weight"] == "conv.weight"
    )


def test_the_scores_stay_whole(residual: Net) -> None:
    assert couple(residual).frozen == {layer(residual, "fc.weight"): "the net returns them"}


class Softmaxed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3)
        self.fc = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(torch.softmax(self.conv(x), 1).mean((2, 3)))  # type: ignore[no-any-return]


class BakedView(Softmaxed):
    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.conv(x).mean((2, 3)).view(-1, 4))  # type: ignore[no-any-return]


class MeanOverChannels(Softmaxed):
    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        return self.fc((y * y.mean(1, keepdim=True)).mean((2, 3)))  # type: ignore[no-any-return]


class OverPixels(Softmaxed):
    """A linear layer that reads along the width."""

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.conv(x)).mean((1, 2))  # type: ignore[no-any-return]


class Spread(Softmaxed):
    """One channel times four."""

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Conv2d(1, 1, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc((self.conv(x) * torch.sigmoid(self.one(x))).mean((2, 3)))  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("kind", "why"),
    [
        (Softmaxed, "mixes them"),
        (BakedView, "written in its size"),
        (MeanOverChannels, "takes a mean over them"),
        (OverPixels, "not tracked"),
        (Spread, "spreads them over all channels"),
    ],
)
def test_channels_that_are_mixed_on_their_way_are_frozen_with_the_reason(kind: type[nn.Module], why: str) -> None:
    net = capture(lively(kind()), SHAPE)
    coupling = couple(net)
    assert any(why in reason for reason in coupling.frozen.values())
    assert_cut_is_blinded(net, random_keep(coupling, 0), coupling)


def test_a_gate_of_one_channel_leaves_the_gated_channels_free() -> None:
    net = capture(lively(Spread()), SHAPE)
    assert [group.name for group in couple(net).groups] == [layer(net, "conv.weight")]


class Doubled(nn.Module):
    """The same value twice in one concatenation, folded over by a sum."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3, padding=1)
        self.wide = nn.Conv2d(1, 8, 1)
        self.fc = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.conv(x))
        return self.fc((torch.cat([y, y], 1) + self.wide(x)).mean((2, 3)))  # type: ignore[no-any-return]


def test_a_channel_may_sit_at_two_positions_of_one_layer() -> None:
    net = capture(lively(Doubled()), SHAPE)
    coupling = couple(net)
    (group,) = coupling.groups
    assert group.size == 4
    assert next(c for c in group.of("out") if c.node == layer(net, "wide.weight")).positions.tolist() == [
        [0, 4],
        [1, 5],
        [2, 6],
        [3, 7],
    ]
    assert_cut_is_blinded(net, {group.name: np.array([1, 2])}, coupling)


def test_other_groups_stay_whole() -> None:
    net = capture(hand_made("Concat"), SHAPE)
    coupling = couple(net)
    small = cut(net, {coupling.groups[1].name: np.array([1])}, coupling)
    assert torch.equal(small.tensors["left.weight"], net.tensors["left.weight"])
    assert tuple(small.tensors["right.weight"].shape) == (1, 1, 1, 1)
    assert couple(small).groups[0].size == 4


def test_keeping_every_channel_changes_nothing() -> None:
    for name in HAND_MADE:
        net = capture(hand_made(name), SHAPE)
        assert cut(net, {g.name: np.arange(g.size) for g in couple(net).groups}).digest == net.digest
        assert cut(net, {}).digest == net.digest


def test_the_order_of_the_kept_channels_does_not_matter(residual: Net) -> None:
    (group,) = couple(residual).groups
    one, other = (cut(residual, {group.name: np.array(kept)}) for kept in ([0, 2, 5], [5, 0, 2]))
    assert one.digest == other.digest


@pytest.mark.parametrize("kept", [[], [0, 0], [-1], [6], [0, 99], [0.5, 1.5], [[0], [1]], [True, False], ["a"]])
def test_a_bad_request_is_told(residual: Net, kept: list[object]) -> None:
    (group,) = couple(residual).groups
    with pytest.raises(RequestError, match="distinct numbers from 0 to 5"):
        cut(residual, {group.name: np.array(kept)})


def test_an_unknown_group_is_told_with_those_there_are(residual: Net) -> None:
    (group,) = couple(residual).groups
    with pytest.raises(RequestError, match=f"no channel group 'conv9'; the groups are {group.name}"):
        cut(residual, {"conv9": np.array([0])})


def test_groups_have_names_of_their_own() -> None:
    for name in ("resnet8", "vgg6"):
        net = capture(build(name, classes=10, in_channels=1), (1, 32, 32))
        names = [group.name for group in couple(net).groups]
        assert len(set(names)) == len(names)
