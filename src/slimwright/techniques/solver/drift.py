"""Where a draft departs from its reference: the nodes that differ, and all that read them."""

from collections import Counter
from collections.abc import Set

import torch

from slimwright.graph.net import Net, Node
from slimwright.techniques.solver.draft import Draft


def drifted(draft: Draft, also: Set[str] = frozenset()) -> set[str]:
    """Return the values of the draft that are not the reference's of that name, or will not be once it is solved.

    So are those of the nodes `also`, whatever they are.

    All calls of a layer are solved together, so none of them stays where one does not.
    """
    net = draft.net
    found = {node.name for node in net.nodes if node.op != "input" and (node.name in also or _differs(draft, node))}
    while True:
        for node in net.nodes:
            if not found.isdisjoint(node.reads):
                found.add(node.name)
        together = {call for calls in net.layers.values() if not found.isdisjoint(calls) for call in calls}
        if together <= found:
            return found
        found |= together


def shared(net: Net) -> set[str]:
    """Return the nodes that own a tensor together with another one."""
    owners = Counter(tensor for node in net.nodes for tensor in node.tensors.values())
    return {node.name for node in net.nodes if any(owners[tensor] > 1 for tensor in node.tensors.values())}


def is_part(draft: Draft, node: Node) -> bool:
    """True for a layer that owns some of the rows of the reference's layer that it stands for, as they were."""
    origin = draft.origins.get(node.name)
    if origin is None or len(origin.values) > 1:
        return False
    was = draft.reference[origin.values[0]]
    if was.tensors.keys() != node.tensors.keys() or was.op != node.op:
        return False
    rows = slice(None) if origin.kept is None else origin.kept
    return all(
        torch.equal(draft.reference.tensors[was.tensors[role]][rows], draft.net.tensors[name])
        for role, name in node.tensors.items()
    )


def _differs(draft: Draft, node: Node) -> bool:
    """True where a node is not the one of its name in the reference."""
    if node.name not in draft.reference.readers or draft.reference[node.name].op != node.op:
        return True
    was = draft.reference[node.name]
    if was.arguments != node.arguments or was.tensors.keys() != node.tensors.keys():
        return True
    return any(
        not torch.equal(draft.reference.tensors[was.tensors[role]], draft.net.tensors[name])
        for role, name in node.tensors.items()
    )
