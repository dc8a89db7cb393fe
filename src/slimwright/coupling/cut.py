"""Take channels out of a net for good.

Every value keeps the channels it is left with in the order they had, so layers behind need no permutation: their weight
columns are selected, slices and views get new sizes. Where moves between two values (a channel shuffle) cannot be
said with new sizes, because uneven channels are left, one gather stands for all of them.
"""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from slimwright.coupling.channels import Coupling, couple
from slimwright.coupling.identity_layers import is_transposed
from slimwright.coupling.identity_moves import rearranged_axes
from slimwright.coupling.identity_sharing import tensors_of
from slimwright.coupling.views import Ids, Shape, collapsed, moved
from slimwright.errors import RequestError
from slimwright.graph.net import Net, Node, Ref, Value, checked, without_dead_ends
from slimwright.graph.ops import op_of

Alive = NDArray[np.bool_]


def cut(net: Net, keep: Mapping[str, Ids], coupling: Coupling | None = None) -> Net:
    """Return the net with only the channels `keep` [kept] of each named group; other groups stay whole.

    Raises RequestError for a group that is not there, for positions that are out of range or repeated, and where a
    layer would be left with groups of unequal size or a value with no channels.
    """
    coupling = coupling or couple(net)
    alive = coupling.alive(keep)
    return net if bool(alive.all()) else _Surgery(net, coupling, alive).done()


