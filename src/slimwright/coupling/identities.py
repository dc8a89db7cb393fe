"""Channel identities, sent through a net.

Every value gets an integer array of its own rank (see `moves.py`). Layers read identities and make new ones;
elementwise operators say that two identities are one channel; views, permutations, slices and concatenations are plain
array operations. An operator that is not understood freezes what it reads, so the result is sound whatever a net holds.

A value whose identities change along two dimensions at once (a channel shuffle on its way, the heads of an attention)
is a *grid*. Where only moves read it and one of them brings it back to one dimension, its channels stay free: after a
cut, the moves become one gather. Anywhere else a grid must stay rectangular, so channels are cut along one of its
dimensions only.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from slimwright.coupling.views import Ids, Shape, moved
from slimwright.graph.net import Net, Node, Ref
from slimwright.graph.ops import op_of

MOST_ELEMENTS = 2**19  # of a bare parameter whose elements are told apart


@dataclass(frozen=True)
class Place:
    """Where identities sit in a layer's tensors. role "out": rows; "in": columns; "each": per-channel weights."""

    node: str
    role: str
    ids: Ids  # [positions]


@dataclass(frozen=True)
class Balance:
    """Channels of which every part must keep the same number: the groups of a convolution or of a norm."""

    node: str
    parts: Ids  # [parts, positions per part]


