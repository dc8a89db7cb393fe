from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from exact import EVERY, assert_cut_is_masked, small_net
from example_nets import SHAPE, lively, net_of
from random_nets import Command, commands, random_net
from slimwright.cost import count
from slimwright.cost.latency import LatencyTable, one_by_one
from slimwright.coupling import ChannelGroup, Coupling, choose, couple, cut
from slimwright.coupling.channels import is_depthwise
from slimwright.coupling.views import Ids
from slimwright.errors import RequestError
from slimwright.graph import Net, plan_memory
from slimwright.graph.liveness import value_bytes
from slimwright.importers import capture
from slimwright.search import Predictor
from slimwright.zoo import build


def named(coupling: Coupling, name: str) -> ChannelGroup:
    return next(group for group in coupling.groups if group.name == name)


def layer(net: Net, weight: str) -> str:
    return next(n.name for n in net.nodes if n.tensors.get("weight") == weight)


@given(program=commands(), flat=st.booleans(), seed=st.integers(0, 99))
@settings(max_examples=15)
def test_what_a_random_cut_net_costs_follows_from_counts(program: list[Command], flat: bool, seed: int) -> None:
    net = random_net([c for c in program if c[0] != "attention"], flat=flat, seed=seed)
    assert_predicted_exactly(net, choose(couple(net), 0.5, seed=seed))


PRODUCTS = ("Attention", "FusedAttention", "Transformer", "Windows", "NextTo")  # whose MACs are not the layers' alone


@pytest.mark.parametrize("name", [name for name in EVERY if name not in PRODUCTS])
def test_what_a_cut_net_costs_follows_from_counts(name: str) -> None:
    net = small_net(name)
    for seed, share in enumerate((0.3, 0.6)):
        assert_predicted_exactly(net, choose(couple(net), share, seed=seed))


@pytest.mark.parametrize("name", ["resnet8", "resnet20", "vgg6"])
def test_what_a_cut_zoo_net_costs_follows_from_counts(name: str) -> None:
    net = capture(lively(build(name, classes=10, in_channels=1)), (1, 32, 32))
    assert_predicted_exactly(net, choose(couple(net), 0.4))


def assert_predicted_exactly(net: Net, keep: dict[str, Ids]) -> None:
    """What is predicted from counts alone equals what the cut net really costs."""
    coupling = couple(net)
    small, counts = cut(net, keep, coupling), {name: len(kept) for name, kept in keep.items()}
    predictor = Predictor(net, coupling, LatencyTable(one_by_one(lambda shape: 1.0), None, {}), 1)
    assert predictor.macs(counts) == count(small).macs
    assert (
        predictor.peak_activation_bytes(counts) == plan_memory(small).peak_bytes == count(small).peak_activation_bytes
    )
    weights = {node.tensors["weight"] for node in small.weighted()}
    assert predictor.weight_bytes(counts) == 4 * sum(small.tensors[name].numel() for name in weights)
    whole = {group.name: group.size for group in coupling.groups}
    left = {node.name for node in small.nodes}  # all but views that a gather replaced
    for node in (node for node in net.nodes if node.name in left):
        gone = sum((whole[name] - counts[name]) * n for name, n in coupling.elements[node.name].items())
        assert value_bytes(net, node.name) - 4 * gone == value_bytes(small, node.name)


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
    net = small_net("Concat")
    coupling = couple(net)
    assert [group.size for group in coupling.groups] == [4, 3, 5]
    merge = layer(net, "merge.weight")
    left, right, _ = coupling.groups
    assert next(c for c in left.of("in") if c.node == merge).positions.reshape(-1).tolist() == [0, 1, 2, 3]
    assert next(c for c in right.of("in") if c.node == merge).positions.reshape(-1).tolist() == [4, 5, 6]


def test_a_gate_is_coupled_to_what_it_gates() -> None:
    net = small_net("Gated")
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


