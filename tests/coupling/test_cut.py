from collections.abc import Callable
from pathlib import Path

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
from slimwright.coupling import choose, couple, cut
from slimwright.errors import RequestError
from slimwright.graph import Net, load_net, save_net
from slimwright.importers import capture
from slimwright.zoo import build
from structures import STRUCTURES, shuffled


def ops(net: Net) -> list[str]:
    return [node.op for node in net.nodes]


@pytest.mark.parametrize("name", EVERY)
def test_a_cut_net_equals_the_masked_one_at_any_share(name: str) -> None:
    net = small_net(name)
    coupling = couple(net)
    for seed, share in enumerate((0.1, 0.3, 0.5, 0.7)):
        assert_cut_is_masked(net, choose(coupling, share, seed=seed), coupling)


@pytest.mark.parametrize("name", EVERY)
def test_every_group_alone_can_be_cut(name: str) -> None:
    net = small_net(name)
    coupling = couple(net)
    for number, group in enumerate(coupling.groups):
        assert_cut_is_masked(net, choose(coupling, {group.name: 0.4}, seed=number), coupling)


@pytest.mark.parametrize("name", STRUCTURES)
def test_a_cut_net_can_be_cut_again(name: str) -> None:
    net = small_net(name)
    for seed in range(2):
        once = cut(net, choose(couple(net), 0.65, seed=seed))
        coupling = couple(once)
        assert_cut_is_masked(once, choose(coupling, 0.5, seed=seed + 1), coupling)


@pytest.mark.parametrize("name", STRUCTURES)
def test_a_cut_net_is_smaller_trains_and_comes_back_from_disk(name: str, tmp_path: Path) -> None:
    net = small_net(name)
    coupling = couple(net)
    small = cut(net, choose(coupling, 0.5), coupling)
    assert sum(t.numel() for t in small.tensors.values()) < sum(t.numel() for t in net.tensors.values())
    save_net(small, tmp_path)
    assert load_net(tmp_path).digest == small.digest
    module = small.to_module().train()
    optimizer = torch.optim.SGD(module.parameters(), 0.05)
    loss = F.cross_entropy(module(torch.randn(3, *SHAPE)), torch.arange(3))
    loss.backward()
    optimizer.step()
    trained = small.trained(module)
    assert trained.digest != small.digest
    images = torch.randn(3, *SHAPE)
    assert torch.equal(trained.to_module()(images), module.eval()(images))


@pytest.mark.slow
@given(program=commands(), flat=st.booleans(), seed=st.integers(0, 99))
@settings(max_examples=60)
def test_a_random_net_cut_twice_equals_the_masked_one_both_times(program: list[Command], flat: bool, seed: int) -> None:
    net = random_net(program, flat=flat, seed=seed)
    for share in (0.6, 0.4):
        coupling = couple(net)
        net = assert_cut_is_masked(net, choose(coupling, share, seed=seed), coupling)


@pytest.mark.parametrize("name", ["resnet8", "resnet20", "vgg6", "shufflenet-g3-0.25x"])
def test_a_cut_zoo_net_equals_the_masked_one(name: str) -> None:
    net = capture(lively(build(name, classes=10, in_channels=1)), (1, 32, 32))
    coupling = couple(net)
    assert_cut_is_masked(net, choose(coupling, 0.4, seed=1), coupling)


class Shuffled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.last, self.fc = nn.Conv2d(1, 8, 3, padding=1), nn.Conv2d(8, 5, 3), nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = self.last(shuffled(torch.relu(self.stem(x)), 2))
        return self.fc(y.mean((2, 3)))  # type: ignore[no-any-return]


def test_a_shuffle_that_keeps_the_same_of_each_half_stays_a_view() -> None:
    net = capture(Shuffled(), SHAPE)
    coupling = couple(net)
    small = assert_cut_is_masked(net, {coupling.groups[0].name: np.array([0, 2, 4, 6])}, coupling)
    assert ops(small) == ops(net)
    moves = [node for node in small.nodes if node.op in ("reshape", "transpose")]
    assert [node.shape for node in moves] == [(1, 2, 2, 6, 6), (1, 2, 2, 6, 6), (1, 4, 6, 6)]
    assert moves[0].arguments["shape"] == (-1, 2, 2, 6, 6)