class Identities:
    """What one net says of its channels."""

    def __init__(self, net: Net) -> None:
        self.net = net
        self.count = 0
        self.same: list[tuple[Ids, Ids]] = []
        self.frozen: list[tuple[Ids, str]] = []  # what cannot be cut, and why
        self.flagged: list[tuple[Ids, str]] = []  # what a norm or the like takes statistics over, and which
        self.places: list[Place] = []
        self.balances: list[Balance] = []
        self.values: dict[str, Ids] = {}
        self.chains: dict[str, tuple[str, ...]] = {}  # a grid made by moves alone -> value it comes from, moves since
        self.rectangular: list[Ids] = []
        self.shared = _shared(net)
        for node in net.nodes:
            self.values[node.name] = self._passed(node)
        for name in net.outputs:
            self._must_be_rectangular(name)
            self.freeze(self.values[name], "the net returns them")

    def freeze(self, ids: Ids, why: str) -> None:
        """Say that these channels cannot be cut."""
        self.frozen.append((ids.reshape(-1), why))

    def _new(self, shape: Sequence[int]) -> Ids:
        size = int(np.prod(shape))
        ids = np.arange(self.count, self.count + size, dtype=np.int64).reshape(shape)
        self.count += size
        return ids

    def _unknown(self, rank: int, why: str) -> Ids:
        """One frozen identity for a whole value."""
        ids = self._new((1,) * rank)
        self.freeze(ids, why)
        return ids

    def _unite(self, one: Ids, other: Ids) -> None:
        one, other = np.broadcast_arrays(one, other)
        self.same.append((one.reshape(-1), other.reshape(-1)))

    def _merged(self, ids: Ids, axes: Iterable[int]) -> Ids:
        """Say that along these dimensions all is one channel."""
        for axis in axes:
            if ids.shape[axis] > 1:
                head = ids.take([0], axis)
                self._unite(head, ids)
                ids = head
        return ids

    def _must_be_rectangular(self, name: str) -> None:
        for grid in (name, *self.chains.get(name, ())[1:]):
            if len(_tracked(self.values[grid])) > 1:
                self.rectangular.append(self.values[grid])

    def _passed(self, node: Node) -> Ids:
        passage = op_of(node.op).channels
        if passage not in ("move", "scalar"):
            for name in node.reads:
                self._must_be_rectangular(name)
        match passage:
            case "input":
                ids = self._new([n if axis == 1 else 1 for axis, n in enumerate(node.shape)])
                self.freeze(ids, "they are the image")
                return ids
            case "parameter":
                return self._parameter(node)
            case "mix":
                return self._mixed(node)
            case "each":
                return self._each(node, self.values[node.source])
            case "norm":
                return self._normed(node)
            case "join":
                return self._joined(node, [(self.values[n], self.net[n].shape) for n in node.reads], node.shape)
            case "window":
                return self._windowed(node)
            case "move":
                return self._moved(node)
            case "concat":
                return self._concatenated(node)
            case "reduce":
                return self._reduced(node)
            case "softmax":
                return self._softmaxed(node)
            case "contract":
                return self._contracted(node)
            case "scalar":
                return np.zeros((0,), np.int64)
            case "fixed":
                return self._item(node) if node.op == "item" else self._fixed(node)

    def _fixed(self, node: Node) -> Ids:
        why = f"'{node.name}' ({node.op}) mixes them"
        for name in node.reads:
            self.freeze(self.values[name], why)
        return self._unknown(len(node.shape), why)

    def _item(self, node: Node) -> Ids:
        ids = self.values[node.source]
        return ids if ids.ndim == len(node.shape) else self._fixed(node)

    def _parameter(self, node: Node) -> Ids:
        tensor = self.net.tensors[node.tensors["value"]]
        if not tensor.is_floating_point() or not 1 < tensor.numel() <= MOST_ELEMENTS or node.name in self.shared:
            return self._unknown(len(node.shape), f"'{node.name}' is a tensor that is not followed")
        return self._new(node.shape)

    # layers

    def _mixed(self, node: Node) -> Ids:
        read = self.values[node.source]
        axis = 1 if node.op == "conv2d" else len(node.shape) - 1
        weight = self.net.tensors[node.tensors["weight"]]
        groups = int(str(node.arguments.get("groups", 1)))
        if node.name in self.shared:
            self.freeze(read, f"'{node.name}' shares its weights")
        if groups > 1 and weight.shape[1] == 1 and read.shape[axis] == groups and len(_tracked(read)) == 1:
            ids = np.repeat(read.reshape(-1), weight.shape[0] // groups)
            self.places.append(Place(node.name, "each", ids))
            return ids.reshape(1, -1, 1, 1)
        return self._new_channels(node, read, axis, groups, weight.shape[0])

    def _new_channels(self, node: Node, read: Ids, axis: int, groups: int, size: int) -> Ids:
        inputs = self.net[node.source].shape[axis]
        made = self._new([size if i == axis else 1 for i in range(len(node.shape))])
        self.places.append(Place(node.name, "out", made.reshape(-1)))
        others = [i for i in _tracked(read) if i != axis]
        if others and not self._is_pointwise(node):
            self.freeze(read, f"'{node.name}' slides over them")
            self.freeze(made, f"'{node.name}' makes them of channels that it slides over")
            return made
        if others:  # what it reads has channels along another dimension, and they pass through
            read = self._merged(read, [axis])
            self.freeze(made, f"'{node.name}' makes them beside other channels")
            return read
        if read.shape[axis] == inputs:
            self.places.append(Place(node.name, "in", read.reshape(-1)))
        else:
            self.freeze(read, f"'{node.name}' reads them in a way that is not followed")
        if groups > 1:
            self.balances.append(Balance(node.name, made.reshape(groups, -1)))
            if read.shape[axis] == inputs:
                self.balances.append(Balance(node.name, read.reshape(groups, -1)))
        if node.name in self.shared:
            self.freeze(made, f"'{node.name}' shares its weights")
        return made

    def _is_pointwise(self, node: Node) -> bool:
        """True for a layer whose outputs lie where what it reads does."""
        if node.op != "conv2d":
            return True
        kernel = self.net.tensors[node.tensors["weight"]].shape[2:]
        return kernel == (1, 1) and node.shape[2:] == self.net[node.source].shape[2:]

    def _each(self, node: Node, read: Ids, axis: int = 1) -> Ids:
        if read.shape[axis] == 1 < self.net[node.source].shape[axis]:
            return read
        if any(self.net.tensors[t].numel() != read.shape[axis] for t in node.tensors.values()):
            return read  # one weight for all
        read = self._merged(read, [i for i in _tracked(read) if i != axis])
        if node.name in self.shared:
            self.freeze(read, f"'{node.name}' shares its weights")
        if node.tensors:
            self.places.append(Place(node.name, "each", read.reshape(-1)))
        return read

    def _normed(self, node: Node) -> Ids:
        read = self.values[node.source]
        channels = self.net[node.source].shape[1]
        if node.op == "group_norm":
            groups = int(str(node.arguments["num_groups"]))
            if groups > 1 and math.prod(node.shape[2:]) == 1:
                self.freeze(read, f"'{node.name}' takes statistics over single pixels")
            read = self._each(node, read)
            if read.shape[1] == channels and groups < channels:
                self._flag(node, read)
                if groups > 1:
                    self.balances.append(Balance(node.name, read.reshape(groups, -1)))
            return read
        last = read.ndim - 1
        over = range(read.ndim - len(node.arguments["normalized_shape"]), read.ndim)  # type: ignore[arg-type]
        inside, outside = ([i for i in _tracked(read) if (i in over) == where] for where in (True, False))
        if outside:
            return self._merged(read, inside)
        if inside == [last] and len(over) == 1:
            self._flag(node, read)
            return self._each(node, read, last)
        if inside:
            self.freeze(read, f"'{node.name}' takes statistics over them and over pixels")
        return read

    def _flag(self, node: Node, ids: Ids) -> None:
        self.flagged.append((ids.reshape(-1), f"'{node.name}' takes statistics over them"))

    # elementwise

    def _joined(self, node: Node, values: Sequence[tuple[Ids, Shape]], result: Shape) -> Ids:
        rank = len(result)
        operands = [
            (ids.reshape((1,) * (rank - ids.ndim) + ids.shape), (1,) * (rank - len(shape)) + shape)
            for ids, shape in values
            if ids.size
        ]
        for axis, size in enumerate(result):
            if any(shape[axis] == size > ids.shape[axis] for ids, shape in operands):
                operands = [(self._without(node, ids, axis), shape) for ids, shape in operands]
        axes = {axis for ids, _ in operands for axis in _tracked(ids)}
        arrays: list[Ids] = []
        for ids, shape in operands:
            if ids.size == 1 and any(shape[axis] == 1 for axis in axes):
                self.freeze(ids, f"'{node.name}' spreads them over all channels")
            else:
                arrays.append(ids)
        if not arrays:
            return self._unknown(rank, f"'{node.name}' is not followed")
        for other in arrays[1:]:
            self._unite(arrays[0], other)
        return np.broadcast_arrays(*arrays)[0]

    def _without(self, node: Node, ids: Ids, axis: int) -> Ids:
        """Identities that cannot be told apart along a dimension, because another value there cannot be cut."""
        if ids.shape[axis] == 1:
            return ids
        if len(_tracked(ids)) > 1:
            return self._merged(ids, [axis])
        self.freeze(ids, f"'{node.name}' joins them with what cannot be cut")
        return ids.take([0], axis)

    def _windowed(self, node: Node) -> Ids:
        read = self.values[node.source]
        reached = [axis for axis in _tracked(read) if axis in _windowed_axes(node)]
        if read.ndim != len(node.shape) or reached == _tracked(read) != []:
            return self._fixed(node)
        return self._merged(read, reached)

    # moves

    def _moved(self, node: Node) -> Ids:
        source = node.source
        read = self.values[source]
        arguments = self.constants(node)
        picked = [axis for axis in _tracked(read) if axis in rearranged_axes(node)]
        if len(_tracked(read)) > 1:
            read = self._merged(read, picked)
        ids = moved(node.op, arguments, read, self.net[source].shape, node.shape)
        alone = picked == _tracked(read) != []
        if (
            ids is None
            or (ids.size == 1 and node.op == "expand")
            or (alone and not self._can_gather(source, node, ids))
        ):
            return self._fixed(node)
        if ids.size == 1 < read.size:
            self.freeze(ids, f"'{node.name}' picks it alone")
        chain = self.chains.get(source, (source,) if len(_tracked(read)) == 1 else ())
        self.values[node.name] = ids
        if len(_tracked(ids)) > 1:
            if chain:
                self.chains[node.name] = (*chain, node.name)
        elif source in self.chains and not self._can_gather(chain[0], node, ids):
            self._must_be_rectangular(source)
        return ids

    def _can_gather(self, origin: str, node: Node, ids: Ids) -> bool:
        """True where one gather along one dimension can stand for all moves since `origin`."""
        (axis,) = _tracked(self.values[origin])
        before, after = (list(shape) for shape in (self.net[origin].shape, node.shape))
        if _tracked(ids) != [axis] or len(before) != len(after):
            return False
        del before[axis], after[axis]
        return before == after

    def constants(self, node: Node) -> dict[str, object]:
        """The arguments of a move, with arrays for the constants it refers to."""

        def value(argument: object) -> object:
            if isinstance(argument, Ref):
                there = self.net[argument.name]
                return self.net.tensors[there.tensors["value"]].numpy() if there.op == "constant" else argument
            return tuple(value(item) for item in argument) if isinstance(argument, tuple) else argument

        found = {key: value(argument) for key, argument in node.arguments.items()}
        if node.op == "gather":
            found["index"] = self.net.tensors[node.tensors["index"]].numpy()
        return found

    def _concatenated(self, node: Node) -> Ids:
        axis = int(str(node.arguments["dim"])) % len(node.shape)
        parts = [self.values[name] for name in node.reads]
        sizes = [self.net[name].shape[axis] for name in node.reads]
        blank = any(ids.shape[axis] == 1 < size for ids, size in zip(parts, sizes, strict=True))
        if blank:
            parts = [self._merged(ids, [axis]) if len(_tracked(ids)) > 1 else ids for ids in parts]
        if all(axis not in _tracked(ids) for ids in parts) and any(_tracked(ids) for ids in parts):
            return self._joined(node, [(ids, self.net[n].shape) for ids, n in zip(parts, node.reads, strict=True)],
                                tuple(1 if i == axis else n for i, n in enumerate(node.shape)))  # fmt: skip
        rest = np.broadcast_shapes(*(tuple(1 if i == axis else n for i, n in enumerate(p.shape)) for p in parts))
        whole = [
            np.broadcast_to(ids, [size if i == axis else n for i, n in enumerate(rest)])
            for ids, size in zip(parts, sizes, strict=True)
        ]
        return np.concatenate(whole, axis=axis)

    # sums and products over dimensions

    def _reduced(self, node: Node) -> Ids:
        read = self.values[node.source]
        rank = read.ndim
        dims = node.arguments.get("dim")
        named = dims if isinstance(dims, tuple) else () if dims is None else (dims,)
        axes = [int(str(d)) % rank for d in named] or list(range(rank))
        over, beside = ([i for i in _tracked(read) if (i in axes) == where] for where in (True, False))
        if over and beside:
            read = self._merged(read, over)
        elif over:
            if not _is_sum(node):
                self._flag(node, read)
            read = self._unknown(rank, f"'{node.name}' sums over channels")
        if len(node.shape) == rank:
            return read
        return read.reshape([n for i, n in enumerate(read.shape) if i not in axes])

    def _softmaxed(self, node: Node) -> Ids:
        read = self.values[node.source]
        axis = int(str(node.arguments["dim"])) % read.ndim
        if axis not in _tracked(read):
            return read
        if len(_tracked(read)) > 1:
            return self._merged(read, [axis])
        self._flag(node, read)
        return read

    def _contracted(self, node: Node) -> Ids:
        read = [Factor(self.values[name], self.net[name].shape, "") for name in node.reads]
        if node.op == "einsum":
            terms, _, result = str(node.arguments["equation"]).replace(" ", "").partition("->")
            labels = terms.split(",")
            plain = result and all(term.isalpha() and len(set(term)) == len(term) for term in labels)
            if not plain or len(labels) != len(read):
                return self._fixed(node)
            return self._product(node, [replace(f, labels=t) for f, t in zip(read, labels, strict=True)], result)
        if any(len(factor.shape) < 2 for factor in read):
            return self._fixed(node)
        rank = max(len(factor.shape) for factor in read)
        front = [BATCH[-len(factor.shape) :][:-2] for factor in read]
        if node.op == "matmul":
            one, other = read
            labelled = [replace(one, labels=front[0] + "mk"), replace(other, labels=front[1] + "kn")]
            return self._product(node, labelled, BATCH[-rank:][:-2] + "mn")
        return self._attended(node, read, BATCH[-rank:][:-2])

    def _attended(self, node: Node, read: Sequence["Factor"], front: str) -> Ids:
        """Attention: query [..., L, E] and key [..., S, E] make scores [..., L, S], which weigh value [..., S, V]."""
        query, key, value = (replace(f, labels=front + end) for f, end in zip(read, ("le", "se", "sv"), strict=False))
        for factor in (query, key):
            if _tracked(factor.ids) == [factor.ids.ndim - 1]:
                self.freeze(factor.ids, f"'{node.name}' scales by their number")
        scores = self._product(node, [query, key], front + "ls")
        shape = (*np.broadcast_shapes(query.shape[:-2], key.shape[:-2]), query.shape[-2], key.shape[-2])
        if len(read) > 3:
            scores = self._joined(node, [(scores, shape), (read[3].ids, read[3].shape)], shape)
        return self._product(node, [Factor(scores, shape, front + "ls"), value], front + "lv")

    def _product(self, node: Node, factors: Sequence["Factor"], result: str) -> Ids:
        """Sum a product of values over the dimensions whose labels the result lacks.

        Along a label, channels of the factors are one channel. Of a factor with channels along several dimensions only
        one stays: one that all factors and the result have, or else one of the result.
        """
        everywhere = set(result).intersection(*(factor.labels for factor in factors))
        lines: dict[str, list[Ids]] = {}
        for factor in factors:
            tracked = [factor.labels[axis] for axis in _tracked(factor.ids)]
            kept = sorted(tracked, key=lambda label: (label not in everywhere, label not in result))[:1]
            ids = self._merged(factor.ids, [i for i in _tracked(factor.ids) if factor.labels[i] not in kept])
            for label in kept:
                lines.setdefault(label, []).append(ids.reshape(-1))
        for label, found in list(lines.items()):
            having = sum(f.shape[f.labels.index(label)] > 1 for f in factors if label in f.labels)
            if len(found) < having:  # another factor has this dimension, but no channels along it
                for line in lines.pop(label):
                    self.freeze(line, f"'{node.name}' multiplies them with what cannot be cut")
            for other in found[1:]:
                self._unite(found[0], other)
        left = [label for label in lines if label in result]
        for label in left[1:]:
            self.freeze(lines[label][0], f"'{node.name}' makes pairs of them")
        if not left:
            return self._unknown(len(result), f"'{node.name}' ({node.op}) mixes them")
        line = lines[left[0]][0]
        return line.reshape([-1 if label == left[0] else 1 for label in result])


@dataclass(frozen=True)
class Factor:
    """One value of a product, with a letter for each of its dimensions."""

    ids: Ids
    shape: Shape
    labels: str


BATCH = "ABCDEFGH__"  # letters for the dimensions in front of the last two


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


def _is_sum(node: Node) -> bool:
    """True where a zero adds nothing, so that a channel may as well be gone."""
    if "linalg_vector_norm" in node.op:
        return node.arguments.get("ord") == 2
    return node.op == "sum" or node.op.startswith("aten.sum.")


def _windowed_axes(node: Node) -> list[int]:
    """The dimensions along which a window or padding reaches: the last two, or those with padding."""
    rank = len(node.shape)
    pad = node.arguments.get("pad")
    if not isinstance(pad, tuple):
        return [rank - 2, rank - 1]
    return [rank - 1 - i // 2 for i, n in enumerate(pad) if n]


def _tracked(ids: Ids) -> list[int]:
    return [axis for axis, size in enumerate(ids.shape) if size > 1]


def _shared(net: Net) -> set[str]:
    """Nodes that own a tensor together with another node."""
    owners: dict[str, list[str]] = {}
    for node in net.nodes:
        for tensor in node.tensors.values():
            owners.setdefault(tensor, []).append(node.name)
    return {name for names in owners.values() if len(names) > 1 for name in names}
