"""Which channels must be cut together, and how to cut them.

Channel identities are sent through the graph: every value carries an integer array of its own rank, with size 1
in the dimensions along which the identity does not change. Convolutions and linear layers read identities and make
new ones; elementwise ops say that two identities are one channel; flatten and concat are plain array operations.
The connected components of "is one channel" are what can be cut: a component's positions in every weight tensor.

Exact: the cut net equals the whole net with those channels zeroed where they are read (see the property test).
"""

import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from slimwright.errors import RequestError
from slimwright.graph.net import Net, Node, Ref
from slimwright.graph.ops import OPS

Ids = NDArray[np.int64]


@dataclass(frozen=True)
class Cut:
    """Where a group's channels sit in one layer. role "out": rows; "in": columns; "each": per-channel weights."""

    node: str
    role: str
    positions: Ids  # [size of the group, positions per channel]


@dataclass(frozen=True)
class ChannelGroup:
    """Channels that exist in the same layers. Each may be cut alone, but only in all of those layers at once."""

    name: str  # of the first layer that produces them
    size: int
    cuts: tuple[Cut, ...]

    def of(self, role: str) -> Iterator[Cut]:
        """The cuts in one role."""
        return (cut for cut in self.cuts if cut.role == role)


@dataclass(frozen=True)
class Coupling:
    """All groups whose channels may be cut, and for each layer whose outputs may not, the reason."""

    groups: tuple[ChannelGroup, ...]
    frozen: Mapping[str, str]
    elements: Mapping[str, Mapping[str, int]]  # value -> group -> elements of the value that one channel takes


def is_depthwise(net: Net, node: Node) -> bool:
    """True for a convolution with as many groups as input channels."""
    if node.op != "conv2d" or node.arguments["groups"] == 1:
        return False
    return bool(net.tensors[node.tensors["weight"]].shape[1] == 1)


def couple(net: Net) -> Coupling:
    """Find the channel groups of a net, in the order in which their first layers run."""
    return _Identities(net).coupling()


def cut(net: Net, keep: Mapping[str, Ids], coupling: Coupling | None = None) -> Net:
    """Return the net with only the channels `keep` [kept] of each named group; other groups stay whole.

    Raises RequestError for a group that is not there, and for positions that are out of range or repeated.
    """
    groups = {group.name: group for group in (coupling or couple(net)).groups}
    gone: dict[tuple[str, str], list[Ids]] = defaultdict(list)
    for name, kept in keep.items():
        if name not in groups:
            raise RequestError(f"there is no channel group '{name}'; the groups are {', '.join(groups)}")
        size = groups[name].size
        if not _are_distinct_below(size, np.asarray(kept)):
            raise RequestError(
                f"channels to keep of group '{name}' must be distinct numbers from 0 to {size - 1}, at least one"
            )
        dropped = np.setdiff1d(np.arange(size), kept)
        for place in groups[name].cuts:
            gone[place.node, place.role].append(place.positions[dropped].reshape(-1))
    return _sliced(net, {place: np.concatenate(parts) for place, parts in gone.items()})


def _are_distinct_below(size: int, kept: NDArray[Any]) -> bool:
    if kept.ndim != 1 or not len(kept) or not np.issubdtype(kept.dtype, np.integer):
        return False
    return len(np.unique(kept)) == len(kept) and bool(kept.min() >= 0 and kept.max() < size)


