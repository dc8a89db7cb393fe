"""Which channels must be cut together.

The connected components of "is one channel" (see `identities.py`) are what can be cut: a component's positions in every
weight tensor. Components that exist in the same layers form a group. Exact: the cut net equals the whole net with
those channels zeroed where they are read (see the property test); where a norm takes statistics over channels, it
then takes them over those that are left, and the group is flagged.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from slimwright.coupling.identifying import identities_of
from slimwright.coupling.identities import Balance, Claims, Identities
from slimwright.coupling.views import Ids
from slimwright.errors import RequestError
from slimwright.graph.net import Net, Node


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
    components: Ids  # [size] of the coupling's values and places
    flag: str = ""  # why a net without some of these channels is no masked net: a norm over channels

    def of(self, role: str) -> Iterator[Cut]:
        """The cuts in one role."""
        return (cut for cut in self.cuts if cut.role == role)


@dataclass(frozen=True)
class Coupling:
    """All groups whose channels may be cut, and for each layer whose outputs may not, the reason.

    `values` and `places` hold the component at each position of a value and of a layer's weights; `balances` are parts
    that must keep equally many channels.
    """

    groups: tuple[ChannelGroup, ...]
    frozen: Mapping[str, str]
    values: Mapping[str, Ids]
    places: Mapping[tuple[str, str], Ids]
    balances: tuple[Balance, ...]
    components: int
    identities: Identities

    def alive(self, keep: Mapping[str, Ids]) -> NDArray[np.bool_]:
        """Return which components stay where `keep` [kept] names the channels kept of some groups, others whole.

        Raises RequestError for a group that is not there, for positions that are out of range or repeated, and for
        unequal parts of a layer that needs equal ones.
        """
        alive = np.ones(self.components, bool)
        groups = {group.name: group for group in self.groups}
        for name, kept in keep.items():
            if name not in groups:
                raise RequestError(f"there is no channel group '{name}'; the groups are {', '.join(groups)}")
            size = groups[name].size
            if not _are_distinct_below(size, np.asarray(kept)):
                raise RequestError(
                    f"channels to keep of group '{name}' must be distinct numbers from 0 to {size - 1}, at least one"
                )
            alive[np.delete(groups[name].components, kept)] = False
        for balance in self.balances:
            counts = alive[balance.parts].sum(1)
            if counts.min() != counts.max() or counts.max() == 0:
                raise RequestError(
                    f"'{balance.node}' has {len(counts)} groups, which must keep equally many channels, at least one "
                    f"each; they would keep {counts.min()} to {counts.max()} (`choose` picks equal ones)"
                )
        return alive

    @cached_property
    def elements(self) -> Mapping[str, Mapping[str, int]]:
        """For each value and group, the elements of the value that one channel takes, on average."""
        owner = np.full(self.components, -1)
        for number, group in enumerate(self.groups):
            owner[group.components] = number
        found = {}
        for name, components in self.values.items():
            if components.size:
                whole = math.prod(self.identities.net[name].shape) // components.size
                taken = Counter(owner[components.reshape(-1)].tolist())
                found[name] = {
                    self.groups[number].name: count * whole // self.groups[number].size
                    for number, count in taken.items()
                    if number >= 0
                }
            else:
                found[name] = {}
        return found

    @cached_property
    def balanced(self) -> frozenset[str]:
        """Names of the groups that a layer needs equal parts of."""
        bound = np.zeros(self.components, bool)
        for balance in self.balances:
            bound[balance.parts.reshape(-1)] = True
        return frozenset(group.name for group in self.groups if bound[group.components].any())


def is_depthwise(net: Net, node: Node) -> bool:
    """True for a convolution with as many groups as input channels."""
    if node.op != "conv2d" or node.arguments["groups"] == 1:
        return False
    return bool(net.tensors[node.tensors["weight"]].shape[1] == 1)


def couple(net: Net) -> Coupling:
    """Find the channel groups of a net, in the order in which their first layers run."""
    identities = identities_of(net)
    claims = identities.claims
    component = _components(claims)
    reasons, flags = (_reasons(component, said) for said in (claims.frozen, claims.flagged))
    values = {name: component[ids] for name, ids in identities.values.items()}
    places: dict[tuple[str, str], Ids] = {}
    for node in net.nodes:
        if node.op == "parameter" and values[node.name].size > 1:
            places[node.name, "each"] = _along_one_axis(values[node.name])
    places |= {(place.node, place.role): component[place.ids] for place in claims.places}
    groups = _groups(places, reasons, flags)
    frozen = {
        node: reasons[int(components[0])]
        for (node, role), components in places.items()
        if role == "out" and int(components[0]) in reasons
    }
    return Coupling(
        groups=groups,
        frozen=frozen,
        values=values,
        places=places,
        balances=_distinct([Balance(b.node, component[b.parts]) for b in claims.balances]),
        components=int(component.max(initial=-1)) + 1,
        identities=identities,
    )


def _components(claims: Claims) -> Ids:
    """Return the component of each identity.

    Grids that must stay rectangular may demand that more identities are one, and so on until nothing changes.
    """
    while True:
        component = _connected(claims.count, claims.same)
        frozen = np.zeros(claims.count + 1, bool)
        for ids, _ in claims.frozen:
            frozen[component[ids]] = True
        before = len(claims.same)
        for ids in claims.rectangular:
            grid = np.where(frozen[component[ids]], -1, component[ids])
            axis = _axis_to_keep(grid)
            if axis is not None:
                head = ids
                for other in (i for i in range(ids.ndim) if i != axis):
                    head = head.take([0], other)
                one, every = np.broadcast_arrays(head, ids)
                claims.same.append((one.reshape(-1), every.reshape(-1)))
        if len(claims.same) == before:
            return component


def _reasons(component: Ids, said: Sequence[tuple[Ids, str]]) -> dict[int, str]:
    """The first thing said of each component that something is said of."""
    which = np.full(int(component.max(initial=-1)) + 1, -1)
    for number, (ids, _) in reversed(list(enumerate(said))):
        which[component[ids]] = number
    return {int(c): said[which[c]][1] for c in np.flatnonzero(which >= 0)}


def _axis_to_keep(grid: Ids) -> int | None:
    """The dimension along which a grid shall differ, or None where it differs along one at most already."""
    differing = [i for i in range(grid.ndim) if grid.shape[i] > 1 and not bool((grid == grid.take([0], i)).all())]
    if len(differing) < 2:
        return None
    return next((axis for axis in differing if _slabs_are_apart(grid, axis)), differing[0])


def _slabs_are_apart(grid: Ids, axis: int) -> bool:
    """True where no channel is in two slabs along the dimension, so that slabs could be cut."""
    slabs = np.moveaxis(grid, axis, 0).reshape(grid.shape[axis], -1)
    return sum(len(np.unique(slab)) for slab in slabs) == len(np.unique(slabs)) and not bool((slabs == -1).any())


def _connected(count: int, same: Sequence[tuple[Ids, Ids]]) -> Ids:
    first, second = (np.concatenate([pair[i] for pair in same] or [np.zeros(0, np.int64)]) for i in (0, 1))
    links = coo_array((np.ones(len(first), np.int8), (first, second)), shape=(count, count))
    found: Ids = connected_components(links, directed=False)[1].astype(np.int64)
    return found


def _along_one_axis(components: Ids) -> Ids:
    """The components along the one dimension in which they differ."""
    for axis in range(components.ndim):
        line = components
        for other in (i for i in range(components.ndim) if i != axis):
            line = line.take([0], other)
        if bool((components == line).all()):
            return line.reshape(-1)
    return components.reshape(-1)


def _groups(
    places: Mapping[tuple[str, str], Ids], reasons: Mapping[int, str], flags: Mapping[int, str]
) -> tuple[ChannelGroup, ...]:
    where: dict[int, list[tuple[str, str, int]]] = defaultdict(list)
    for (node, role), components in places.items():
        for position, component in enumerate(components.tolist()):
            where[component].append((node, role, position))
    alike: dict[tuple[tuple[str, str], ...], list[int]] = defaultdict(list)
    for component, spots in where.items():
        if component not in reasons and any(role == "out" for _, role, _ in spots):
            alike[tuple((node, role) for node, role, _ in spots)].append(component)
    groups = []
    for signature, channels in alike.items():
        positions = np.array([[position for _, _, position in where[channel]] for channel in channels])
        columns: dict[tuple[str, str], list[int]] = defaultdict(list)
        for column, place in enumerate(signature):
            columns[place].append(column)
        cuts = tuple(Cut(node, role, positions[:, at]) for (node, role), at in columns.items())
        flag = next((flags[channel] for channel in channels if channel in flags), "")
        groups.append(ChannelGroup(_name(cuts), len(channels), cuts, np.array(channels), flag))
    return tuple(groups)


def _name(cuts: Sequence[Cut]) -> str:
    """A group is called after the first layer that makes it, and its first channel there if that is not the first."""
    place = next(cut for cut in cuts if cut.role == "out")
    first = int(place.positions[0, 0])
    return f"{place.node}[{first}]" if first else place.node


def _distinct(balances: Sequence[Balance]) -> tuple[Balance, ...]:
    """Each demand once: a convolution and the norm behind it often make the same one."""
    found: dict[bytes, Balance] = {}
    for balance in balances:
        found.setdefault(np.array(balance.parts.shape).tobytes() + balance.parts.tobytes(), balance)
    return tuple(found.values())


def _are_distinct_below(size: int, kept: NDArray[np.int64]) -> bool:
    if kept.ndim != 1 or not len(kept) or not np.issubdtype(kept.dtype, np.integer):
        return False
    return len(np.unique(kept)) == len(kept) and bool(kept.min() >= 0 and kept.max() < size)