def test_a_grouped_convolution_and_what_it_reads_must_keep_equal_parts() -> None:
    net = small_net("Grouped")
    coupling = couple(net)
    stem, grouped, last = (layer(net, f"{n}.weight") for n in ("stem", "grouped", "last"))
    assert [(group.name, group.size) for group in coupling.groups] == [(stem, 4), (grouped, 6), (last, 5)]
    assert coupling.balanced == {stem, grouped}
    component = {g.name: g.components for g in coupling.groups}
    parts = [balance.parts.tolist() for balance in coupling.balances]
    assert parts == [component[grouped].reshape(2, 3).tolist(), component[stem].reshape(2, 2).tolist()]


def test_equal_parts_are_asked_for_once_however_many_layers_ask() -> None:
    coupling = couple(net_of(nn.Conv2d(1, 4, 1), nn.GroupNorm(2, 4), nn.ReLU(), nn.GroupNorm(2, 4),
                             nn.Conv2d(4, 4, 1, groups=2), nn.Conv2d(4, 2, 6), shape=SHAPE))  # fmt: skip
    assert len(coupling.balances) == 2  # of what the grouped convolution reads, and of what it makes


def test_the_scores_stay_whole(residual: Net) -> None:
    assert couple(residual).frozen == {layer(residual, "fc.weight"): "the net returns them"}


class Head(nn.Module):
    """A function of a convolution's 4 channels, and a linear layer."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.conv, self.fc, self.function = nn.Conv2d(1, 4, 3), nn.Linear(4, 3), function

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.function(self.conv(x)).mean((2, 3)))  # type: ignore[no-any-return]


class Spread(nn.Module):
    """One channel times four."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.fc, self.one = nn.Conv2d(1, 4, 3), nn.Linear(4, 3), nn.Conv2d(1, 1, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc((self.conv(x) * torch.sigmoid(self.one(x))).mean((2, 3)))  # type: ignore[no-any-return]


FREE: dict[str, Callable[[Tensor], Tensor]] = {
    "zeros": lambda x: torch.where(x > 0, x, torch.zeros_like(x)),
    "softmax over pixels": lambda x: x.flatten(2).softmax(2).view_as(x),
    "a channel as a batch": lambda x: x.reshape(-1, 1, 4, 4).relu().view(-1, 4, 4, 4),
    "a view with the number of channels": lambda x: x.mean((2, 3)).view(-1, 4, 1, 1),
    "a threshold": lambda x: x * (x > 0),
    "all channels of all places": lambda x: x - x.mean((2, 3), keepdim=True),
    "a normal form per channel": lambda x: F.layer_norm(x, (4, 4)),
}
FLAGGED: dict[str, Callable[[Tensor], Tensor]] = {
    "softmax": lambda x: torch.softmax(x, 1),
    "mean": lambda x: x * x.mean(1, keepdim=True),
    "greatest": lambda x: x * x.amax(1, keepdim=True),
    "greatest with its place": lambda x: x * x.max(1, keepdim=True)[0],
    "spread": lambda x: x / x.std(1, keepdim=True),
    "layer norm": lambda x: F.layer_norm(x.permute(0, 2, 3, 1), (4,)).permute(0, 3, 1, 2),
}
FROZEN: dict[str, tuple[Callable[[Tensor], Tensor], str]] = {
    "sums so far": (lambda x: x.cumsum(1), "mixes them"),
    "a sort": (lambda x: x.sort(1)[0], "mixes them"),
    "neighbours": (lambda x: F.local_response_norm(x, 3), "mixes them"),
    "statistics of all maps": (lambda x: F.layer_norm(x, (4, 4, 4)), "takes statistics over them and over pixels"),
    "one channel for all": (lambda x: x[:, :1].expand(-1, 4, -1, -1), "picks it alone"),
    "the first for all": (lambda x: x * x[:, 0:1], "picks it alone"),
    "pairs": (lambda x: (x.flatten(2) @ x.flatten(2).mT)[..., None], "makes pairs of them"),
}


@pytest.mark.parametrize("what", FREE)
def test_what_channels_pass_through_leaves_them_free(what: str) -> None:
    net = capture(Head(FREE[what]), SHAPE)
    coupling = couple(net)
    assert [(group.size, group.flag) for group in coupling.groups] == [(4, "")]
    assert_cut_is_masked(net, {coupling.groups[0].name: np.array([1, 3])}, coupling)


