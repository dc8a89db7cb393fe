"""Values that half precision can hold.

It ends at 65,504 (IEEE 754 binary16); beyond lies infinity, and behind that what is no number. Networks whose batch
norms were never trained get there: ShuffleNet as it is initialised reaches 126,451 at 224x224 pixels.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from slimwright.graph import Net, random_inputs
from slimwright.lowering.scaled import with_values_scaled

HALF_MOST = 65504.0
ROOM = 4.0  # how many times as large the values of other images may be
AIMED_AT = 4096.0  # the largest value of a scaled network: 16 times as large still fits
IMAGES = 2


def within_half(net: Net) -> Net:
    """Return the net with its inner values scaled by a power of two if they come near the end of half precision.

    Looked at on random inputs of mean 0 and variance 1. The same net where values are small enough.
    """
    largest = max(largest_values(net, random_inputs(net, IMAGES, seed=0)).values())
    if largest <= HALF_MOST / ROOM or not math.isfinite(largest):
        return net
    return with_values_scaled(net, 2.0 ** math.floor(math.log2(AIMED_AT / largest)))


def largest_values(net: Net, inputs: Sequence[Tensor]) -> dict[str, float]:
    """Return the largest absolute value of each node over inputs, each [N, ...]; infinite where one is no number."""
    watching = _Watching(net.to_module())
    with torch.no_grad():
        watching.run(*inputs)
    most = dict(zip((node.name for node in net.nodes), watching.most, strict=True))
    return {name: value for name, value in most.items() if value is not None}


class _Watching(torch.fx.Interpreter):
    """Runs a module, and keeps the largest absolute value of each step in turn; None for what is no tensor."""

    def __init__(self, module: torch.fx.GraphModule) -> None:
        super().__init__(module)
        self.most: list[float | None] = []

    def run_node(self, n: torch.fx.Node) -> Any:
        """Run one step and look at what it gives."""
        value = super().run_node(n)
        if n.op != "output":
            counts = isinstance(value, Tensor) and value.is_floating_point() and value.numel() > 0
            self.most.append(float(value.abs().max().nan_to_num(nan=torch.inf)) if counts else None)
        return value
