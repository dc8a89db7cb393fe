import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from random_nets import Command, commands, random_net
from slimwright.codec.split.cuts import Cut, cuts, halves
from slimwright.errors import ModelError
from slimwright.graph import Net, random_inputs
from slimwright.importers import capture
from slimwright.zoo import build
from small_split import twofold


def worst(net: Net, cut: Cut) -> float:
    inputs = random_inputs(net, 3, seed=1)
    phone, server = halves(net, cut)
    found = server.run(phone.run(inputs))
    return max(float((a - b).abs().max()) for a, b in zip(found, net.run(inputs), strict=True))


@settings(max_examples=5)
@given(commands(5), st.booleans())
def test_halves_of_random_nets_compute_what_the_net_does_to_the_bit(program: list[Command], flat: bool) -> None:
    net = random_net(program, flat=flat)
    try:
        found = cuts(net)
    except ModelError:
        return
    assert all(worst(net, cut) == 0 for cut in found)


def test_a_residual_net_is_cut_where_one_value_is_alive() -> None:
    net = capture(build("resnet8", classes=10, in_channels=1), (1, 16, 16))
    found = cuts(net)
    assert [cut.values for cut in found] == [("relu",), ("relu_2",), ("relu_4",), ("flatten",)]
    assert all(worst(net, cut) == 0 for cut in found)


def test_several_values_are_sent_where_they_are_smaller_than_the_one_before() -> None:
    net = twofold()
    found = cuts(net)
    assert [len(cut.values) for cut in found] == [1, 2] and found[1].numbers == 5 * 4 * 4
    assert all(worst(net, cut) == 0 for cut in found)


def test_where_a_net_is_wider_than_before_it_is_not_cut() -> None:
    wide = nn.Sequential(nn.Conv2d(4, 24, 1), nn.ReLU6(), nn.Conv2d(24, 4, 1))
    net = capture(nn.Sequential(nn.Conv2d(1, 4, 1), *wide, *wide, nn.Conv2d(4, 2, 1)).eval(), (1, 8, 8))
    found = cuts(net)
    assert [cut.numbers for cut in found] == [4 * 8 * 8] * 3 and [cut.layers for cut in found] == [1, 3, 5]
    assert all(worst(net, cut) == 0 for cut in found)


def test_what_is_between_two_layers_is_cut_where_it_is_smallest() -> None:
    layers = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 2, 3))
    (cut,) = cuts(capture(layers.eval(), (1, 8, 8)))
    assert (cut.after, cut.numbers) == ("max_pool2d", 4 * 4 * 4)


def test_a_parameter_that_both_halves_read_is_in_both() -> None:
    class Shifted(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.shift = nn.Parameter(torch.randn(4, 1, 1))
            self.one, self.other = nn.Conv2d(1, 4, 1), nn.Conv2d(4, 4, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.other(self.one(x) + self.shift) + self.shift  # type: ignore[no-any-return]

    net = capture(Shifted().eval(), (1, 4, 4))
    (cut,) = cuts(net)
    assert worst(net, cut) == 0 and all("shift" in half.tensors for half in halves(net, cut))


def test_a_net_of_one_layer_is_not_cut() -> None:
    with pytest.raises(ModelError, match="run it whole"):
        cuts(capture(nn.Sequential(nn.Conv2d(1, 2, 3)).eval(), (1, 8, 8)))