@pytest.mark.parametrize("what", FLAGGED)
def test_statistics_over_channels_flag_their_group(what: str) -> None:
    net = capture(Head(FLAGGED[what]), SHAPE)
    coupling = couple(net)
    (group,) = coupling.groups
    assert "takes statistics over them" in group.flag
    assert_cut_is_masked(net, {group.name: np.array([0, 1, 3])}, coupling)


def test_a_sum_over_channels_flags_nothing() -> None:
    net = capture(Head(lambda x: x * x.sum(1, keepdim=True)), SHAPE)
    coupling = couple(net)
    assert [group.flag for group in coupling.groups] == [""]
    assert_cut_is_masked(net, {coupling.groups[0].name: np.array([0, 3])}, coupling)


@pytest.mark.parametrize("what", FROZEN)
def test_channels_that_are_mixed_on_their_way_are_frozen_with_the_reason(what: str) -> None:
    function, why = FROZEN[what]
    net = capture(Head(function), SHAPE)
    coupling = couple(net)
    conv = layer(net, "conv.weight")
    assert conv not in {group.name for group in coupling.groups}
    assert why in coupling.frozen[conv]
    assert_cut_is_masked(net, choose(coupling, 0.5), coupling)


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
    assert_cut_is_masked(net, {group.name: np.array([1, 2])}, coupling)


def test_other_groups_stay_whole() -> None:
    net = small_net("Concat")
    coupling = couple(net)
    small = cut(net, {coupling.groups[1].name: np.array([1])}, coupling)
    assert torch.equal(small.tensors["left.weight"], net.tensors["left.weight"])
    assert tuple(small.tensors["right.weight"].shape) == (1, 1, 1, 1)
    assert couple(small).groups[0].size == 4


def test_keeping_every_channel_changes_nothing() -> None:
    for name in EVERY:
        net = small_net(name)
        assert cut(net, {g.name: np.arange(g.size) for g in couple(net).groups}) is net
        assert cut(net, {}) is net


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


@pytest.mark.parametrize("name", EVERY)
def test_groups_have_names_of_their_own_and_share_no_channel(name: str) -> None:
    groups = couple(small_net(name)).groups
    assert len({group.name for group in groups}) == len(groups)
    components = np.concatenate([np.zeros(0, int), *(group.components for group in groups)])
    assert len(np.unique(components)) == len(components) == sum(group.size for group in groups)


def test_halves_of_one_layer_with_lives_of_their_own_are_two_groups() -> None:
    net = small_net("ShuffleV2")
    assert [(g.name, g.size) for g in couple(net).groups][:3] == [("conv2d", 2), ("conv2d[2]", 2), ("conv2d[4]", 4)]


def test_heads_of_an_attention_go_whole() -> None:
    for name in ("Attention", "FusedAttention", "Windows"):
        net = small_net(name)
        heads = next(
            g for g in couple(net).groups if any(net[c.node].tensors["weight"] == "qkv.weight" for c in g.of("out"))
        )
        assert heads.size == 2
        rows = next(heads.of("out")).positions
        assert rows.tolist() == [
            [*range(4), *range(8, 12), *range(16, 20)],
            [*range(4, 8), *range(12, 16), *range(20, 24)],
        ]


class Folded(nn.Module):
    """A linear layer's channels laid out as an image, and a convolution that slides over it."""

    def __init__(self, kernel: int) -> None:
        super().__init__()
        self.up, self.conv = nn.Linear(36, 48), nn.Conv2d(3, 3, kernel, padding=kernel // 2)
        self.fc = nn.Linear(48, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.up(x.flatten(1))).unflatten(1, (3, 4, 4))
        return self.fc(self.conv(y).flatten(1))  # type: ignore[no-any-return]


def test_a_convolution_that_slides_over_channels_freezes_them() -> None:
    net = capture(Folded(3).eval(), SHAPE)
    assert not couple(net).groups and "slides over" in " ".join(couple(net).frozen.values())


def test_a_pointwise_convolution_lets_channels_beside_its_own_pass() -> None:
    net = capture(Folded(1).eval(), SHAPE)
    coupling = couple(net)
    assert [group.size for group in coupling.groups] == [4]  # rows of the 4x4 positions
    assert_cut_is_masked(net, choose(coupling, 0.5), coupling)
