"""Channel identities, sent through a net: what is said of them, and what each value holds.

Every value gets an integer array of its own rank (see `moves.py`). Layers read identities and make new ones;
elementwise operators say that two identities are one channel; views, permutations, slices and concatenations are plain
array operations. An operator that is not understood freezes what it reads, so the result is sound whatever a net holds.
`identifying.py` sends them through, with a function for each kind of operator.

A value whose identities change along two dimensions at once (a channel shuffle on its way, the heads of an attention)
is a *grid*. Where only moves read it and one of them brings it back to one dimension, its channels stay free: after a
cut, the moves become one gather. Anywhere else a grid must stay rectangular, so channels are cut along one of its
dimensions only.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from slimwright.coupling.views import Ids
from slimwright.graph.net import Net
from slimwright.graph.node import Node, Ref


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


@dataclass
class Claims:
    """What is said of identities: which are one channel, which cannot be cut, and where they sit in weights."""

    count: int = 0
    same: list[tuple[Ids, Ids]] = field(default_factory=list)
    frozen: list[tuple[Ids, str]] = field(default_factory=list)  # what cannot be cut, and why
    flagged: list[tuple[Ids, str]] = field(default_factory=list)  # what a norm or the like takes statistics over
    places: list[Place] = field(default_factory=list)
    balances: list[Balance] = field(default_factory=list)
    rectangular: list[Ids] = field(default_factory=list)  # grids of which channels go along one dimension only

    def new(self, shape: Sequence[int]) -> Ids:
        """Return fresh identities, each another."""
        size = int(np.prod(shape))
        ids = np.arange(self.count, self.count + size, dtype=np.int64).reshape(shape)
        self.count += size
        return ids

    def unknown(self, rank: int, why: str) -> Ids:
        """Return one frozen identity for a whole value."""
        ids = self.new((1,) * rank)
        self.freeze(ids, why)
        return ids

    def freeze(self, ids: Ids, why: str) -> None:
        """Say that these channels cannot be cut."""
        self.frozen.append((ids.reshape(-1), why))

    def flag(self, ids: Ids, node: Node) -> None:
        """Say that a node takes statistics over these channels."""
        self.flagged.append((ids.reshape(-1), f"'{node.name}' takes statistics over them"))

    def unite(self, one: Ids, other: Ids) -> None:
        """Say that the identities of two arrays are one channel, position by position."""
        one, other = np.broadcast_arrays(one, other)
        self.same.append((one.reshape(-1), other.reshape(-1)))

    def merged(self, ids: Ids, axes: Iterable[int]) -> Ids:
        """Say that along these dimensions all is one channel; return the array without them."""
        for axis in axes:
            if ids.shape[axis] > 1:
                head = ids.take([0], axis)
                self.unite(head, ids)
                ids = head
        return ids


@dataclass
class Identities:
    """The identities of every value of one net, and what is said of them."""

    net: Net
    claims: Claims = field(default_factory=Claims)
    values: dict[str, Ids] = field(default_factory=dict)
    chains: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """A grid that moves alone have made -> the value it comes from, and the moves since."""
    shared: frozenset[str] = frozenset()  # nodes that own a tensor together with another node

    def must_be_rectangular(self, name: str) -> None:
        """Say that channels of a value, if it is a grid, go along one of its dimensions only."""
        for grid in (name, *self.chains.get(name, ())[1:]):
            if len(tracked(self.values[grid])) > 1:
                self.claims.rectangular.append(self.values[grid])

    def constants(self, node: Node) -> dict[str, object]:
        """Return the arguments of a move, with arrays for the constants it refers to."""

        def value(argument: object) -> object:
            if isinstance(argument, Ref):
                there = self.net[argument.name]
                return self.net.tensors[there.tensors["value"]].numpy() if there.op == "constant" else argument
            return tuple(value(item) for item in argument) if isinstance(argument, tuple) else argument

        found = {key: value(argument) for key, argument in node.arguments.items()}
        if node.op == "gather":
            found["index"] = self.net.tensors[node.tensors["index"]].numpy()
        return found


def tracked(ids: Ids) -> list[int]:
    """Return the dimensions along which identities change."""
    return [axis for axis, size in enumerate(ids.shape) if size > 1]
