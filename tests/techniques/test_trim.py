"""Channels that nothing reads go, layer by layer, and the network computes what it did."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from example_nets import HAND_MADE, SHAPE, hand_made, lively
from slimwright.coupling import couple
from slimwright.graph import Net
from slimwright.importers import capture
from slimwright.techniques import Recipe, Sparsify, Trim, Tune, apply
from slimwright.techniques.fold import Fold
from slimwright.techniques.solver.draft import Draft
from slimwright.techniques.trim import trimmed
from small_digits import few_digits, small_digit_net


def without_columns(net: Net, layer: str, channels: list[int]) -> Net:
    """The net in which a layer has zeros for these input channels."""
    name = net[layer].tensors["weight"]
    weight = net.tensors[name].clone()
    weight[:, channels] = 0
    return net.edited(tensors={name: weight})


def chain() -> Net:
    """Nodes conv2d (6 channels), conv2d_1 (5), flatten, linear (7), linear_1."""
    model = nn.Sequential(
        nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Conv2d(6, 5, 3), nn.Sigmoid(), nn.Flatten(),
        nn.Linear(5 * 12 * 12, 7), nn.ReLU(), nn.Linear(7, 4),
    )  # fmt: skip
    return capture(lively(model).eval(), (3, 16, 16))


def same(one: Net, other: Net) -> bool:
    images = torch.randn(4, *one.nodes[0].shape[1:], generator=torch.Generator().manual_seed(0))
    return all(
        torch.allclose(a, b, rtol=1e-5, atol=1e-5) for a, b in zip(one.run(images), other.run(images), strict=True)
    )


def shapes(net: Net) -> list[tuple[int, ...]]:
    return [tuple(net.tensors[node.tensors["weight"]].shape) for node in net.weighted()]


def test_channels_that_nothing_reads_go_and_then_those_that_only_they_read() -> None:
    """A sigmoid of a channel is never zero: what it holds does not matter, as nothing reads it."""
    net = without_columns(chain(), "linear_1", [1, 4])
    found = trimmed(Draft.of(net)).net
    assert shapes(found) == [(6, 3, 3, 3), (5, 6, 3, 3), (5, 720), (4, 5)] and same(net, found)
    weight = net.tensors[net["linear"].tensors["weight"]].clone()
    rows = torch.tensor([0, 2, 3, 5, 6])
    weight[rows[:, None], torch.arange(2 * 144, 3 * 144)] = 0  # channel 2 is read by units 1 and 4 alone
    net = net.edited(tensors={net["linear"].tensors["weight"]: weight})
    found = trimmed(Draft.of(net)).net
    assert shapes(found) == [(6, 3, 3, 3), (4, 6, 3, 3), (5, 576), (4, 5)] and same(net, found)


def test_one_channel_stays_where_nothing_is_read() -> None:
    net = without_columns(chain(), "linear_1", list(range(7)))
    found = trimmed(Draft.of(net)).net
    assert shapes(found)[-1] == (4, 1) and same(net, found)


@pytest.mark.parametrize("name", HAND_MADE)
def test_hand_made_nets_compute_what_they_did(name: str) -> None:
    """Of every layer, inputs of even numbers are not read: some nets lose channels, and none another output."""
    net = capture(lively(hand_made(name)).eval(), SHAPE)
    assert trimmed(Draft.of(net)).net is net
    for node in net.weighted():
        weight: Tensor = net.tensors[node.tensors["weight"]]
        if node is not next(net.weighted()) and weight.shape[1] > 1:
            net = without_columns(net, node.name, list(range(0, weight.shape[1], 2)))
    assert same(net, trimmed(Draft.of(net)).net)


class Both(nn.Module):
    """Six channels that a layer reads, all but the second, and something beside it."""

    def __init__(self, beside: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.beside = beside
        self.first, self.other, self.reader = nn.Conv2d(1, 6, 3), nn.Conv2d(1, 6, 3), nn.Conv2d(6, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x)
        return torch.cat([self.reader(y).flatten(1), self.beside(y, self.other(x)).flatten(1)], 1)


BESIDE: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "sum": lambda y, _: y.sum(1),
    "sum of squares": lambda y, _: (y * y).sum(1),
    "norm": lambda y, _: y.norm(dim=1),
    "largest": lambda y, _: y.amax(1),
    "product": lambda y, other: y.flatten(2).transpose(1, 2) @ other.flatten(2),
    "gated sum": lambda y, other: (y * other.sigmoid()).sum(1),
    "output": lambda y, _: y,
}


@pytest.mark.parametrize("beside", BESIDE)
def test_a_channel_that_something_without_weights_reads_stays(beside: str) -> None:
    torch.manual_seed(0)
    net = capture(lively(Both(BESIDE[beside])).eval(), SHAPE)
    net = without_columns(net, "conv2d_1", [1])
    assert trimmed(Draft.of(net)).net is net


def test_groups_that_must_stay_equal_are_left_whole() -> None:
    net = capture(lively(nn.Sequential(nn.Conv2d(1, 8, 1), nn.Conv2d(8, 8, 3, groups=2), nn.Conv2d(8, 2, 1))), SHAPE)
    names = [node.name for node in net.weighted()]
    net = without_columns(net, names[1], [0, 2])
    assert couple(net).balanced and trimmed(Draft.of(net)).net is net


def test_zeros_that_were_trained_leave_a_smaller_net_whose_zeros_stay() -> None:
    net = small_digit_net()
    thin = (Fold(), Tune(epochs=4, rate=0.02, zeros=0.97))
    whole = apply(Recipe(original=net.digest, steps=thin), net, few_digits())
    small = apply(Recipe(original=net.digest, steps=(*thin, Trim())), net, few_digits())
    assert same(whole, small) and sum(map(math.prod, shapes(small))) < sum(map(math.prod, shapes(whole)))
    tuned = apply(Recipe(original=net.digest, steps=(*thin, Trim(), Tune(epochs=1, rate=0.01))), net, few_digits())
    for name, weight in small.tensors.items():
        if weight.ndim > 1:
            assert not tuned.tensors[name][weight == 0].any()
    assert shapes(tuned) == shapes(small)


def test_nothing_is_left_to_trim_behind_a_share_that_every_channel_survives() -> None:
    net = small_digit_net()
    steps = (Sparsify(share=0.2), Trim())
    found = apply(Recipe(original=net.digest, steps=steps), net, few_digits())
    assert shapes(found) == shapes(net)
