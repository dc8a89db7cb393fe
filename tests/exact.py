"""What makes cutting exact, for the tests: a cut net computes what the whole one does with channels out of sight."""

import functools

import torch
from torch import Tensor

from example_nets import HAND_MADE, SHAPE, hand_made
from slimwright.coupling import Coupling, cut
from slimwright.coupling.masked import masked
from slimwright.coupling.views import Ids
from slimwright.graph import Net
from slimwright.importers import capture
from structures import STRUCTURES, structure

EVERY = (*HAND_MADE, *STRUCTURES)


@functools.cache
def small_net(name: str) -> Net:
    """Return the net of a network of `example_nets` or `structures`, captured once for all tests of a run."""
    return capture(hand_made(name) if name in HAND_MADE else structure(name), SHAPE)


def inputs_for(net: Net, count: int = 3, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    """A tensor [count, ...] for each input."""
    return [torch.randn(count, *node.shape[1:], dtype=dtype) for node in net.inputs]


def assert_cut_is_masked(net: Net, keep: dict[str, Ids], coupling: Coupling) -> Net:
    """Return the cut net, which must equal the masked one. Both run in float64: 1e-5 is far above rounding.

    A net that makes float32 tensors of its own, as a recurrent layer's first states, runs in float32.
    """
    asks = any("torch.float32" in str(node.arguments.get("dtype")) for node in net.nodes)
    dtype = torch.float32 if asks else torch.float64
    small, inputs = cut(net, keep, coupling), inputs_for(net, dtype=dtype)
    wanted = masked(net, coupling, keep, inputs).outputs
    with torch.no_grad():
        got = small.to_module().to(dtype)(*inputs)
    for mine, its in zip((got,) if isinstance(got, Tensor) else got, wanted, strict=True):
        assert mine.shape == its.shape
        assert float((mine - its).abs().max()) <= 1e-5 * max(float(its.abs().max()), 1e-6)
    return small
