"""Channel identities at operators on elements: sums and products, windows, parameters, and what is not followed."""

from collections.abc import Sequence

import numpy as np

from slimwright.coupling.identities import Identities, tracked
from slimwright.coupling.identity_sharing import belongs_to_a_layer
from slimwright.coupling.views import Ids, Shape
from slimwright.graph.node import Node

MOST_ELEMENTS = 2**19  # of a bare parameter whose elements are told apart


def fixed(said: Identities, node: Node) -> Ids:
    """Freeze what an operator reads that is not followed; return one identity for its result."""
    why = f"'{node.name}' ({node.op}) mixes them"
    for name in node.reads:
        said.claims.freeze(said.values[name], why)
    return said.claims.unknown(len(node.shape), why)


def item(said: Identities, node: Node) -> Ids:
    """Return one of several results."""
    ids = said.values[node.source]
    return ids if ids.ndim == len(node.shape) else fixed(said, node)


def parameter(said: Identities, node: Node) -> Ids:
    """Return the identities of a bare parameter: one for each element, if it is not too large."""
    tensor = said.net.tensors[node.tensors["value"]]
    if belongs_to_a_layer(said.net, node):
        return said.claims.unknown(len(node.shape), f"'{node.name}' belongs to a layer")  # which says where it is cut
    if not tensor.is_floating_point() or not 1 < tensor.numel() <= MOST_ELEMENTS or node.name in said.shared:
        return said.claims.unknown(len(node.shape), f"'{node.name}' is a tensor that is not followed")
    return said.claims.new(node.shape)


def joined(said: Identities, node: Node, values: Sequence[tuple[Ids, Shape]], result: Shape) -> Ids:
    """Say that channels of values [ids, shape] that are joined element by element into `result` are one."""
    rank = len(result)
    operands = [
        (ids.reshape((1,) * (rank - ids.ndim) + ids.shape), (1,) * (rank - len(shape)) + shape)
        for ids, shape in values
        if ids.size
    ]
    for axis, size in enumerate(result):
        if any(shape[axis] == size > ids.shape[axis] for ids, shape in operands):
            operands = [(_without(said, node, ids, axis), shape) for ids, shape in operands]
    axes = {axis for ids, _ in operands for axis in tracked(ids)}
    arrays: list[Ids] = []
    for ids, shape in operands:
        if ids.size == 1 and any(shape[axis] == 1 for axis in axes):
            said.claims.freeze(ids, f"'{node.name}' spreads them over all channels")
        else:
            arrays.append(ids)
    if not arrays:
        return said.claims.unknown(rank, f"'{node.name}' is not followed")
    for other in arrays[1:]:
        said.claims.unite(arrays[0], other)
    return np.broadcast_arrays(*arrays)[0]


def _without(said: Identities, node: Node, ids: Ids, axis: int) -> Ids:
    """Identities that cannot be told apart along a dimension, because another value there cannot be cut."""
    if ids.shape[axis] == 1:
        return ids
    if len(tracked(ids)) > 1:
        return said.claims.merged(ids, [axis])
    said.claims.freeze(ids, f"'{node.name}' joins them with what cannot be cut")
    return ids.take([0], axis)


def windowed(said: Identities, node: Node) -> Ids:
    """Return what comes out of a pooling or padding."""
    read = said.values[node.source]
    reached = [axis for axis in tracked(read) if axis in _windowed_axes(node)]
    if read.ndim != len(node.shape) or reached == tracked(read) != []:
        return fixed(said, node)
    return said.claims.merged(read, reached)


def _windowed_axes(node: Node) -> list[int]:
    """The dimensions along which a window or padding reaches: those with padding, or the last one, two or three."""
    rank = len(node.shape)
    pad = node.arguments.get("pad")
    if not isinstance(pad, tuple):
        dimensions = next((n for n in (1, 3) if f"{n}d" in node.op), 2)
        return [*range(rank - dimensions, rank)]
    return [rank - 1 - i // 2 for i, n in enumerate(pad) if n]
