"""Weights that are too small for how a converter stores them, beside their bias or by themselves.

Batch norms with a scale near zero leave rows that are next to nothing beside their bias when they are folded. A
converter that stores a bias as an integer in steps of (the input's step x the weights' step) has no number for it then:
32 bits overflow, and the outputs are garbage. And a net whose values are in the thousands has small weights in all rows
of a layer; a converter that takes no step below some number makes garbage of them, too.
"""

import math
from dataclasses import replace

import torch
from torch import Tensor

from slimwright.graph.net import Net, Node, Ref

DEAD = 2.0**-12  # of a layer's largest weight: rows that are smaller do not count
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


def with_steps_for_weights(net: Net, least: float) -> Net:
    """Return the net with what layers read made smaller, and their weights larger, where a 127th of a row is too small.

    Both by a power of two, so that a row's step is `least`; rows that are next to nothing in their layer do not count.
    """
    changed, added, tensors = {}, [], {}
    for node in net.weighted():
        weight = net.tensors[node.tensors["weight"]]
        rows = weight.flatten(1).abs().amax(1)
        steps = rows[rows > DEAD * rows.max()] / 127
        if not len(steps) or float(steps.min()) >= least:
            continue
        times = 2.0 ** math.ceil(math.log2(least / float(steps.min())))
        smaller, larger = Ref(f"{node.name}_smaller"), f"{node.name}_larger.weight"
        added.append(Node(smaller.name, "mul", {"self": Ref(node.source), "other": 1 / times}))
        tensors[larger] = weight * times
        arguments = {key: smaller if value == Ref(node.source) else value for key, value in node.arguments.items()}
        changed[node.name] = replace(node, arguments=arguments, tensors={**node.tensors, "weight": larger})
    return net.edited(changed, added=added, tensors=tensors) if changed else net
