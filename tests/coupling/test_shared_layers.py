"""Layers that are called several times with the same weights, and tensors that several layers have in common."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from exact import assert_cut_is_masked, small_net
from example_nets import SHAPE, lively
from shared_layers import NETS
from slimwright.cost import count
from slimwright.coupling import choose, couple, cut
from slimwright.importers import capture


class Twice(nn.Module):
    """A layer on two values that two convolutions of six channels make, and a convolution behind each of them."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer
        self.before = nn.ModuleList(nn.Conv2d(1, 6, kernel, padding=kernel // 2) for kernel in (1, 3))
        self.behind = nn.ModuleList(nn.Conv2d(6, 4, 1) for _ in range(2))
        self.fc = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        one, other = (self.layer(torch.relu(conv(x))) for conv in self.before)
        y = self.behind[0](torch.relu(one)) * torch.sigmoid(self.behind[1](torch.relu(other)))
        return self.fc(y.mean((2, 3)))  # type: ignore[no-any-return]


class OnRows(nn.Module):
    """A layer that finds channels in the last dimension."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)  # type: ignore[no-any-return]


class OneBias(nn.Module):
    """Two convolutions one behind the other that have nothing but a bias in common."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.other = nn.Conv2d(6, 6, 1), nn.Conv2d(6, 6, 1)
        self.other.bias = self.one.bias

    def forward(self, x: Tensor) -> Tensor:
        return self.other(torch.relu(self.one(x)))  # type: ignore[no-any-return]


class BothUses(nn.Module):
    """One matrix as the weights of a layer and as a factor of a product."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.rand(6, 6))

    def forward(self, x: Tensor) -> Tensor:
        y = F.linear(x.permute(0, 2, 3, 1), self.weight)
        return (torch.tanh(y) @ self.weight).permute(0, 3, 1, 2)


SHARED: dict[str, nn.Module] = {
    "convolution": nn.Conv2d(6, 6, 3, padding=1),
    "pointwise convolution": nn.Conv2d(6, 6, 1, bias=False),
    "grouped convolution": nn.Conv2d(6, 6, 3, padding=1, groups=2),
    "depthwise convolution": nn.Conv2d(6, 6, 3, padding=1, groups=6),
    "linear layer": OnRows(nn.Linear(6, 6)),
    "batch norm": nn.BatchNorm2d(6),
    "group norm": nn.GroupNorm(2, 6),
    "layer norm": OnRows(nn.LayerNorm(6)),
    "slopes": nn.PReLU(6),
    "bias": OneBias(),
    "matrix": BothUses(),
}


@pytest.mark.parametrize("what", [what for what in SHARED if what != "matrix"])
def test_a_shared_layer_loses_the_same_channels_at_both_calls(what: str) -> None:
    net = capture(lively(Twice(SHARED[what])), SHAPE)
    coupling = couple(net)
    before = {node.name for node in net.weighted() if node.tensors["weight"].startswith("before")}
    assert not before & coupling.frozen.keys()
    for seed, share in enumerate((0.3, 0.5, 0.7)):
        small = assert_cut_is_masked(net, choose(coupling, share, seed=seed), coupling)
        again = couple(small)
        assert_cut_is_masked(small, choose(again, 0.5, seed=seed), again)


def test_a_matrix_that_is_used_in_two_ways_stays_whole() -> None:
    net = capture(lively(Twice(SHARED["matrix"])), SHAPE)
    coupling = couple(net)
    (group,) = coupling.groups
    assert {net[place.node].tensors["weight"] for place in group.of("out")} == {"behind.0.weight", "behind.1.weight"}
    assert_cut_is_masked(net, {group.name: np.array([0, 3])}, coupling)


@pytest.mark.parametrize("layer", [nn.PReLU(), nn.GroupNorm(2, 6, affine=False), nn.LayerNorm((6, 6))])
def test_a_shared_layer_without_weights_of_channels_leaves_them_free_or_says_why(layer: nn.Module) -> None:
    net = capture(lively(Twice(layer)), SHAPE)
    coupling = couple(net)
    reasons = [why for why in coupling.frozen.values() if "returns" not in why]
    assert not any("shares its weights" in why for why in reasons)
    assert len(coupling.groups) == 3 or reasons
    assert_cut_is_masked(net, choose(coupling, 0.5), coupling)


def test_a_block_that_reads_what_it_makes_loses_rows_and_columns() -> None:
    net = small_net("Twice")
    coupling = couple(net)
    (group,) = coupling.groups
    small = assert_cut_is_masked(net, {group.name: np.array([0, 3])}, coupling)
    assert torch.equal(small.tensors["conv.weight"], net.tensors["conv.weight"][[0, 3]][:, [0, 3]])


@pytest.mark.parametrize("name", NETS)
def test_nets_that_call_layers_several_times_are_cut_exactly(name: str) -> None:
    make, shapes, groups, left = NETS[name]
    torch.manual_seed(0)
    net = capture(lively(make()), shapes)
    coupling = couple(net)
    assert len(coupling.groups) == groups, dict(coupling.frozen)
    small = assert_cut_is_masked(net, choose(coupling, 0.5, seed=0), coupling)
    assert count(small).params < left * count(net).params  # each tensor is counted once
    assert count(small).params == sum(t.numel() for n, t in small.to_module().named_parameters())
    for group in coupling.groups:
        assert_cut_is_masked(net, choose(coupling, {group.name: 0.4}, seed=1), coupling)
    cut_again = cut(small, choose(couple(small), 0.5, seed=2))
    assert len(cut_again.nodes) == len(net.nodes)


class Blurs(nn.Module):
    """One blur kernel, registered once, behind two convolutions; and a learned kernel for both, where asked."""

    kernel: Tensor

    def __init__(self, *, learned: bool) -> None:
        super().__init__()
        kernel = (torch.tensor([1.0, 2, 1])[:, None] * torch.tensor([1.0, 2, 1]) / 16).repeat(8, 1, 1, 1)
        if learned:
            self.kernel = nn.Parameter(kernel)
        else:
            self.register_buffer("kernel", kernel)
        self.one, self.other, self.fc = nn.Conv2d(1, 8, 3), nn.Conv2d(8, 8, 3), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        for conv in (self.one, self.other):
            x = F.conv2d(F.relu(conv(x)), self.kernel, padding=1, groups=8)
        return self.fc(x.mean((2, 3)))  # type: ignore[no-any-return]


def test_a_buffer_of_equal_rows_ties_no_layers_together_and_a_learned_kernel_does() -> None:
    for learned, sizes in ((False, [8, 8]), (True, [8])):
        net = capture(Blurs(learned=learned), (1, 12, 12))
        coupling = couple(net)
        assert [group.size for group in coupling.groups] == sizes, dict(coupling.frozen)
        keep = {group.name: np.arange(3 + 2 * number) for number, group in enumerate(coupling.groups)}
        small = assert_cut_is_masked(net, keep, coupling)
        assert small.to_module()(torch.zeros(1, 1, 12, 12)).shape == (1, 3)
