"""Sends channel identities through a net: a function for each passage of `ops.py`."""

from collections import Counter
from collections.abc import Callable, Mapping

import numpy as np

from slimwright.coupling.identities import Identities
from slimwright.coupling.identity_layers import convolved, each, mixed, normed, recurrent, scaled, shuffled
from slimwright.coupling.identity_moves import concatenated, moved_by
from slimwright.coupling.identity_sharing import unite_shared
from slimwright.coupling.identity_sums import contracted, reduced, softmaxed
from slimwright.coupling.identity_values import fixed, item, joined, parameter, windowed
from slimwright.coupling.views import Ids
from slimwright.graph.net import Net
from slimwright.graph.node import Node
from slimwright.graph.ops import Passage, op_of


def identities_of(net: Net) -> Identities:
    """Return the identities of every value of a net, and what its operators say of them."""
    said = Identities(net, shared=_shared(net))
    for node in net.nodes:
        passage = op_of(node.op).channels
        if passage not in ("move", "scalar"):
            for name in node.reads:
                said.must_be_rectangular(name)
        said.values[node.name] = PASSAGES[passage](said, node)
    unite_shared(said)
    for name in net.outputs:
        said.must_be_rectangular(name)
        said.claims.freeze(said.values[name], "the net returns them")
    return said


def _given(said: Identities, node: Node) -> Ids:
    ids = said.claims.new([n if axis == 1 else 1 for axis, n in enumerate(node.shape)])
    said.claims.freeze(ids, "they are the image" if len(said.net.inputs) == 1 else f"they are the input '{node.name}'")
    return ids


def _joined(said: Identities, node: Node) -> Ids:
    return joined(said, node, [(said.values[name], said.net[name].shape) for name in node.reads], node.shape)


PASSAGES: Mapping[Passage, Callable[[Identities, Node], Ids]] = {
    "input": _given,
    "parameter": parameter,
    "mix": mixed,
    "each": lambda said, node: each(said, node, said.values[node.source]),
    "norm": normed,
    "join": _joined,
    "window": windowed,
    "move": moved_by,
    "concat": concatenated,
    "reduce": reduced,
    "softmax": softmaxed,
    "contract": contracted,
    "convolve": convolved,
    "recurrent": recurrent,
    "scale": scaled,
    "shuffle": shuffled,
    "scalar": lambda said, node: np.zeros((0,), np.int64),
    "fixed": lambda said, node: item(said, node) if node.op == "item" else fixed(said, node),
}


def _shared(net: Net) -> frozenset[str]:
    """Nodes that own a tensor together with another node."""
    owners = Counter(tensor for node in net.nodes for tensor in node.tensors.values())
    return frozenset(node.name for node in net.nodes if any(owners[tensor] > 1 for tensor in node.tensors.values()))
