"""Channels between two layers made alike in range, by factors that cancel: for levels that all channels share.

Where channel i of one layer is all that channel i of the next one reads, and what lies between gives s times as much
for s times as much (ReLU, poolings, views), the first layer's row and bias over s and the next one's column times s
leave the function as it is (Nagel et al. 2019, arXiv 1906.04721, sec. 4.1). Factors are powers of two: where float32
neither overflows nor gets too small, the scores are the same bits.

Runtimes give each row of a layer a scale of its own, so rows need nothing. What shares levels are the channels of a
value, whose largest values a calibration shows, and the columns within a row. Between them lies s = sqrt(a / b), for
the largest value a of a channel and the largest share b of its column in any row (as Xiao et al. 2023, arXiv
2211.10438, have it for linear layers); a depthwise layer has one column a row, and s = a.

ReLU6 keeps its bound: a channel that comes near to it on calibration images stays, and no other is brought there. So
the scores stay as long as no other image drives a channel over that, by more than `MARGIN`.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from slimwright.coupling import Coupling, couple
from slimwright.coupling.views import Ids
from slimwright.data import Inputs
from slimwright.graph import Net, Node
from slimwright.lowering.scaled import KEEP_SCALE
from slimwright.techniques.ranges import values_seen

MARGIN = 1.25  # of a bound, over what calibration images reach
MOST = 8  # doublings of a channel, either way
KEEP = frozenset(KEEP_SCALE) - {"concat"}
CUTS = ("relu", "relu6", "hardtanh")


@dataclass(frozen=True)
class Pair:
    """Two layers, the channel that each output of the first and each input of the second is, and what lies between."""

    first: Node
    second: Node
    made: Ids  # [O of the first]
    read: Ids  # [I of the second]
    between: tuple[Node, ...]

    @property
    def cuts(self) -> bool:
        """True where nothing below zero passes."""
        return any(node.op in CUTS for node in self.between)

    @property
    def bound(self) -> float:
        """Above which nothing passes."""
        return min(map(_bound, self.between), default=math.inf)


def pairs(net: Net) -> Iterator[Pair]:
    """Yield the pairs of layers whose channels may be scaled, in execution order."""
    coupling = couple(net)
    for node in net.weighted():
        second, between = _behind(net, node)
        if second is None or any(_is_held(coupling, each) for each in (node, second)):
            continue
        made, read = _channels(coupling, node, "out"), _channels(coupling, second, "in")
        inputs = net.tensors[second.tensors["weight"]].shape[1] * int(str(second.arguments.get("groups", 1)))
        if len(read) > inputs:  # depthwise: a place for each output
            read = read[:: len(read) // inputs]
        if len(made) == node.shape[_axis(node)] and len(read) == inputs and np.isin(read, made).all():
            yield Pair(node, second, made, read, between)


def equalised(net: Net, inputs: Inputs) -> Net:
    """Return the net with channels scaled, by their largest values on inputs, each [N, ...]; the same net if none is.

    Batch norms must be folded.
    """
    found = list(pairs(net))
    highs: dict[str, Tensor] = {}
    lows: dict[str, Tensor] = {}
    for values in values_seen(net, inputs, [pair.first.name for pair in found]):
        for name, value in values.items():
            rows = value.movedim(_axis(net[name]), 0).flatten(1)
            highs[name] = torch.maximum(rows.amax(1), highs.get(name, torch.zeros(1)))
            lows[name] = torch.minimum(rows.amin(1), lows.get(name, torch.zeros(1)))
    tensors: dict[str, Tensor] = {}
    for pair in found:
        first, second = ({**pair.first.tensors}, pair.second.tensors["weight"])
        largest = highs[pair.first.name]
        if not pair.cuts:
            largest = torch.maximum(largest, -lows[pair.first.name])
        weight = tensors.get(second, net.tensors[second])
        made, read = _factors(pair, largest, weight)
        if bool((made == 1).all()):
            continue
        for name in first.values():
            tensor = tensors.get(name, net.tensors[name])
            tensors[name] = tensor / made.reshape(-1, *[1] * (tensor.ndim - 1))
        tensors[second] = weight * _by_column(weight, read).reshape(*weight.shape[:2], *[1] * (weight.ndim - 2))
    return net.edited(tensors=tensors) if tensors else net


def _factors(pair: Pair, largest: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """The factors [O] and [I] of a pair's channels, by the largest value of each [O] and the second's weight."""
    channels, made = np.unique(pair.made, return_inverse=True)
    read = np.searchsorted(channels, pair.read)
    reach = _largest_of(made, largest, len(channels))
    bound = pair.bound
    values = reach.clamp_max(bound)
    rows = weight.reshape(*weight.shape[:2], -1).abs().amax(2)  # [O, I/groups]
    shares = rows / rows.amax(1, keepdim=True).clamp_min(torch.finfo(torch.float32).tiny)
    by_group = shares.reshape(len(read) // weight.shape[1], -1, weight.shape[1]).amax(1).flatten()  # [I]
    column = _largest_of(read, by_group, len(channels))
    alive = (values > 0) & (column > 0)
    if not bool(alive.any()):
        return torch.ones(len(made)), torch.ones(len(read))
    wanted = torch.where(alive, values / column, 1.0).log2()
    wanted = wanted if weight.shape[1] == 1 else wanted / 2
    highest = torch.where(alive, values.log2() - wanted, -math.inf).max()
    wanted = (wanted + highest - values[alive].max().log2()).round()  # the largest value stays as large
    if bound < math.inf:
        least = (reach * MARGIN / bound).log2().ceil()
        alive &= least <= 0
        wanted = torch.maximum(wanted, least)
    factors = torch.where(alive, wanted.clamp(-MOST, MOST), 0.0).exp2()
    return factors[made], factors[read]


def _largest_of(places: Ids, values: Tensor, count: int) -> Tensor:
    """The largest of the values [n] at each of so many places [n]; zero where there is none."""
    return torch.zeros(count).scatter_reduce(0, torch.from_numpy(places), values, "amax")


def _by_column(weight: Tensor, read: Tensor) -> Tensor:
    """The factor of each column [O, I/groups] of a weight, by those of what is read [I]."""
    each = read.reshape(-1, weight.shape[1])  # [groups, I/groups]
    return each.repeat_interleave(len(weight) // len(each), 0)


def _behind(net: Net, first: Node) -> tuple[Node | None, tuple[Node, ...]]:
    """The one layer that reads what a layer gives, and what lies between; None where anything else reads it."""
    value, between = first.name, list[Node]()
    while len(net.readers[value]) == 1 and value not in net.outputs:
        node = net[net.readers[value][0]]
        if node in net.weighted():
            return node, tuple(between)
        if node.op not in KEEP and _bound(node) == math.inf:
            break
        between.append(node)
        value = node.name
    return None, ()


def _bound(node: Node) -> float:
    """Above which a node lets nothing pass that it does not scale; infinity where there is none."""
    if node.op == "relu6":
        return 6.0
    if node.op == "hardtanh" and node.arguments["min_val"] == 0:
        return float(str(node.arguments["max_val"]))
    return math.inf


def _axis(node: Node) -> int:
    return 1 if node.op == "conv2d" else len(node.shape) - 1


def _channels(coupling: Coupling, node: Node, role: str) -> Ids:
    places = coupling.places
    return places.get((node.name, role), places.get((node.name, "each"), np.zeros(0, np.int64)))


def _is_held(coupling: Coupling, node: Node) -> bool:
    """True for a layer whose weights others own, too, or that are fixed."""
    return node.name in coupling.identities.shared or bool(node.fixed)