def _sliced(net: Net, gone: Mapping[tuple[str, str], Ids]) -> Net:
    tensors = dict(net.tensors)
    changed = {}
    for (name, role), positions in gone.items():
        node = net[name]
        dim = 1 if role == "in" else 0
        roles = ["weight"] if role == "in" else list(node.tensors)
        for key in (node.tensors[r] for r in roles):
            keep = np.setdiff1d(np.arange(net.tensors[key].shape[dim]), positions)
            tensors[key] = tensors[key].index_select(dim, torch.from_numpy(keep))
        if role == "each" and node.op == "conv2d":
            left = tensors[node.tensors["weight"]].shape[0]
            multiplier = net.tensors[node.tensors["weight"]].shape[0] // int(str(node.arguments["groups"]))
            changed[name] = replace(node, arguments={**node.arguments, "groups": left // multiplier})
    return net.edited(changed, tensors=tensors)


class _Identities:
    """Channel identities on their way through one net."""

    def __init__(self, net: Net) -> None:
        self.net = net
        self.count = 0
        self.same: list[tuple[Ids, Ids]] = []
        self.frozen: dict[int, str] = {}
        self.places: list[tuple[str, str, Ids]] = []  # node, role, identity at each position
        self.ids: dict[str, Ids] = {}
        owners: dict[str, list[str]] = defaultdict(list)
        for node in net.nodes:
            for name in node.tensors.values():
                owners[name].append(node.name)
        self.shared = {n for names in owners.values() if len(names) > 1 for n in names}
        for node in net.nodes:
            self.ids[node.name] = self._passed(node)
        for name in net.outputs:
            self._freeze(self.ids[name], "the net returns them")

    def coupling(self) -> Coupling:
        first, second = (np.concatenate([pair[i] for pair in self.same] or [np.zeros(0, np.int64)]) for i in (0, 1))
        links = coo_array((np.ones(len(first)), (first, second)), shape=(self.count, self.count))
        _, component = connected_components(links, directed=False)
        reason = {int(component[i]): why for i, why in self.frozen.items()}
        where: dict[int, list[tuple[str, str, int]]] = defaultdict(list)
        for node, role, ids in self.places:
            for position, identity in enumerate(ids):
                where[int(component[identity])].append((node, role, position))
        alike: dict[tuple[tuple[str, str], ...], list[int]] = defaultdict(list)
        for channel, spots in where.items():
            if channel not in reason and any(role == "out" for _, role, _ in spots):
                alike[tuple((node, role) for node, role, _ in spots)].append(channel)
        groups = tuple(self._group(signature, channels, where) for signature, channels in alike.items())
        frozen = {
            node: reason[int(component[ids[0]])]
            for node, role, ids in self.places
            if role == "out" and int(component[ids[0]]) in reason
        }
        return Coupling(groups, frozen, self._elements(groups, component))

    def _elements(self, groups: tuple[ChannelGroup, ...], component: Ids) -> dict[str, dict[str, int]]:
        member = {}  # component -> the group it is a channel of
        ids_at = {(node, role): ids for node, role, ids in self.places}
        for group in groups:
            place = group.cuts[0]
            for identity in ids_at[place.node, place.role][place.positions[:, 0]]:
                member[int(component[identity])] = group
        found: dict[str, dict[str, int]] = {}
        for name, ids in self.ids.items():
            per_identity = math.prod(self.net[name].shape) // max(ids.size, 1)
            taken: Counter[str] = Counter(member[c].name for c in component[ids.reshape(-1)].tolist() if c in member)
            sizes = {group.name: group.size for group in groups}
            found[name] = {group: n * per_identity // sizes[group] for group, n in taken.items()}
        return found

    def _group(
        self,
        signature: tuple[tuple[str, str], ...],
        channels: list[int],
        where: Mapping[int, list[tuple[str, str, int]]],
    ) -> ChannelGroup:
        cuts = []
        for node, role in dict.fromkeys(signature):
            spots = [[p for n, r, p in where[channel] if (n, r) == (node, role)] for channel in channels]
            cuts.append(Cut(node, role, np.array(spots, dtype=np.int64)))
        name = next(c.node for c in cuts if c.role == "out")
        first = next(c.positions[0, 0] for c in cuts if c.role == "out")
        return ChannelGroup(f"{name}[{first}]" if first else name, len(channels), tuple(cuts))

    def _new(self, shape: tuple[int, ...], axis: int) -> Ids:
        size = shape[axis]
        ids = np.arange(self.count, self.count + size, dtype=np.int64)
        self.count += size
        return ids.reshape([size if i == axis else 1 for i in range(len(shape))])

    def _unknown(self, node: Node, why: str) -> Ids:
        """One frozen identity for a whole value."""
        ids = self._new((1,) * max(len(node.shape), 1), 0)
        self._freeze(ids, why)
        return ids

    def _freeze(self, ids: Ids, why: str) -> None:
        for identity in np.unique(ids):
            self.frozen.setdefault(int(identity), why)

    def _unite(self, one: Ids, other: Ids) -> None:
        one, other = np.broadcast_arrays(one, other)
        self.same.append((one.reshape(-1), other.reshape(-1)))

    def _passed(self, node: Node) -> Ids:
        read = [self.ids[name] for name in node.reads]
        match OPS[node.op].channels:
            case "input":
                ids = self._new(node.shape, 1)
                self._freeze(ids, "they are the image")
                return ids
            case "mix":
                return self._mixed(node, read[0])
            case "each":
                if read[0].shape[1] != node.shape[1]:
                    self._freeze(read[0], f"'{node.name}' reads them through an op that is not tracked")
                    return read[0]
                self._keep_if_shared(node, read[0])
                self.places.append((node.name, "each", read[0].reshape(-1)))
                return read[0]
            case "same":
                return read[0]
            case "join":
                return self._joined(node)
            case "reduce":
                return self._reduced(node, read[0])
            case "concat":
                return self._side_by_side(node)
            case "flatten":
                return self._flattened(node, read[0])
            case "scalar":
                return np.zeros((0,), np.int64)
            case "fixed":
                self._freeze(read[0], f"'{node.name}' ({node.op}) mixes them")
                return self._unknown(node, f"'{node.name}' ({node.op}) mixes them")

    def _mixed(self, node: Node, read: Ids) -> Ids:
        axis = 1 if node.op == "conv2d" else len(node.shape) - 1
        weight = self.net.tensors[node.tensors["weight"]]
        if is_depthwise(self.net, node) and read.shape[1] == node.arguments["groups"]:
            ids = np.repeat(read.reshape(-1), weight.shape[0] // read.shape[1])
            self._keep_if_shared(node, read)
            self.places.append((node.name, "each", ids))
            return ids.reshape(1, -1, 1, 1)
        groups = node.arguments.get("groups", 1)
        columns = read.reshape(-1) if read.size == read.shape[axis] == weight.shape[1] else None
        ids = self._new(node.shape, axis)
        self.places.append((node.name, "out", ids.reshape(-1)))
        if columns is not None and groups == 1:
            self.places.append((node.name, "in", columns))
        else:
            self._freeze(
                read,
                f"'{node.name}' reads them in {groups} groups"
                if groups != 1
                else f"'{node.name}' reads them in a way that is not tracked",
            )
        if groups != 1:
            self._freeze(ids, f"'{node.name}' has {groups} groups")
        self._keep_if_shared(node, read, ids)
        return ids

    def _keep_if_shared(self, node: Node, *values: Ids) -> None:
        if node.name in self.shared:
            for ids in values:
                self._freeze(ids, f"'{node.name}' shares its weights")

    def _joined(self, node: Node) -> Ids:
        result: Ids | None = None
        for name in node.reads:
            ids, shape = self.ids[name], self.net[name].shape
            padded = (1,) * (len(node.shape) - len(shape)) + shape
            ids = ids.reshape((1,) * (len(node.shape) - ids.ndim) + ids.shape)
            if any(
                mine != whole and ids.shape[i] == 1 and i == 1
                for i, (mine, whole) in enumerate(zip(padded, node.shape, strict=True))
            ):
                self._freeze(ids, f"'{node.name}' spreads them over all channels")
                continue
            if result is not None:
                self._unite(result, ids)
                ids = np.broadcast_arrays(result, ids)[0]
            result = ids
        return result if result is not None else self._unknown(node, f"'{node.name}' is not tracked")

    def _reduced(self, node: Node, read: Ids) -> Ids:
        rank = len(self.net[node.source].shape)
        dims = node.arguments["dim"]
        axes = {int(d) % rank for d in dims if isinstance(d, int)} if isinstance(dims, tuple) else set(range(rank))
        if any(read.shape[axis] != 1 for axis in axes):
            self._freeze(read, f"'{node.name}' takes a mean over them")
            return self._unknown(node, f"'{node.name}' takes a mean over channels")
        kept = bool(node.arguments["keepdim"])
        return read if kept else read.reshape([n for i, n in enumerate(read.shape) if i not in axes] or [1])

    def _side_by_side(self, node: Node) -> Ids:
        axis = int(str(node.arguments["dim"])) % len(node.shape)
        parts = []
        for name in node.reads:
            shape = list(self.ids[name].shape)
            shape[axis] = self.net[name].shape[axis]
            parts.append(np.broadcast_to(self.ids[name], shape))
        rest = np.broadcast_shapes(*(tuple(1 if i == axis else n for i, n in enumerate(p.shape)) for p in parts))
        whole = [np.broadcast_to(p, [p.shape[axis] if i == axis else n for i, n in enumerate(rest)]) for p in parts]
        return np.concatenate(whole, axis=axis)

    def _flattened(self, node: Node, read: Ids) -> Ids:
        if node.op != "flatten" and _bakes_a_size(node):
            self._freeze(read, f"'{node.name}' has their number written in its size")
            return self._unknown(node, f"'{node.name}' has a fixed size")
        source = self.net[node.source].shape
        moved = np.broadcast_to(read, source).reshape(node.shape)
        for axis in range(moved.ndim):
            head = moved.take([0], axis=axis)
            if moved.shape[axis] > 1 and bool((moved == head).all()):
                moved = head
        return moved


def _bakes_a_size(node: Node) -> bool:
    """True where a view names a size that cutting channels would change."""
    sizes = node.arguments.get("size", node.arguments.get("shape"))
    if not isinstance(sizes, tuple):
        return True
    return any(isinstance(s, int) and s not in (-1, 1) for s in sizes[1:]) or not (
        isinstance(sizes[0], Ref) or sizes[0] == -1
    )
