"""Channel identities at operators that only put elements elsewhere, and at concatenations."""

from typing import Any

import numpy as np

from slimwright.coupling.identities import Identities, tracked
from slimwright.coupling.identity_values import fixed, joined
from slimwright.coupling.views import Ids, moved
from slimwright.graph.node import Node


def moved_by(said: Identities, node: Node) -> Ids:
    """Return the identities of what an operator gives that only puts elements elsewhere."""
    source = node.source
    read = said.values[source]
    arguments = said.constants(node)
    picked = [axis for axis in tracked(read) if axis in rearranged_axes(node)]
    if len(tracked(read)) > 1:
        read = said.claims.merged(read, picked)
    ids = moved(node.op, arguments, read, said.net[source].shape, node.shape)
    alone = picked == tracked(read) != []
    if ids is None or (ids.size == 1 and node.op == "expand") or (alone and not _can_gather(said, source, node, ids)):
        return fixed(said, node)
    if ids.size == 1 < read.size:
        said.claims.freeze(ids, f"'{node.name}' picks it alone")
    chain = said.chains.get(source, (source,) if len(tracked(read)) == 1 else ())
    said.values[node.name] = ids
    if len(tracked(ids)) > 1:
        if chain:
            said.chains[node.name] = (*chain, node.name)
    elif source in said.chains and not _can_gather(said, chain[0], node, ids):
        said.must_be_rectangular(source)
    return ids


def _can_gather(said: Identities, origin: str, node: Node, ids: Ids) -> bool:
    """True where one gather along one dimension can stand for all moves since `origin`."""
    (axis,) = tracked(said.values[origin])
    before, after = (list(shape) for shape in (said.net[origin].shape, node.shape))
    if tracked(ids) != [axis] or len(before) != len(after):
        return False
    del before[axis], after[axis]
    return before == after


def concatenated(said: Identities, node: Node) -> Ids:
    """Return the identities of values put side by side."""
    axis = int(str(node.arguments["dim"])) % len(node.shape)
    parts = [said.values[name] for name in node.reads]
    sizes = [said.net[name].shape[axis] for name in node.reads]
    blank = any(ids.shape[axis] == 1 < size for ids, size in zip(parts, sizes, strict=True))
    if blank:
        parts = [said.claims.merged(ids, [axis]) if len(tracked(ids)) > 1 else ids for ids in parts]
    if all(axis not in tracked(ids) for ids in parts) and any(tracked(ids) for ids in parts):
        return joined(said, node, [(ids, said.net[n].shape) for ids, n in zip(parts, node.reads, strict=True)],
                            tuple(1 if i == axis else n for i, n in enumerate(node.shape)))  # fmt: skip
    rest = np.broadcast_shapes(*(tuple(1 if i == axis else n for i, n in enumerate(p.shape)) for p in parts))
    whole = [
        np.broadcast_to(ids, [size if i == axis else n for i, n in enumerate(rest)])
        for ids, size in zip(parts, sizes, strict=True)
    ]
    return np.concatenate(whole, axis=axis)


def rearranged_axes(node: Node) -> tuple[int, ...]:
    """The dimensions along which a move picks entries in an order of its own, which no new sizes could say."""
    match node.op.removeprefix("aten.").partition(".")[0]:
        case "index":
            indices: Any = node.arguments["indices"]
            return tuple(axis for axis, index in enumerate(indices) if index is not None)
        case "roll" | "flip":
            dims: Any = node.arguments["dims"]
            return tuple(dims)
        case "slice" if node.arguments["step"] != 1:
            return (int(str(node.arguments["dim"])),)
    return ()
