"""Weights that are next to nothing beside their bias, as batch norms with a scale near zero leave them when folded.

A converter that stores a bias as an integer in steps of (the input's step x the weights' step) has no number for it
then: 32 bits overflow, and the outputs are garbage.
"""

import torch
from torch import Tensor

from slimwright.graph.net import Net

LEAST = 2.0**-12  # of the bias: steps of a 127th of it, times an input's step of 1e-3, count to 2**29


def with_steps_for_biases(net: Net) -> Net:
    """Return the net with one weight of each such row raised to `LEAST` of its bias; the same net where there is none.

    What a row gives moves by that share of its bias, times an input; in INT8 that is less than half a step.
    """
    raised: dict[str, Tensor] = {}
    for node in net.weighted():
        weight, bias = net.tensor(node, "weight"), net.tensor(node, "bias")
        if weight is None or bias is None:
            continue
        rows = weight.flatten(1)
        least = bias.abs() * LEAST
        faint = rows.abs().amax(1) < least
        if bool(faint.any()):
            first = torch.where(faint, least, rows[:, 0])
            raised[node.tensors["weight"]] = torch.cat([first[:, None], rows[:, 1:]], 1).reshape(weight.shape)
    return net.edited(tensors=raised) if raised else net
