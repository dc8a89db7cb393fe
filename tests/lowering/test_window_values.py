"""Poolings and paddings in other forms: the same function, and a case left alone for each."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from exact import small_net
from slimwright.graph import Net
from slimwright.importers import capture
from slimwright.lowering.windows import (
    with_averages_as_convolutions,
    with_averages_of_what_is_there,
    with_crops_apart,
    with_maximum_padding_apart,
    with_plain_averages,
    with_strided_averages_as_convolutions,
)

SHAPE = (3, 9, 8)
EVERY = (
    with_strided_averages_as_convolutions,
    with_averages_as_convolutions,
    with_crops_apart,
    with_maximum_padding_apart,
    with_plain_averages,
)


def net_of(*layers: nn.Module, shape: tuple[int, int, int] = SHAPE) -> Net:
    return capture(nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), *layers), shape)


def ops(net: Net) -> list[str]:
    return [node.op.removeprefix("aten.").partition(".")[0] for node in net.nodes]


def difference(net: Net, other: Net) -> float:
    images = torch.randn(2, *net.input.shape[1:])
    with torch.no_grad():
        wanted, found = net.to_module()(images), other.to_module()(images)
    assert found.shape == wanted.shape
    return float((found - wanted).abs().max())


@pytest.mark.parametrize(("kernel", "stride", "padding"), [(3, 2, 1), ((3, 5), 1, (1, 2)), (2, 2, (0, 1))])
def test_average_poolings_that_count_zeros_are_convolutions(kernel: int, stride: int, padding: int) -> None:
    net = net_of(nn.AvgPool2d(kernel, stride, padding), nn.ReLU())
    apart = with_averages_as_convolutions(net)
    assert ops(apart) == ["input", "conv2d", "conv2d", "relu"]
    assert apart.nodes[2].fixed == ("weight",)  # no weights to train
    assert difference(net, apart) <= 1e-6


@pytest.mark.parametrize(
    "pool",
    [
        nn.AvgPool2d(3, 2, 1, count_include_pad=False),
        nn.AvgPool2d(3, 2, 1, ceil_mode=True),
        nn.AvgPool2d(3, 2, 1, divisor_override=5),
        nn.AvgPool2d(3, 2),
    ],
)
def test_average_poolings_that_count_otherwise_stay(pool: nn.Module) -> None:
    net = net_of(pool)
    assert with_averages_as_convolutions(net) is net


@pytest.mark.parametrize(("kernel", "stride", "padding"), [(3, 2, 1), ((3, 5), (1, 3), (1, 2)), (2, 2, 1)])
def test_strided_averages_that_leave_padding_out_are_convolutions_and_products(
    kernel: int, stride: int, padding: int
) -> None:
    net = net_of(nn.AvgPool2d(kernel, stride, padding, count_include_pad=False), nn.ReLU())
    apart = with_strided_averages_as_convolutions(net)
    assert sorted(ops(apart)) == ["constant", "conv2d", "conv2d", "input", "mul", "relu"]
    assert difference(net, apart) <= 1e-6


def test_averages_in_steps_of_one_stay() -> None:
    net = net_of(nn.AvgPool2d(3, 1, 1, count_include_pad=False))
    assert with_strided_averages_as_convolutions(net) is net


class Inception(nn.Module):
    """A maximum over the neighbours of what was put side by side, negative or not."""

    def __init__(self, negative: bool) -> None:
        super().__init__()
        self.left, self.right, self.negative = nn.Conv2d(3, 2, 1), nn.Conv2d(3, 2, 1), negative

    def forward(self, x: Tensor) -> Tensor:
        right = self.right(x) if self.negative else F.relu6(self.right(x))
        return F.max_pool2d(torch.cat([self.left(x).relu(), right], 1), 3, 1, 1)


def test_maximum_poolings_of_what_is_never_negative_get_zeros() -> None:
    net = capture(Inception(negative=False), SHAPE)
    apart = with_maximum_padding_apart(net)
    assert ops(apart)[-2:] == ["constant_pad_nd", "max_pool2d"]
    assert apart.nodes[-1].arguments["padding"] == (0, 0)
    assert difference(net, apart) == 0


def test_maximum_poolings_of_what_may_be_negative_stay() -> None:
    for net in (capture(Inception(negative=True), SHAPE), net_of(nn.ReLU(), nn.MaxPool2d(3, 2, 1, ceil_mode=True))):
        assert with_maximum_padding_apart(net) is net


def test_a_sum_with_a_negative_number_may_be_negative() -> None:
    class Less(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return F.max_pool2d(x.relu() - 1 + torch.relu(x).add(-1.0), 3, 2, 1)

    net = capture(Less(), SHAPE)
    assert with_maximum_padding_apart(net) is net


def test_adaptive_poolings_whose_sizes_divide_are_plain_ones() -> None:
    net = net_of(nn.AdaptiveAvgPool2d((3, 4)))
    plain = with_plain_averages(net)
    assert ops(plain)[-1] == "avg_pool2d" and plain.nodes[-1].arguments["kernel_size"] == (3, 2)
    assert difference(net, plain) <= 1e-6


def test_an_adaptive_pooling_to_the_size_that_there_is_goes() -> None:
    net = net_of(nn.AdaptiveAvgPool2d((9, 8)), nn.ReLU())
    plain = with_plain_averages(net)
    assert ops(plain) == ["input", "conv2d", "relu"] and difference(net, plain) == 0


@pytest.mark.parametrize("size", [1, (2, 4), (18, 8)])
def test_other_adaptive_poolings_stay(size: int | tuple[int, int]) -> None:
    net = net_of(nn.AdaptiveAvgPool2d(size))
    assert with_plain_averages(net) is net


class Padded(nn.Module):
    def __init__(self, pad: tuple[int, ...], mode: str = "constant") -> None:
        super().__init__()
        self.pad, self.mode = pad, mode

    def forward(self, x: Tensor) -> Tensor:
        return F.pad(x, self.pad, self.mode)


@pytest.mark.parametrize("pad", [(-1, 1, -1, 1), (0, 0, 2, -3), (-1, -1), (1, 2, 0, 0, -1, 0)])
def test_paddings_by_less_than_nothing_are_slices(pad: tuple[int, ...]) -> None:
    net = net_of(Padded(pad), nn.ReLU())
    apart = with_crops_apart(net)
    slices = [node for node in apart.nodes if node.op == "slice"]
    assert len(slices) == sum(min(pair) < 0 for pair in zip(pad[::2], pad[1::2], strict=True))
    assert all(n >= 0 for node in apart.nodes for n in node.arguments.get("pad", ()))  # type: ignore[union-attr, operator]
    assert difference(net, apart) == 0


@pytest.mark.parametrize(("pad", "mode"), [((1, 1, 0, 2), "constant"), ((1, 1, 1, 1), "reflect")])
def test_other_paddings_stay(pad: tuple[int, ...], mode: str) -> None:
    net = net_of(Padded(pad, mode))
    assert with_crops_apart(net) is net


@pytest.mark.parametrize("rewrite", EVERY)
def test_a_net_without_any_is_the_same_object(rewrite: Callable[[Net], Net]) -> None:
    net = small_net("Concat")
    assert rewrite(net) is net


def test_averages_that_round_up_leave_out_padding_that_is_not_there() -> None:
    net = net_of(nn.AvgPool2d(2, ceil_mode=True))
    told = with_averages_of_what_is_there(net)
    assert told.nodes[2].arguments["count_include_pad"] is False
    assert difference(net, told) == 0
    for pool in (
        nn.AvgPool2d(2),
        nn.AvgPool2d(3, 2, 1, ceil_mode=True),
        nn.AvgPool2d(2, ceil_mode=True, divisor_override=3),
    ):
        left = net_of(pool)
        assert with_averages_of_what_is_there(left) is left
