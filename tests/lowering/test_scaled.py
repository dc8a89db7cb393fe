"""Values scaled inside a network: the same scores, bit for bit, from smaller values."""

import pytest
import torch
from torch import Tensor, nn

from exact import small_net
from slimwright.graph import Net
from slimwright.importers import capture
from slimwright.lowering.scaled import with_values_scaled
from slimwright.runtimes.half import HALF_MOST, largest_values, within_half
from slimwright.techniques.fold import fold_batch_norm
from slimwright.zoo import build


def both(net: Net, other: Net) -> tuple[Tensor, Tensor]:
    images = torch.randn(2, *net.input.shape[1:])
    with torch.no_grad():
        return net.to_module()(images), other.to_module()(images)


@pytest.mark.parametrize("name", ["Residual", "Concat", "Separable"])
@pytest.mark.parametrize("scale", [2.0**-6, 4.0])
def test_scores_are_the_same_bits_for_a_power_of_two(name: str, scale: float) -> None:
    net = fold_batch_norm(small_net(name))
    expected, found = both(net, with_values_scaled(net, scale))
    assert torch.equal(found, expected)


def test_every_value_between_the_first_layer_and_the_last_is_scaled() -> None:
    net = fold_batch_norm(capture(build("resnet8", classes=10).eval(), (3, 32, 32)))
    scaled = with_values_scaled(net, 0.25)
    images = torch.randn(1, 3, 32, 32)
    before, after = largest_values(net, [images]), largest_values(scaled, [images])
    inside = [name for name in before if name not in (net.input.name, net.outputs[0])]
    assert all(after[name] == 0.25 * before[name] for name in inside)
    assert after[net.outputs[0]] == before[net.outputs[0]]
    assert not any(node.op == "mul" for node in scaled.nodes)  # the last layer puts it right


def test_what_scales_otherwise_gets_its_values_as_they_were() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.Conv2d(4, 4, 1), nn.Hardswish(), nn.Conv2d(4, 2, 1))
    net = capture(model, (3, 5, 5))
    scaled = with_values_scaled(net, 2.0**-5)
    assert [node.op for node in scaled.nodes] == ["input", "conv2d", "relu", "conv2d", "mul", "hardswish", "conv2d"]
    expected, found = both(net, scaled)
    assert torch.equal(found, expected)


def large(by: float) -> Net:
    torch.manual_seed(0)
    first, last = nn.Conv2d(1, 4, 3), nn.Linear(64, 3)
    with torch.no_grad():
        first.weight.mul_(by)
        last.weight.div_(by)
    return capture(nn.Sequential(first, nn.ReLU(), nn.Conv2d(4, 4, 3), nn.ReLU(), nn.Flatten(), last), (1, 8, 8))


def test_values_beyond_half_precision_come_within() -> None:
    net = large(1e6)
    images = torch.randn(2, 1, 8, 8)
    assert max(largest_values(net, [images]).values()) > HALF_MOST
    half = within_half(net)
    assert max(largest_values(half, [images]).values()) < HALF_MOST / 4
    expected, found = both(net, half)
    assert torch.equal(found, expected)


def test_a_net_whose_values_fit_is_the_same_object() -> None:
    net = large(1.0)
    assert within_half(net) is net


def test_what_is_no_number_counts_as_infinite() -> None:
    class Root(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return (x - 10).sqrt()

    found = largest_values(capture(Root(), (1, 2, 2)), [torch.zeros(1, 1, 2, 2)])
    assert list(found.values()) == [0.0, 10.0, float("inf")]
