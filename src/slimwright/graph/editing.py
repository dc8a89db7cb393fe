"""Lists of nodes, changed: what stands in a node's place, what its readers read instead, and the order of it all."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from slimwright.errors import ModelError
from slimwright.graph.node import Node, renamed


def edited(
    nodes: Sequence[Node],
    outputs: Sequence[str],
    changed: Mapping[str, Node],
    removed: Mapping[str, str],
    added: Sequence[Node],
) -> tuple[tuple[Node, ...], tuple[str, ...]]:
    """Return nodes and outputs with nodes changed, removed and added; see `Net.edited`."""
    new = {node.name for node in added}

    def instead(name: str) -> str:
        while name in removed and name not in new:
            name = removed[name]
        return name

    kept = tuple(
        replace(node, arguments={k: renamed(v, instead) for k, v in node.arguments.items()})
        for node in (changed.get(n.name, n) for n in nodes if n.name not in removed)
    )
    return (in_order((*kept, *added)) if added else kept), tuple(map(instead, outputs))


def renamed_nodes(
    nodes: Sequence[Node], outputs: Sequence[str], called: Mapping[str, str]
) -> tuple[tuple[Node, ...], tuple[str, ...]]:
    """Return nodes and outputs in which the nodes named in `called` have its names."""

    def name_of(name: str) -> str:
        return called.get(name, name)

    new = tuple(
        replace(node, name=name_of(node.name), arguments={k: renamed(v, name_of) for k, v in node.arguments.items()})
        for node in nodes
    )
    return new, tuple(map(name_of, outputs))


def in_order(nodes: Sequence[Node]) -> tuple[Node, ...]:
    """Return nodes as they stand, but every one after what it reads.

    Raises ModelError for a circle, naming a node of it, and for a name that two nodes have.
    """
    by_name = {node.name: node for node in nodes}
    if len(by_name) != len(nodes):
        raise ModelError("two nodes have the same name; give the added ones names of their own")
    ordered: dict[str, Node] = {}
    for first in nodes:
        waiting, entered = [first], set()
        while waiting:
            node = waiting[-1]
            missing = [by_name[name] for name in node.reads if name in by_name and name not in ordered]
            if node.name in ordered or not missing:
                ordered.setdefault(node.name, node)
                waiting.pop()
            elif node.name in entered:
                raise ModelError(f"node '{node.name}' reads its own result, in a circle with '{missing[0].name}'")
            else:
                entered.add(node.name)
                waiting.extend(reversed(missing))
    return tuple(ordered.values())
