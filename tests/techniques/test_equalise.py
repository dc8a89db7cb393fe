"""Channels made alike in range: the same scores, bit for bit, from values that fill their levels better."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from exact import small_net
from example_nets import lively
from slimwright.data import calibration_inputs
from slimwright.graph import Net
from slimwright.importers import capture
from slimwright.techniques import fold_batch_norm
from slimwright.techniques.equalise import MARGIN, equalised, pairs
from slimwright.techniques.quantize import quantized
from slimwright.zoo import build
from slimwright.zoo.mobilenet import MobileNetV2
from small_digits import few_digits, small_digit_net


class Uneven(nn.Module):
    """Three layers, a depthwise one between, whose first has channels from a tenth to ten times as large."""

    def __init__(self, activation: nn.Module) -> None:
        super().__init__()
        self.first, self.depthwise = nn.Conv2d(2, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.pointwise, self.last = nn.Conv2d(8, 6, 1), nn.Linear(6, 3)
        self.activation = activation
        with torch.no_grad():
            factors = torch.logspace(-1, 1, 8)
            self.first.weight.mul_(factors[:, None, None, None])
            self.first.bias.mul_(factors)  # type: ignore[union-attr]
            self.depthwise.weight.div_(factors[:, None, None, None])

    def forward(self, x: Tensor) -> Tensor:
        y = self.activation(self.depthwise(self.activation(self.first(x))))
        y = F.max_pool2d(F.relu(self.pointwise(y)), 2)
        return self.last(y.mean((2, 3)))  # type: ignore[no-any-return]


def uneven(activation: nn.Module) -> Net:
    torch.manual_seed(0)
    return capture(Uneven(activation).eval(), (2, 8, 8))


def spread(net: Net, value: str, images: Tensor) -> float:
    """How many times as large the largest channel of a value is as the smallest."""
    found = Net(net.nodes, net.tensors, (value,)).run(images)[0].abs().amax((0, 2, 3))
    return float(found.max() / found.min())


@pytest.mark.parametrize("activation", [nn.ReLU(), nn.LeakyReLU(0.1), nn.Identity()])
def test_channels_fill_their_levels_and_the_scores_are_the_same_bits(activation: nn.Module) -> None:
    net, images = uneven(activation), torch.randn(64, 2, 8, 8)
    alike = equalised(net, images)
    others = torch.randn(16, 2, 8, 8)
    assert torch.equal(alike.run(others)[0], net.run(others)[0])
    first = next(net.weighted()).name
    assert spread(net, first, images) > 50 and spread(alike, first, images) < 5
    assert [node.op for node in alike.nodes] == [node.op for node in net.nodes]
    near = {which: quantized(one, images, weight_bits=8, activation_bits=4, rounding="nearest")
            for which, one in (("plain", net), ("alike", alike))}  # fmt: skip
    wanted = net.run(others)[0]
    errors = {which: float((one.run(others)[0] - wanted).square().mean()) for which, one in near.items()}
    assert errors["alike"] < 0.5 * errors["plain"]


@pytest.mark.parametrize("name", ["resnet8", "mobilenet-v2", "shufflenet-g3", "vgg6"])
def test_published_networks_keep_their_scores(name: str) -> None:
    torch.manual_seed(0)
    model = MobileNetV2(classes=10, in_channels=3, width=0.25) if name == "mobilenet-v2" else build(name, classes=10)
    net = fold_batch_norm(capture(lively(model), (3, 32, 32)))
    images = torch.randn(8, 3, 32, 32)
    alike = equalised(net, images)
    assert torch.equal(alike.run(images)[0], net.run(images)[0])
    assert alike is not net


@pytest.mark.parametrize("name", ["Residual", "Concat", "Separable", "Gated", "Flat", "InPlace", "Twice"])
def test_hand_made_networks_keep_their_scores(name: str) -> None:
    net = fold_batch_norm(small_net(name))
    images = torch.randn(8, *net.input.shape[1:])
    alike = equalised(net, images)
    assert torch.equal(alike.run(images)[0], net.run(images)[0])


def test_a_value_that_several_read_or_a_sigmoid_is_left_alone() -> None:
    residual, gated = fold_batch_norm(small_net("Residual")), fold_batch_norm(small_net("Gated"))
    assert not list(pairs(residual))
    assert equalised(residual, torch.randn(4, *residual.input.shape[1:])) is residual
    squeeze = [(pair.first.name, pair.second.name) for pair in pairs(gated)]
    assert len(squeeze) == 1  # the two layers of the gate, with a ReLU between; not across GELU or tanh


def test_channels_reach_a_linear_layer_through_pooling_and_flattening() -> None:
    net, data = fold_batch_norm(small_digit_net()), few_digits()
    found = list(pairs(net))
    assert [(pair.first.op, pair.second.op) for pair in found] == [("conv2d", "conv2d"), ("conv2d", "linear")]
    images = calibration_inputs(data, 60)
    alike = equalised(net, images)
    assert not torch.equal(*(each.tensors[found[1].second.tensors["weight"]] for each in (net, alike)))
    assert torch.equal(alike.run(images)[0], net.run(images)[0])


def test_a_bound_is_kept() -> None:
    """Channels that reach it stay, and no other is brought there: on calibration images not a bit differs."""
    net, images = uneven(nn.ReLU6()), torch.randn(64, 2, 8, 8)
    alike = equalised(net, images)
    assert alike is not net
    assert torch.equal(alike.run(images)[0], net.run(images)[0])
    first = next(net.weighted())
    values = {id(one): Net(one.nodes, one.tensors, (first.name,)).run(images)[0] for one in (net, alike)}
    before, after = (values[id(one)].amax((0, 2, 3)) for one in (net, alike))
    reach = before * MARGIN > 6
    assert reach.any() and torch.equal(before[reach], after[reach])
    assert (after[~reach] * MARGIN <= 6).all() and (after[~reach] > before[~reach]).any()


def test_channels_that_are_always_zero_stay_as_they_are() -> None:
    torch.manual_seed(0)
    dead = nn.Conv2d(1, 4, 3)
    with torch.no_grad():
        dead.weight[1] = 0
        dead.bias[1] = -1.0  # type: ignore[index]
    net = capture(nn.Sequential(dead, nn.ReLU(), nn.Conv2d(4, 2, 1), nn.Flatten()), (1, 5, 5))
    alike = equalised(net, torch.randn(8, 1, 5, 5))
    first = next(net.weighted())
    for role in ("weight", "bias"):
        assert torch.equal(alike.tensors[first.tensors[role]][1], net.tensors[first.tensors[role]][1])