def test_a_shuffle_that_keeps_uneven_halves_becomes_one_gather() -> None:
    net = capture(Shuffled(), SHAPE)
    coupling = couple(net)
    small = assert_cut_is_masked(net, {coupling.groups[0].name: np.array([0, 1, 2, 4])}, coupling)
    assert not {"reshape", "transpose"} & set(ops(small))
    assert picked(small) == [0, 3, 1, 2]  # what is left of 0, 4, 1, 5, 2, 6, 3, 7
    again = couple(small)
    smaller = assert_cut_is_masked(small, {again.groups[0].name: np.array([0, 2, 3])}, again)
    assert picked(smaller) == [0, 2, 1]


def picked(net: Net) -> list[int]:
    """The order in which the one gather of a net picks channels."""
    (gather,) = (node for node in net.nodes if node.op == "gather")
    found: list[int] = net.tensors[gather.tensors["index"]].tolist()
    return found


class Function(nn.Module):
    """A function of a convolution's 8 channels, between it and a linear layer that reads averages over pixels."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function
        self.stem = nn.Conv2d(1, 8, 3, padding=1)
        with torch.no_grad():
            out = function(torch.zeros(2, 8, 6, 6)).shape[1]
        self.fc = nn.Linear(out, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.function(self.stem(x)).mean((2, 3)))  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x.flip(1),
        lambda x: torch.roll(x, 3, 1),
        lambda x: x[:, [3, 1, 0, 2, 7, 7, 5]],
        lambda x: x.index_select(1, torch.tensor([6, 1, 0])),
        lambda x: x[:, ::3],
        lambda x: x[:, 2:7:2].repeat(1, 2, 1, 1),
        lambda x: torch.cat([x[:, 4:], x[:, :4]], 1),
        lambda x: torch.stack([x, x.sigmoid()], 2).flatten(1, 2),
        lambda x: torch.stack(x.unbind(1)[::-1], 1),
        lambda x: torch.stack([*torch.stack([x, x * 2], 1).unbind(1), x * 3], 1).flatten(1, 2),
        lambda x: x.unfold(2, 2, 2).flatten(3),
        lambda x: x.view(x.shape[0], 2, 4, 6, 6).sum(1),
        lambda x: x.view(x.shape[0], 4, 2, 6, 6).mean(2),
        lambda x: x.permute(0, 2, 3, 1).reshape(-1, 36, 8).transpose(1, 2).unflatten(2, (6, 6)),
        lambda x: x.movedim(1, -1).swapaxes(1, 3),
        lambda x: torch.cat([x, x], 1).flip(1) * torch.cat([x, x.sigmoid()], 1),
    ],
)
def test_what_moves_channels_about_can_be_cut_at_any_channel(function: Callable[[Tensor], Tensor]) -> None:
    net = capture(Function(function), SHAPE)
    coupling = couple(net)
    for seed in range(4):
        assert_cut_is_masked(net, choose(coupling, 0.5, seed=seed), coupling)


class Crossed(nn.Module):
    """One value twice in a concatenation, told apart by a sum, then in another order."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.wide, self.fc = nn.Conv2d(1, 4, 1), nn.Conv2d(1, 8, 1), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = self.stem(x)
        y = torch.cat([y, y], 1) + self.wide(x)
        return self.fc(torch.roll(y, 1, 1).mean((2, 3)))  # type: ignore[no-any-return]


def test_two_places_of_one_channel_do_not_change_places() -> None:
    net = capture(Crossed(), SHAPE)
    coupling = couple(net)
    (group,) = coupling.groups
    for kept in ([0], [3], [1, 2], [0, 3]):
        assert_cut_is_masked(net, {group.name: np.array(kept)}, coupling)