class _Surgery:
    """One cut, node by node."""

    def __init__(self, net: Net, coupling: Coupling, alive: Alive) -> None:
        self.net, self.coupling, self.alive = net, coupling, alive
        self.constants = coupling.identities.constants
        self.tensors: dict[str, Tensor] = dict(net.tensors)
        self.nodes: list[Node] = []
        self.missing: set[str] = set()  # values that cannot exist: moves on their way to a gather

    def done(self) -> Net:
        for node in self.net.nodes:
            self._cut(node)
        return checked(without_dead_ends(Net(tuple(self.nodes), self.tensors, self.net.outputs, ends=self.net.ends)))

    def _cut(self, node: Node) -> None:
        passage = op_of(node.op).channels
        if passage == "move":
            self._move(node)
            return
        if passage == "parameter":
            self._select(node.tensors["value"], self._axes(node.name))
        elif passage in ("mix", "convolve"):
            node = self._mixed(node)
        elif passage == "recurrent" and (node.name, "in") in self.coupling.places:
            for tensor in tensors_of(self.net, node).values():
                self._select(tensor, {1: self._kept(node.name, "in")})
        elif (node.name, "each") in self.coupling.places:
            kept = self._kept(node.name, "each")
            for tensor in node.tensors.values():
                self._select(tensor, {0: kept})
        if passage == "norm":
            node = _resized(node, self.net[node.source].shape, self._shape(node.source))
        self.nodes.append(node)

    def _mixed(self, node: Node) -> Node:
        """A layer that makes channels; one that is carried has its weights in parameters beside it."""
        places, owned = self.coupling.places, tensors_of(self.net, node)
        groups = int(str(node.arguments.get("groups", 1)))
        if (node.name, "each") in places:  # depthwise
            kept = self._kept(node.name, "each")
            times = self.net.tensors[owned["weight"]].shape[0] // groups
            for tensor in owned.values():
                self._select(tensor, {0: kept})
            return replace(node, arguments={**node.arguments, "groups": len(kept) // times})
        if (node.name, "out") not in places:  # carried, and not followed
            return node
        rows, transposed = self._kept(node.name, "out"), is_transposed(node)
        if (node.name, "in") in places:
            kept = self._kept(node.name, "in")
            if transposed:
                self._select(owned["weight"], {0: kept})
            else:
                self._columns(owned["weight"], kept, rows, groups)
        for role, tensor in owned.items():
            self._select(tensor, {1 if transposed and role == "weight" else 0: rows})
        return node

    def _columns(self, weight: str, kept: Ids, rows: Ids, groups: int) -> None:
        """Keep the columns of a weight; in a grouped convolution every group has its own, equally many."""
        whole = self.tensors[weight]  # [C_out, C_in/groups, ...]
        per_group = whole.shape[1]
        if len(kept) == per_group * groups:
            return
        outputs = whole.shape[0] // groups
        parts = [
            whole[g * outputs : (g + 1) * outputs].index_select(
                1, torch.from_numpy(kept[(kept >= g * per_group) & (kept < (g + 1) * per_group)] - g * per_group)
            )
            for g in range(groups)
        ]
        self.tensors[weight] = torch.cat(parts)

    def _kept(self, node: str, role: str) -> Ids:
        return np.flatnonzero(self.alive[self.coupling.places[node, role]])

    def _select(self, tensor: str, axes: Mapping[int, Ids]) -> None:
        for axis, kept in axes.items():
            if len(kept) < self.tensors[tensor].shape[axis]:
                self.tensors[tensor] = self.tensors[tensor].index_select(axis, torch.from_numpy(kept))

    def _axes(self, value: str) -> dict[int, Ids]:
        """What is kept of a value along each dimension; raises RequestError where nothing is."""
        alive = self.alive[self.coupling.values[value]]
        kept = {}
        for axis, size in enumerate(alive.shape):
            if size > 1:
                others = tuple(i for i in range(alive.ndim) if i != axis)
                kept[axis] = np.flatnonzero(alive.any(others))
                if not len(kept[axis]):
                    raise RequestError(f"'{value}' would be left without channels; keep at least one of those it has")
        return kept

    def _is_rectangular(self, value: str) -> bool:
        alive = self.alive[self.coupling.values[value]]
        return bool(alive[np.ix_(*self._full(value))].all())

    def _full(self, value: str) -> list[Ids]:
        shape = self.coupling.values[value].shape
        axes = self._axes(value)
        return [axes.get(axis, np.arange(size)) for axis, size in enumerate(shape)]

    def _shape(self, value: str) -> Shape:
        axes = self._axes(value)
        return tuple(len(axes[i]) if i in axes else n for i, n in enumerate(self.net[value].shape))

    # moves

    def _move(self, node: Node) -> None:
        if all(bool(self.alive[self.coupling.values[name]].all()) for name in (node.source, node.name)):
            self.nodes.append(node)
        elif node.source not in self.missing and self._is_rectangular(node.name) and self._moves_as_before(node):
            self.nodes.append(self._with_new_sizes(node))
        elif (gather := self._gather(node)) is not None:
            self.nodes.append(gather)
        else:
            self.missing.add(node.name)

    def _with_new_sizes(self, node: Node) -> Node:
        arguments: dict[str, Value] = dict(node.arguments)
        axes, result = self._axes(node.source), self._shape(node.name)
        for key in ("shape", "size"):
            sizes = arguments.get(key)
            if isinstance(sizes, tuple):
                arguments[key] = tuple(n if isinstance(n, Ref) or n == -1 else result[i] for i, n in enumerate(sizes))
        axis = arguments.get("dim")
        if node.op in ("slice", "select", "gather") and isinstance(axis, int) and axis in axes:
            if node.op == "gather":
                return self._thinned(node, axes[axis])
            for key in ("start", "end") if node.op == "slice" else ("index",):
                arguments[key] = int(np.searchsorted(axes[axis], int(str(arguments[key]))))
        return replace(node, arguments=arguments)

    def _thinned(self, node: Node, kept: Ids) -> Node:
        """A gather from fewer channels: what is left of what it picked, by new numbers."""
        index = self.net.tensors[node.tensors["index"]].numpy()
        left = index[np.isin(index, kept)]
        self.tensors[node.tensors["index"]] = torch.from_numpy(np.searchsorted(kept, left))
        return node

    def _moves_as_before(self, node: Node) -> bool:
        """True where the move, with new sizes, puts what is left where it belongs."""
        if node.op == "gather":
            return True
        whole = self.net[node.source].shape
        if any(
            len(kept) < whole[axis] for axis, kept in self._axes(node.source).items() if axis in rearranged_axes(node)
        ):
            return False
        new = self._with_new_sizes(node)
        arguments = {**self.constants(node), **{k: v for k, v in new.arguments.items() if not isinstance(v, tuple)}}
        before, after = self._axes(node.source), self._axes(node.name)
        shape = [n if axis in before else 1 for axis, n in enumerate(self.net[node.source].shape)]
        numbers = np.arange(int(np.prod(shape)), dtype=np.int64).reshape(shape)
        wanted = moved(node.op, self.constants(node), numbers, self.net[node.source].shape, node.shape)
        found = moved(node.op, arguments, _taken(numbers, before), self._shape(node.source), self._shape(node.name))
        if wanted is None or found is None:
            return False
        return np.array_equal(collapsed(_taken(wanted, after)), collapsed(found))

    def _gather(self, node: Node) -> Node | None:
        """One gather for all moves since the last value with channels along one dimension; None on the way there."""
        chain = [node]
        while chain[0].source in self.coupling.identities.chains:
            chain.insert(0, self.net[chain[0].source])
        origin = chain[0].source
        before, after = self._axes(origin), self._axes(node.name)
        if origin in self.missing or list(before) != list(after) or len(before) != 1:
            return None
        (axis,) = before
        if [n for i, n in enumerate(self._shape(origin)) if i != axis] != [
            n for i, n in enumerate(self._shape(node.name)) if i != axis
        ]:
            return None
        shape = self.coupling.values[origin].shape
        numbers = np.arange(int(np.prod(shape)), dtype=np.int64).reshape(shape)
        for move in chain:
            followed = moved(move.op, self.constants(move), numbers, self.net[move.source].shape, move.shape)
            assert followed is not None
            numbers = followed
        picked = numbers.reshape(-1)[after[axis]]
        tensor = f"{node.name}.index"
        self.tensors[tensor] = torch.from_numpy(np.searchsorted(before[axis], picked))
        return Node(node.name, "gather", {"self": Ref(origin), "dim": axis}, {"index": tensor})


def _taken(numbers: Ids, axes: Mapping[int, Ids]) -> Ids:
    """What is left of an array along each dimension that it is laid out in."""
    for axis, kept in axes.items():
        if numbers.shape[axis] > 1:
            numbers = numbers.take(kept, axis)
    return numbers


def _resized(node: Node, before: Shape, after: Shape) -> Node:
    """A norm whose arguments name the number of channels that it reads."""
    arguments = dict(node.arguments)
    if isinstance(sizes := arguments.get("normalized_shape"), tuple):
        arguments["normalized_shape"] = after[len(after) - len(sizes) :]
    if node.op == "group_norm" and arguments["num_groups"] == before[1]:
        arguments["num_groups"] = after[1]
    return replace(node, arguments=arguments)
