"""Channel identities at sums and products over whole dimensions: reductions, softmax, attention."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from slimwright.coupling.identities import Identities, tracked
from slimwright.coupling.identity_values import fixed, joined
from slimwright.coupling.views import Ids, Shape
from slimwright.graph.node import Node


@dataclass(frozen=True)
class Factor:
    """One value of a product, with a letter for each of its dimensions."""

    ids: Ids
    shape: Shape
    labels: str


BATCH = "ABCDEFGH__"  # letters for the dimensions in front of the last two


def reduced(said: Identities, node: Node) -> Ids:
    """Return the identities of what is summed, averaged or the like over some dimensions."""
    read = said.values[node.source]
    rank = read.ndim
    dims = node.arguments.get("dim")
    named = dims if isinstance(dims, tuple) else () if dims is None else (dims,)
    axes = [int(str(d)) % rank for d in named] or list(range(rank))
    over, beside = ([i for i in tracked(read) if (i in axes) == where] for where in (True, False))
    if over and beside:
        read = said.claims.merged(read, over)
    elif over:
        if not _is_sum(node):
            said.claims.flag(read, node)
        read = said.claims.unknown(rank, f"'{node.name}' sums over channels")
    if len(node.shape) == rank:
        return read
    return read.reshape([n for i, n in enumerate(read.shape) if i not in axes])


def softmaxed(said: Identities, node: Node) -> Ids:
    """Return the identities of what is normalised along one dimension."""
    read = said.values[node.source]
    axis = int(str(node.arguments["dim"])) % read.ndim
    if axis not in tracked(read):
        return read
    if len(tracked(read)) > 1:
        return said.claims.merged(read, [axis])
    said.claims.flag(read, node)
    return read


def contracted(said: Identities, node: Node) -> Ids:
    """Return the identities of a product that is summed over a dimension that its factors have."""
    read = [Factor(said.values[name], said.net[name].shape, "") for name in node.reads]
    if node.op == "einsum":
        terms, _, result = str(node.arguments["equation"]).replace(" ", "").partition("->")
        labels = terms.split(",")
        plain = result and all(term.isalpha() and len(set(term)) == len(term) for term in labels)
        if not plain or len(labels) != len(read):
            return fixed(said, node)
        return _product(said, node, [replace(f, labels=t) for f, t in zip(read, labels, strict=True)], result)
    if any(len(factor.shape) < 2 for factor in read):
        return fixed(said, node)
    rank = max(len(factor.shape) for factor in read)
    front = [BATCH[-len(factor.shape) :][:-2] for factor in read]
    if node.op == "matmul":
        one, other = read
        labelled = [replace(one, labels=front[0] + "mk"), replace(other, labels=front[1] + "kn")]
        return _product(said, node, labelled, BATCH[-rank:][:-2] + "mn")
    return _attended(said, node, read, BATCH[-rank:][:-2])


def _attended(said: Identities, node: Node, read: Sequence[Factor], front: str) -> Ids:
    """Attention: query [..., L, E] and key [..., S, E] make scores [..., L, S], which weigh value [..., S, V]."""
    query, key, value = (replace(f, labels=front + end) for f, end in zip(read, ("le", "se", "sv"), strict=False))
    for factor in (query, key):
        if tracked(factor.ids) == [factor.ids.ndim - 1]:
            said.claims.freeze(factor.ids, f"'{node.name}' scales by their number")
    scores = _product(said, node, [query, key], front + "ls")
    shape = (*np.broadcast_shapes(query.shape[:-2], key.shape[:-2]), query.shape[-2], key.shape[-2])
    if len(read) > 3:
        scores = joined(said, node, [(scores, shape), (read[3].ids, read[3].shape)], shape)
    return _product(said, node, [Factor(scores, shape, front + "ls"), value], front + "lv")


def _product(said: Identities, node: Node, factors: Sequence[Factor], result: str) -> Ids:
    """Sum a product of values over the dimensions whose labels the result lacks.

    Along a label, channels of the factors are one channel. Of a factor with channels along several dimensions only
    one stays: one that all factors and the result have, or else one of the result.
    """
    everywhere = set(result).intersection(*(factor.labels for factor in factors))
    lines: dict[str, list[Ids]] = {}
    for factor in factors:
        labels = [factor.labels[axis] for axis in tracked(factor.ids)]
        kept = sorted(labels, key=lambda label: (label not in everywhere, label not in result))[:1]
        ids = said.claims.merged(factor.ids, [i for i in tracked(factor.ids) if factor.labels[i] not in kept])
        for label in kept:
            lines.setdefault(label, []).append(ids.reshape(-1))
    for label, found in list(lines.items()):
        having = sum(f.shape[f.labels.index(label)] > 1 for f in factors if label in f.labels)
        if len(found) < having:  # another factor has this dimension, but no channels along it
            for line in lines.pop(label):
                said.claims.freeze(line, f"'{node.name}' multiplies them with what cannot be cut")
        for other in found[1:]:
            said.claims.unite(found[0], other)
    left = [label for label in lines if label in result]
    for label in left[1:]:
        said.claims.freeze(lines[label][0], f"'{node.name}' makes pairs of them")
    if not left:
        return said.claims.unknown(len(result), f"'{node.name}' ({node.op}) mixes them")
    line = lines[left[0]][0]
    return line.reshape([-1 if label == left[0] else 1 for label in result])


def _is_sum(node: Node) -> bool:
    """True where a zero adds nothing, so that a channel may as well be gone."""
    if "linalg_vector_norm" in node.op:
        return node.arguments.get("ord") == 2
    return node.op == "sum" or node.op.startswith("aten.sum.")
