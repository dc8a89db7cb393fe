"""Which values of a net a runtime holds as integers, and the net that computes with their levels.

Integer kernels read and give levels. So every value between them stands on levels too: what layers with few bits read
and give, and what sums, concatenations, poolings and moves make of such values. An activation that a kernel applies on
the way out (ReLU, ReLU6) shares the levels of what it gives; what only moves or picks numbers keeps those that it has.
What a net gives by a linear layer stays as it is: no kernel reads it.

Such a value is followed by a `fake_quantize`, which rounds it to its levels. Source of the scheme: Jacob et al. 2018
(arXiv 1712.05877).
"""

from collections.abc import Mapping, Set
from dataclasses import replace

from slimwright.graph import Net, Node
from slimwright.graph.levels import Levels
from slimwright.graph.node import renamed
from slimwright.graph.ops import op_of
from slimwright.techniques.solver.draft import Draft, Origin

FUSED = ("relu", "relu6", "hardtanh")
PICKS = ("max_pool2d",)  # give some of the numbers that they read
COMPUTES = (*FUSED, "add", "mul", "concat", "avg_pool2d", "adaptive_avg_pool2d", "mean", "leaky_relu", *PICKS)


def integer_values(net: Net, layers: Set[str]) -> dict[str, str]:
    """Return the values that stand on levels, where `layers` have few bits, each with the value whose levels it has."""
    found: dict[str, str] = {}
    wanted = {net[layer].source for layer in layers}
    for node in net.nodes:
        if not _can_be(net, node, layers, found) and node.name not in wanted:
            continue
        if node.dtype != "float32" or _is_fused(net, node) or _ends(net, node):
            continue
        keeps = op_of(node.op).channels == "move" or node.op in PICKS
        found[node.name] = found[node.source] if keeps and node.source in found else node.name
    return found


def on_levels(net: Net, values: Mapping[str, str], levels: Mapping[str, Levels]) -> Draft:
    """Return the draft, of `net`, whose `values` stand on the levels of those that they name."""
    instead: dict[str, str] = {}
    added = []
    for value, like in values.items():
        name = f"{value}_levels"
        while name in net.readers:
            name += "_"
        instead[value] = name
        added.append(levels[like].node(name, value))

    def read(name: str) -> str:
        return instead.get(name, name)

    changed = {
        node.name: replace(node, arguments={key: renamed(value, read) for key, value in node.arguments.items()})
        for node in net.nodes
        if not instead.keys().isdisjoint(node.reads)
    }
    made = replace(net.edited(changed, added=added), outputs=tuple(map(read, net.outputs)))
    return Draft.of(net).changed(made, {name: Origin((value,)) for value, name in instead.items()})


def _can_be(net: Net, node: Node, layers: Set[str], known: Mapping[str, str]) -> bool:
    """True where integers come in, and a kernel for them gives integers."""
    op = op_of(node.op)
    if op.channels == "mix":
        return node.name in layers
    if op.channels != "move" and node.op not in COMPUTES:
        return False
    return all(
        read in known or (_is_fused(net, net[read]) and _can_be(net, net[read], layers, known)) for read in node.reads
    )


def _is_fused(net: Net, node: Node) -> bool:
    """True where the one node that reads it is an activation that the kernel applies on the way out."""
    readers = net.readers[node.name]
    computes = op_of(node.op).channels == "mix" or node.op == "add"
    return computes and len(readers) == 1 and net[readers[0]].op in FUSED and node.name not in net.outputs


def _ends(net: Net, node: Node) -> bool:
    """True for a linear layer whose result is the net's and nothing else reads."""
    return node.op == "linear" and node.name in net.outputs and not net.readers[node.name]
