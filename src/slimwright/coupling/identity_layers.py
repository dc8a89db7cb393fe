"""Channel identities at layers: convolutions, linear layers, and norms."""

import math

import numpy as np

from slimwright.coupling.identities import Balance, Identities, Place, tracked
from slimwright.coupling.identity_sharing import belongs_to_a_layer, parameter_of, tensors_of
from slimwright.coupling.identity_values import fixed
from slimwright.coupling.views import Ids
from slimwright.graph.node import Node


def mixed(said: Identities, node: Node) -> Ids:
    """Return the identities of what a convolution or linear layer makes."""
    read = said.values[node.source]
    axis = 1 if node.op == "conv2d" else len(node.shape) - 1
    weight = said.net.tensors[node.tensors["weight"]]
    groups = int(str(node.arguments.get("groups", 1)))
    if groups > 1 and weight.shape[1] == 1 and read.shape[axis] == groups and len(tracked(read)) == 1:
        ids = np.repeat(read.reshape(-1), weight.shape[0] // groups)
        said.claims.places.append(Place(node.name, "each", ids))
        return ids.reshape(1, -1, 1, 1)
    return _new_channels(said, node, read, axis, groups, weight.shape[0])


def _new_channels(said: Identities, node: Node, read: Ids, axis: int, groups: int, size: int) -> Ids:
    inputs = said.net[node.source].shape[axis]
    made = said.claims.new([size if i == axis else 1 for i in range(len(node.shape))])
    said.claims.places.append(Place(node.name, "out", made.reshape(-1)))
    others = [i for i in tracked(read) if i != axis]
    if others and not _is_pointwise(said, node):
        said.claims.freeze(read, f"'{node.name}' slides over them")
        said.claims.freeze(made, f"'{node.name}' makes them of channels that it slides over")
        return made
    if others:  # what it reads has channels along another dimension, and they pass through
        read = said.claims.merged(read, [axis])
        said.claims.freeze(made, f"'{node.name}' makes them beside other channels")
        return read
    if read.shape[axis] == inputs:
        said.claims.places.append(Place(node.name, "in", read.reshape(-1)))
    else:
        said.claims.freeze(read, f"'{node.name}' reads them in a way that is not followed")
    if groups > 1:
        said.claims.balances.append(Balance(node.name, made.reshape(groups, -1)))
        if read.shape[axis] == inputs:
            said.claims.balances.append(Balance(node.name, read.reshape(groups, -1)))
    return made


def _is_pointwise(said: Identities, node: Node) -> bool:
    """True for a layer whose outputs lie where what it reads does."""
    if node.op != "conv2d":
        return True
    kernel = said.net.tensors[node.tensors["weight"]].shape[2:]
    return kernel == (1, 1) and node.shape[2:] == said.net[node.source].shape[2:]


def each(said: Identities, node: Node, read: Ids, axis: int = 1) -> Ids:
    """Return what comes out of a layer with one set of weights per channel, which lie along `axis`."""
    if read.shape[axis] == 1 < said.net[node.source].shape[axis]:
        return read
    if any(said.net.tensors[t].numel() != read.shape[axis] for t in node.tensors.values()):
        return read  # one weight for all
    read = said.claims.merged(read, [i for i in tracked(read) if i != axis])
    if node.tensors:
        said.claims.places.append(Place(node.name, "each", read.reshape(-1)))
    return read


def normed(said: Identities, node: Node) -> Ids:
    """Return what comes out of a norm that takes statistics over channels."""
    read = said.values[node.source]
    channels = said.net[node.source].shape[1]
    if node.op == "group_norm":
        groups = int(str(node.arguments["num_groups"]))
        if groups > 1 and math.prod(node.shape[2:]) == 1:
            said.claims.freeze(read, f"'{node.name}' takes statistics over single pixels")
        read = each(said, node, read)
        if read.shape[1] == channels and groups < channels:
            said.claims.flag(read, node)
            if groups > 1:
                said.claims.balances.append(Balance(node.name, read.reshape(groups, -1)))
        return read
    last = read.ndim - 1
    over = range(read.ndim - len(node.arguments["normalized_shape"]), read.ndim)  # type: ignore[arg-type]
    inside, outside = ([i for i in tracked(read) if (i in over) == where] for where in (True, False))
    if outside:
        return said.claims.merged(read, inside)
    if inside == [last] and len(over) == 1:
        said.claims.flag(read, node)
        return each(said, node, read, last)
    if inside:
        said.claims.freeze(read, f"'{node.name}' takes statistics over them and over pixels")
    return read


def convolved(said: Identities, node: Node) -> Ids:
    """Return the identities of what a carried convolution makes: one whose weights are parameters beside it."""
    read, transposed = said.values[node.source], is_transposed(node)
    owned = [parameter_of(said.net, node, role) for role in ("weight", "bias")]
    followed = all(belongs_to_a_layer(said.net, own) for own in owned if own)
    weight = owned[0]
    if weight is None or not followed or tracked(read) not in ([], [1]) or len(node.shape) != len(weight.shape):
        return fixed(said, node)
    groups = int(str(node.arguments["groups"]))
    made, inputs = node.shape[1], said.net[node.source].shape[1]
    if groups == inputs > 1 and read.shape[1] == inputs and (made == inputs or not transposed):
        ids = np.repeat(read.reshape(-1), made // inputs)
        said.claims.places.append(Place(node.name, "each", ids))
        return _along_channels(ids, node)
    if groups > 1 and transposed:
        return fixed(said, node)
    return _new_channels(said, node, read, 1, groups, made)


def recurrent(said: Identities, node: Node) -> Ids:
    """Return the identities of what a recurrent layer makes, which stay; those of each step that it reads may go."""
    read, inward = said.values[node.source], set(tensors_of(said.net, node).values())
    why = f"'{node.name}' ({node.op}) mixes them"
    owned = {
        name
        for name in node.reads[1:]
        if inward & set(said.net[name].tensors.values()) and belongs_to_a_layer(said.net, said.net[name])
    }
    ways = 1 + bool(node.arguments.get("bidirectional"))
    if tracked(read) == [2] and len(owned) == ways and read.shape[2] == said.net[node.source].shape[2]:
        said.claims.places.append(Place(node.name, "in", read.reshape(-1)))
    else:
        said.claims.freeze(read, why)
    for name in node.reads[1:]:
        said.claims.freeze(said.values[name], why)
    return said.claims.unknown(len(node.shape), why)


def scaled(said: Identities, node: Node) -> Ids:
    """Return what comes out of a carried norm of each channel: one whose weights are parameters beside it."""
    read = said.values[node.source]
    if tracked(read) not in ([], [1]):
        return fixed(said, node)
    for role in ("weight", "bias", "running_mean", "running_var"):
        own = parameter_of(said.net, node, role)
        if own is not None:
            if read.size != said.values[own.name].size:
                said.claims.freeze(said.values[own.name], f"'{node.name}' scales what cannot be cut")
                said.claims.freeze(read, f"'{node.name}' scales them by what cannot be cut")
            else:
                said.claims.unite(read.reshape(-1), said.values[own.name].reshape(-1))
    return read


def shuffled(said: Identities, node: Node) -> Ids:
    """Return the identities of pixels made of channels, which become one channel, or of channels made of pixels."""
    read, source = said.values[node.source], said.net[node.source].shape
    if tracked(read) not in ([], [1]) or len(source) != 4:
        return fixed(said, node)
    if read.size == 1:
        return read
    if node.shape[1] > source[1]:
        return _along_channels(np.repeat(read.reshape(-1), node.shape[1] // source[1]), node)
    return _along_channels(said.claims.merged(read.reshape(node.shape[1], -1), [1]), node)


def is_transposed(node: Node) -> bool:
    """True for a carried convolution whose weights are [inputs, outputs, ...]."""
    return "transpose" in node.op


def _along_channels(ids: Ids, node: Node) -> Ids:
    return ids.reshape(1, -1, *[1] * (len(node.shape) - 2))
