"""What makes cutting exact, for the tests: a cut net computes what the whole one does with channels out of sight."""

import functools

import torch
from torch import Tensor

from example_nets import HAND_MADE, SHAPE, hand_made
from masked import masked
from slimwright.coupling import Coupling, cut
from slimwright.coupling.views import Ids
from slimwright.graph import Net
from slimwright.importers import capture
from structures import STRUCTURES, structure

EVERY = (*HAND_MADE, *STRUCTURES)


@functools.cache
def small_net(name: str) -> Net:
    """Return the net of a network of `example_nets` or `structures`, captured once for all tests of a run."""
    return capture(hand_made(name) if name in HAND_MADE else structure(name), SHAPE)


def images_for(net: Net, count: int = 3) -> Tensor:
    """[count, C, H, W] in float64."""
    return torch.randn(count, *net.input.shape[1:], dtype=torch.float64)


def assert_cut_is_masked(net: Net, keep: dict[str, Ids], coupling: Coupling) -> Net:
    """Return the cut net, which must equal the masked one. Both run in float64: 1e-5 is far above rounding."""
    small, images = cut(net, keep, coupling), images_for(net)
    wanted = masked(net, coupling, keep, images).scores
    with torch.no_grad():
        got = small.to_module().double()(images)
    assert got.shape == wanted.shape
    assert float((got - wanted).abs().max()) <= 1e-5 * max(float(wanted.abs().max()), 1e-6)
    return small
