"""What a policy is told of layers: one vector each, of the same form for every network, so that policies transfer.

The paper's layer tuple (Pahwa et al. 2019: type, kernel, stride, outputs, padding, where a skip starts and ends), and
the input channels, the positions, the share of all work, and the place in the net. Counts are given as logarithms.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from slimwright.cost import count_layers
from slimwright.coupling.channels import ChannelGroup
from slimwright.graph import Net, Node
from slimwright.search.policies.ground import Ground
from slimwright.techniques.remove import ancestors

KINDS = ("conv2d", "depthwise", "linear", "add", "mul")
WIDTH = len(KINDS) + 11
COUNTS = 10.0  # log2 of a large number of channels, or of positions along one side


def layer_features(net: Net, names: Sequence[str]) -> Tensor:
    """Return the features [T, WIDTH] of some nodes of a net."""
    macs = {layer.name: layer.macs for layer in count_layers(net)}
    place = {node.name: number / len(net.nodes) for number, node in enumerate(net.nodes)}
    sums = {node.name for node in net.nodes if node.op in ("add", "mul")}
    rows = []
    for name in names:
        node = net[name]
        work = macs[name] or sum(macs[each] for each in _branch(net, node))
        skips = [float(sum(reader in sums for reader in net.readers[name]) > 0), float(name in sums)]
        skips.append(float(len(net.readers[name]) > 1))
        rows.append([*_shape(net, node), *skips, work / max(sum(macs.values()), 1), place[name]])
    return torch.tensor(rows, dtype=torch.float32).reshape(len(names), WIDTH)


def group_features(ground: Ground) -> Tensor:
    """Return the features [T, WIDTH + 1] of the layer that first computes each knob's channels, and their number."""
    groups = {group.name: group for group in ground.menu.observed.coupling.groups}
    owners = [_owner(ground.net, groups[key]) for key in ground.keys]
    sizes = torch.tensor([[math.log2(groups[key].size + 1) / COUNTS] for key in ground.keys])
    return torch.cat([layer_features(ground.net, owners), sizes.reshape(len(owners), 1)], 1)


def _owner(net: Net, group: ChannelGroup) -> str:
    """The first weighted layer that computes a group, or else that reads it."""
    weighted = {node.name for node in net.weighted()}
    cuts = [cut for cut in (*group.of("out"), *group.cuts) if cut.node in weighted]
    return cuts[0].node if cuts else group.cuts[0].node


def _shape(net: Net, node: Node) -> list[float]:
    """Kind, kernel, stride, padding, channels, positions."""
    kind, kernel, stride, padding = node.op, 1.0, 1.0, 0.0
    inputs = net[node.reads[0]].shape[1] if node.reads and len(net[node.reads[0]].shape) > 1 else 1
    if node.op == "conv2d":
        weight = net.tensors[node.tensors["weight"]]
        kind = "depthwise" if node.arguments["groups"] != 1 else "conv2d"
        kernel, stride = float(weight.shape[-1]), float(_first(node.arguments["stride"]))
        padded = node.arguments["padding"]
        padding = (kernel - 1) / 2 if isinstance(padded, str) else float(_first(padded))
    outputs = node.shape[1] if len(node.shape) > 1 else 1
    pixels = math.prod(node.shape[2:])
    counts = [math.log2(value + 1) / COUNTS for value in (inputs, outputs)]
    one_hot = [float(kind == each) for each in KINDS]
    return [*one_hot, math.log2(kernel + 1) / 3, stride - 1, padding / 3, *counts, math.log2(pixels + 1) / 2 / COUNTS]


def _branch(net: Net, node: Node) -> list[str]:
    """The nodes between a sum and what its two sides have in common."""
    if len(node.reads) != 2:
        return []
    sides = [{name} | ancestors(net, name) for name in node.reads]
    return sorted(sides[0] ^ sides[1])


def _first(value: object) -> int:
    return int(value[0]) if isinstance(value, tuple | list) else int(value)  # type: ignore[call-overload]
