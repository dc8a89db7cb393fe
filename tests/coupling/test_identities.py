from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from exact import EVERY, assert_cut_is_masked, small_net
from example_nets import SHAPE, net_of
from slimwright.coupling import choose, couple
from slimwright.coupling.identifying import identities_of
from slimwright.coupling.identities import Identities
from slimwright.graph import Net
from slimwright.importers import capture
from structures import shuffled


class Function(nn.Module):
    """A function of a convolution's 6 channels."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.conv, self.function = nn.Conv2d(1, 6, 1), function
        self.other = nn.Conv2d(1, 6, 1)
        self.grouped = nn.Conv2d(6, 6, 1, groups=3)

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self.conv(x)).sum()[None]


def identities(function: Callable[[Tensor], Tensor]) -> tuple[Net, Identities]:
    net = capture(Function(function), SHAPE)
    return net, identities_of(net)


def seen(function: Callable[[Tensor], Tensor], op: str) -> list[list[int]]:
    """The channels (0 to 5) of the convolution in each value of one op, in their order."""
    net, found = identities(function)
    first = found.values["conv2d"].reshape(-1)[0]
    return [(found.values[n.name].reshape(-1) - first).tolist() for n in net.nodes if n.op == op]


@pytest.mark.parametrize("name", EVERY)
def test_every_value_has_an_array_of_its_rank_that_fits_its_shape(name: str) -> None:
    net = small_net(name)
    found = identities_of(net)
    for node in net.nodes:
        ids = found.values[node.name]
        if node.dtype != "tuple" and ids.size:
            assert ids.ndim == len(node.shape)
            assert all(n in (1, size) for n, size in zip(ids.shape, node.shape, strict=True))
            assert ids.min() >= 0 and ids.max() < found.claims.count


@pytest.mark.parametrize("name", EVERY)
def test_every_row_of_a_layer_is_a_channel_of_its_own_and_columns_are_those_it_reads(name: str) -> None:
    net = small_net(name)
    found = identities_of(net)
    for place in found.claims.places:
        weight = net.tensors[net[place.node].tensors["weight"]] if "weight" in net[place.node].tensors else None
        if place.role == "out" and weight is not None:
            assert len(set(place.ids.tolist())) == len(place.ids) == weight.shape[0]
        if place.role == "in" and weight is not None:
            assert len(place.ids) == weight.shape[1] * int(str(net[place.node].arguments.get("groups", 1)))


def test_channels_keep_their_identity_through_views_and_slices() -> None:
    assert seen(lambda x: x[:, 2:5].relu(), "relu") == [[2, 3, 4]]
    assert seen(lambda x: x.permute(0, 2, 3, 1)[..., ::2].relu(), "relu") == [[0, 2, 4]]
    assert seen(lambda x: torch.cat([x[:, 4:], x[:, :2]], 1).relu(), "relu") == [[4, 5, 0, 1]]
    assert seen(lambda x: x.flatten(1).unflatten(1, (6, 36)).relu(), "relu") == [[0, 1, 2, 3, 4, 5]]
    assert seen(lambda x: x.mean((2, 3)).relu(), "relu") == [[0, 1, 2, 3, 4, 5]]


@pytest.mark.parametrize(
    ("groups", "order"), [(2, [0, 3, 1, 4, 2, 5]), (3, [0, 2, 4, 1, 3, 5]), (6, [0, 1, 2, 3, 4, 5])]
)
def test_a_shuffle_changes_their_order_and_is_a_chain_of_moves(groups: int, order: list[int]) -> None:
    assert seen(lambda x: shuffled(x, groups).relu(), "relu") == [order]
    _net, found = identities(lambda x: shuffled(x, groups).relu())
    assert all(chain[0] == "conv2d" for chain in found.chains.values())
    assert not found.claims.rectangular


def test_a_grid_that_is_computed_with_must_stay_rectangular() -> None:
    _net, found = identities(lambda x: x.view(-1, 2, 3, 6, 6).relu())
    assert [ids.shape for ids in found.claims.rectangular] == [(1, 2, 3, 1, 1)] * len(found.claims.rectangular) != []


def test_a_sum_says_that_two_channels_are_one() -> None:
    model = Function(lambda x: x)
    model.function = lambda x: x + model.other(x[:, :1])
    found = identities_of(capture(model, SHAPE))
    pairs = [(one.tolist(), other.tolist()) for one, other in found.claims.same]
    one, other = (found.values[name].reshape(-1).tolist() for name in ("conv2d", "conv2d_1"))
    assert pairs == [(one, other)]


def test_a_grouped_convolution_asks_for_equal_parts_of_what_it_reads_and_makes() -> None:
    model = Function(lambda x: x)
    model.function = lambda x: model.grouped(x)
    found = identities_of(capture(model, SHAPE))
    assert [b.parts.shape for b in found.claims.balances] == [(3, 2), (3, 2)]
    assert {tuple(b.parts.reshape(-1).tolist()) for b in found.claims.balances} == {
        tuple(found.values[name].reshape(-1).tolist()) for name in ("conv2d", "conv2d_1")
    }


@pytest.mark.parametrize(("groups", "asked"), [(1, 0), (2, 1), (3, 1), (6, 0)])
def test_a_group_norm_asks_for_equal_parts_and_flags_where_channels_share_statistics(groups: int, asked: int) -> None:
    net = net_of(nn.Conv2d(1, 6, 1), nn.GroupNorm(groups, 6), nn.Conv2d(6, 2, 6), shape=SHAPE)
    found = identities_of(net)
    assert len(found.claims.balances) == asked
    assert bool(found.claims.flagged) is (groups < 6)


@pytest.mark.parametrize(("size", "groups", "free"), [
    ((1, 1), 1, True), ((1, 1), 2, False), ((1, 1), 3, False), ((1, 2), 2, True), ((2, 1), 3, True), ((1, 2), 6, True),
])  # fmt: skip
def test_several_groups_of_channels_whose_statistics_are_over_single_pixels_stay_whole(
    size: tuple[int, int], groups: int, free: bool
) -> None:
    """Half of the channels can leave one in each group, and the statistics of one number tell nothing."""
    net = net_of(
        *(nn.Conv2d(1, 6, 1), nn.AdaptiveAvgPool2d(size), nn.GroupNorm(groups, 6), nn.ReLU(), nn.Conv2d(6, 3, 1)),
        *(nn.Flatten(), nn.Linear(3 * size[0] * size[1], 2)),
        shape=SHAPE,
    )
    coupling = couple(net)
    assert ("conv2d" in {group.name for group in coupling.groups}) is free
    assert ("takes statistics over single pixels" in coupling.frozen.get("conv2d", "")) is not free
    assert_cut_is_masked(net, choose(coupling, 0.4), coupling)


def test_a_group_norm_of_rows_is_one_over_single_pixels() -> None:
    layers = (nn.Flatten(), nn.Linear(36, 6), nn.GroupNorm(3, 6), nn.ReLU(), nn.Linear(6, 3))
    assert not couple(net_of(*layers, shape=SHAPE)).groups


def test_what_the_net_takes_and_gives_is_frozen_with_the_reason() -> None:
    coupling = couple(net_of(nn.Conv2d(1, 6, 1), nn.Conv2d(6, 4, 6), shape=SHAPE))
    assert list(coupling.frozen.values()) == ["the net returns them"]
    reasons = [why for _, why in coupling.identities.claims.frozen]
    assert reasons[0] == "they are the image"


def test_a_large_bare_parameter_is_not_told_apart_element_by_element(monkeypatch: pytest.MonkeyPatch) -> None:
    net = small_net("LayerScale")
    (place,) = (n.name for n in net.nodes if n.tensors.get("value") == "place")
    assert identities_of(net).values[place].size == 8 * 36
    monkeypatch.setattr("slimwright.coupling.identity_values.MOST_ELEMENTS", 100)
    found = identities_of(net)
    assert found.values[place].size == 1
    assert "not followed" in " ".join(
        why for ids, why in found.claims.frozen if np.isin(found.values[place], ids).all()
    )
