"""Regions of a changed net: one value in, one value out, and what that stands for in the original."""

from collections.abc import Sequence
from dataclasses import dataclass

from slimwright.errors import RequestError
from slimwright.graph.net import Net, Node, checked
from slimwright.graph.ops import op_of
from slimwright.train.loss import Match

LAYERS = 4  # our measurement of 2026-11-21: on a resnet8 without 70 and 90 % of its channels, 1 and 8 points above 2


@dataclass(frozen=True)
class Region:
    """The nodes of a changed net between the value `start`, which they read, and `end`, which they give."""

    start: str
    end: Match


def part_of(net: Net, region: Region) -> Net:
    """Return a region as a net that takes its start for an image. Raises RequestError for another way in or out."""
    start, end = region.start, region.end.value
    name = f"the region from '{start}' to '{end}'"
    wanted, inside = {end}, dict[str, Node]()
    for node in reversed(net.nodes):
        if node.name in wanted and node.name != start:
            inside[node.name] = node
            wanted.update(node.reads)
    if start not in wanted or start == end:
        raise RequestError(f"there is no such region: '{end}' does not follow from '{start}'")
    if any(node.op == "input" for node in inside.values()):
        raise RequestError(f"{name} reads more of the net than '{start}'; let it start further in front")
    for node in inside.values():
        out = [reader for reader in net.readers[node.name] if reader not in inside]
        out += ["the result"] if node.name in net.outputs else []
        if out and node.name != end and op_of(node.op).channels != "parameter":
            raise RequestError(f"{name} holds '{node.name}', which goes into {out[0]} too; let it end there, or later")
    nodes = (Node(start, "input", shape=net[start].shape, dtype=net[start].dtype), *reversed(inside.values()))
    owned = {tensor for node in nodes for tensor in node.tensors.values()}
    return checked(Net(nodes, {tensor: net.tensors[tensor] for tensor in owned}, (end,)))


def regions_in(changed: Net, matches: Sequence[Match], *, layers: int = LAYERS) -> list[Region]:
    """Return regions, one behind the other, that end in values of `matches` and hold at least so many weighted layers.

    Each lies between two waists: values that all that follows depends on, and on nothing else. A region ends as late
    as it can without one layer more, so behind its activation and pooling. The last may hold fewer layers; those
    behind the last match are in none, and so are those in front of the waist behind the last of several inputs.
    """
    matched = {match.value: match for match in matches}
    place = {node.name: step for step, node in enumerate(changed.nodes)}
    used = {name: max((place[reader] for reader in readers), default=0) for name, readers in changed.readers.items()}
    used |= dict.fromkeys(changed.outputs, len(place))
    inputs = [node.name for node in changed.nodes if node.op == "input"]
    found: list[Region] = []
    start, end, open_until = inputs[0] if len(inputs) == 1 else "", "", place[inputs[-1]]
    weighted = held = 0  # layers behind `start`, up to here and up to `end`
    for step, node in enumerate(changed.nodes):
        channels = op_of(node.op).channels
        if channels == "mix" and held >= layers:
            found.append(Region(start, matched[end]))
            start, weighted, held = end, weighted - held, 0
        weighted += channels == "mix"
        waist = step >= open_until and node.op != "input" and channels != "parameter"
        if waist and not start:
            start, weighted = node.name, 0
        elif waist and node.name in matched and weighted:
            end, held = node.name, weighted
        if channels != "parameter":
            open_until = max(open_until, used[node.name])
    return [*found, Region(start, matched[end])] if held else found