def test_a_grouped_convolution_keeps_rows_and_columns_of_each_of_its_groups() -> None:
    net = net_of(nn.Conv2d(1, 6, 1), nn.Conv2d(6, 4, 1, groups=2), nn.ReLU(), nn.Conv2d(4, 2, 6), shape=SHAPE)
    coupling = couple(net)
    inner, outer = coupling.groups
    small = assert_cut_is_masked(net, {inner.name: np.array([0, 2, 3, 5]), outer.name: np.array([1, 2])}, coupling)
    whole, left = net.tensors["1.weight"], small.tensors["1.weight"]
    assert torch.equal(left[0], whole[1, [0, 2]]) and torch.equal(left[1], whole[2, [0, 2]])
    assert small[outer.name].arguments["groups"] == 2


def test_groups_of_unequal_size_are_refused_with_the_layers_name() -> None:
    net = net_of(nn.Conv2d(1, 6, 1), nn.Conv2d(6, 4, 1, groups=2), nn.ReLU(), nn.Conv2d(4, 2, 6), shape=SHAPE)
    inner, outer = couple(net).groups
    with pytest.raises(RequestError, match=f"'{outer.name}' has 2 groups.*would keep 1 to 2"):
        cut(net, {inner.name: np.array([0, 3, 4])})
    with pytest.raises(RequestError, match="at least one each; they would keep 0 to 1"):
        cut(net, {outer.name: np.array([3])})


def test_norms_are_told_how_many_channels_are_left() -> None:
    small = cut(small_net("GroupNorms"), choose(couple(small_net("GroupNorms")), 0.5))
    assert [n.arguments["num_groups"] for n in small.nodes if n.op == "group_norm"] == [2, 4, 1]
    small = cut(small_net("ConvNext"), choose(couple(small_net("ConvNext")), 0.5))
    assert [n.arguments["normalized_shape"] for n in small.nodes if n.op == "layer_norm"] == [(4,)]


@pytest.mark.parametrize("kept", [[2], [0, 5]])
def test_a_norm_over_single_pixels_can_be_cut_down_to_one_channel_which_gives_its_bias(kept: list[int]) -> None:
    net = net_of(
        *(nn.Conv2d(1, 6, 1), nn.AdaptiveAvgPool2d(1), nn.GroupNorm(1, 6), nn.ReLU(), nn.Conv2d(6, 3, 1), nn.Flatten()),
        shape=SHAPE,
    )
    bias = net.tensors["2.bias"].copy_(torch.linspace(-1, 1, 6))
    coupling = couple(net)
    small = assert_cut_is_masked(net, {coupling.groups[0].name: np.array(kept)}, coupling)
    if len(kept) == 1:
        weight = net.tensors["4.weight"][:, kept[0], 0, 0]
        expected = weight * torch.relu(bias[kept[0]]) + net.tensors["4.bias"]
        assert torch.allclose(small.to_module()(torch.randn(1, *SHAPE)), expected, atol=1e-6)


def test_a_bare_parameter_loses_the_entries_of_its_channels() -> None:
    net = small_net("LayerScale")
    coupling = couple(net)
    small = cut(net, {coupling.groups[0].name: np.array([1, 4, 6])}, coupling)
    for name, shape in (("gamma", (1, 3, 1, 1)), ("beta", (3, 1, 1)), ("place", (1, 3, 6, 6)), ("temperature", ())):
        assert small.tensors[name].shape == shape
    assert torch.equal(small.tensors["place"], net.tensors["place"][:, [1, 4, 6]])
    assert torch.equal(small.tensors["mask"], net.tensors["mask"])


def test_a_slice_that_would_lose_all_its_channels_is_refused_by_name() -> None:
    net = capture(Function(lambda x: x * x[:, :3].amax(1, keepdim=True)), SHAPE)
    coupling = couple(net)
    (group,) = coupling.groups
    with pytest.raises(RequestError, match="'slice_2' would be left without channels"):
        cut(net, {group.name: np.array([3, 4, 7])}, coupling)
    for seed in range(8):  # what `choose` gives never is
        assert_cut_is_masked(net, choose(coupling, 0.13, seed=seed), coupling)
