"""Choose channels to keep, so that every part that must keep equally many does.

Grouped convolutions need equal counts per group, not equal positions. Over residual sums, shuffles and
concatenations the demands of several layers meet in the same channels, so counts are found by a small integer program:
*cells* are the channels of a group that all demands treat alike; each demand says that its parts keep equally many; the
counts nearest to the wanted share win. Within a cell the channels with the highest scores stay.

A *ladder* goes down in units: single channels, or where a shuffle lays them out in rows and columns one of each row, so
that what is left can be shuffled again, and no gather, which many runtimes have no fast kernel for, takes its place.
"""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from slimwright.coupling.channels import ChannelGroup, Coupling
from slimwright.coupling.identities import Balance
from slimwright.coupling.views import Ids
from slimwright.errors import RequestError

SECONDS = 5.0  # for one integer program; what is found by then counts
Cell = tuple[ChannelGroup, Ids]  # a group, and units of its channels: [units, channels of each]


@dataclass(frozen=True)
class Ladder:
    """The counts to which a group may be cut where layers need equal parts of it: the whole first, then ever fewer."""

    cells: tuple[Ids, ...]  # units of channels that go together, [units, channels of each], that demands treat alike
    rungs: tuple[tuple[int, ...], ...]  # of each cell, how many units stay

    @property
    def sizes(self) -> list[int]:
        """Channels that stay at each rung."""
        each = [members.shape[1] for members in self.cells]
        return [sum(stay * of for stay, of in zip(rung, each, strict=True)) for rung in self.rungs]

    def first(self, size: int) -> Ids:
        """The first channels of each cell at the rung of that size."""
        rung = self.rungs[self.sizes.index(size)]
        return np.sort(np.concatenate([members[:stay].flat for members, stay in zip(self.cells, rung, strict=True)]))


def ladders(coupling: Coupling, sizes: Callable[[int, int], Sequence[int]]) -> dict[str, Ladder]:
    """Return where to go down with each group of which layers need equal parts.

    `sizes` gives the counts wanted of a group of some size in some parts; those that can be and are nearest are the
    rungs. A group that equal parts bind to others has its whole alone.
    """
    found = {}
    balanced = [group for group in coupling.groups if group.name in coupling.balanced]
    units = {group.name: _in_columns(coupling, group) for group in balanced}
    for cells, balances in _bound_together(coupling, balanced, units):
        groups = {group.name: group for group, _ in cells}
        for name, group in groups.items():
            rungs = [tuple(len(members) for of, members in cells if of is group)]
            parts = max(len(balance.parts) for balance in balances)
            for size in sizes(group.size, parts) if len(groups) == 1 else ():
                rung = _proportional(coupling, group, cells, balances, size)
                rung = rung or tuple(_counts(coupling, cells, balances, {name: size / group.size}, 1))
                if rung != rungs[-1] and all(np.less_equal(rung, rungs[-1])):
                    rungs.append(rung)
            found[name] = Ladder(tuple(members for of, members in cells if of is group), tuple(rungs))
    return found


def _in_columns(coupling: Coupling, group: ChannelGroup) -> list[Ids]:
    """The channels of a group, those together that stand in one column where a value lays them out in two dimensions.

    Columns run along the shorter dimension, and in a square across the channels that follow each other.
    """
    place = np.full(coupling.components, -1)
    place[group.components] = np.arange(group.size)
    links = [(channel, channel) for channel in range(group.size)]
    for components in coupling.values.values():
        laid_out = place[components].squeeze() if components.size else np.zeros(0)
        if laid_out.ndim == 2 and (laid_out >= 0).all():
            high, wide = laid_out.shape
            upright = high < wide or (high == wide and laid_out[0, 1] < laid_out[1, 0])
            rows = laid_out if upright else laid_out.T
            links += [(first, other) for row in rows[1:] for first, other in zip(rows[0], row, strict=True)]
    _, label = connected_components(coo_array((np.ones(len(links)), tuple(np.array(links).T))), False)
    return [np.flatnonzero(label == number) for number in np.unique(label)]


def _proportional(
    coupling: Coupling, group: ChannelGroup, cells: Sequence[Cell], balances: Sequence[Balance], size: int
) -> tuple[int, ...] | None:
    """The same share of each of a group's cells; None where that is no number of units or leaves parts unequal."""
    if any(len(members) * size % group.size for _, members in cells):
        return None
    share = np.ones(coupling.components)
    share[group.components] = size / group.size
    levels = [share[balance.parts].sum(1) for balance in balances]
    if any(level.min() < 1 - 1e-9 or np.ptp(level) > 1e-9 for level in levels):
        return None
    return tuple(len(members) * size // group.size for _, members in cells)


def choose(
    coupling: Coupling,
    share: float | Mapping[str, float],
    *,
    scores: Mapping[str, NDArray[np.float64]] | None = None,
    multiple: int = 1,
    seed: int = 0,
) -> dict[str, Ids]:
    """Return which channels each group keeps, for `cut`: about `share` (0..1) of each group, the highest scores.

    `share` may differ by group; groups it does not name stay whole. Without scores [size] the choice is random, from
    `seed`. Counts are multiples of `multiple` where the group is large enough. Groups that equal parts bind together
    keep the nearest counts that can be, at worst all. Raises RequestError for a share outside 0..1.
    """
    rng = np.random.default_rng(seed)
    shares = {g.name: share for g in coupling.groups} if isinstance(share, int | float) else dict(share)
    if any(not 0 <= s <= 1 for s in shares.values()) or multiple < 1:
        raise RequestError(f"shares must lie in 0..1 and the multiple be at least 1; got {shares} and {multiple}")
    given = scores or {}
    sizes = {group.name: group.size for group in coupling.groups}
    for name in (*shares, *given):
        if name not in sizes:
            raise RequestError(f"there is no channel group '{name}'; the groups are {', '.join(sizes)}")
    for name, score in given.items():
        if np.shape(score) != (sizes[name],):
            raise RequestError(f"group '{name}' has {sizes[name]} channels; its scores have shape {np.shape(score)}")
    rank = {g.name: np.asarray(given.get(g.name, rng.random(g.size)), np.float64) for g in coupling.groups}
    groups = [group for group in coupling.groups if group.name in shares]
    counts: list[tuple[Cell, int]] = [
        ((group, np.arange(group.size)[:, None]), _rounded(group.size, shares[group.name], multiple))
        for group in groups
        if group.name not in coupling.balanced
    ]
    balanced = [group for group in groups if group.name in coupling.balanced]
    singles = {group.name: list(np.arange(group.size)[:, None]) for group in balanced}
    for cells, balances in _bound_together(coupling, balanced, singles):
        counts += zip(cells, _counts(coupling, cells, balances, shares, multiple), strict=True)
    kept: dict[str, list[int]] = defaultdict(list)
    for (group, units), count in counts:
        members = units[:, 0]
        best = members[np.argsort(-rank[group.name][members], kind="stable")[:count]]
        kept[group.name] += best.tolist()
    keep = {name: np.sort(np.array(channels, np.int64)) for name, channels in kept.items()}
    return _without_gaps(coupling, keep, rank)


def _rounded(size: int, share: float, multiple: int) -> int:
    """The count nearest to the share that is a multiple, at least one; sizes below the multiple are halves of it."""
    while multiple > size:
        multiple //= 2
    stepped = min(max(round(size * share / multiple), 1) * multiple, size // multiple * multiple)
    return min(stepped, size, key=lambda count: abs(count - size * share))


def _bound_together(
    coupling: Coupling, groups: Sequence[ChannelGroup], units: Mapping[str, Sequence[Ids]]
) -> list[tuple[list[Cell], list[Balance]]]:
    """The cells of each set of groups that demands bind together, and those demands."""
    if not groups:
        return []
    owner = np.full(coupling.components, -1)
    for number, group in enumerate(groups):
        owner[group.components] = number
    members = [np.unique(owner[b.parts][owner[b.parts] >= 0]) for b in coupling.balances]
    links = [(first[0], other) for first in members if len(first) for other in first]
    pairs = np.array(links or [(0, 0)]).T
    _, label = connected_components(coo_array((np.ones(pairs.shape[1]), tuple(pairs)), shape=(len(groups),) * 2), False)
    found = []
    for number in np.unique(label):
        inside = [group for group, at in zip(groups, label, strict=True) if at == number]
        balances = [b for b, m in zip(coupling.balances, members, strict=True) if len(m) and label[m[0]] == number]
        cells = [cell for group in inside for cell in _cells(coupling, group, balances, units[group.name])]
        found.append((cells, balances))
    return found


def _cells(coupling: Coupling, group: ChannelGroup, balances: Sequence[Balance], units: Sequence[Ids]) -> list[Cell]:
    """The units of a group, put together where every demand counts them in the same parts."""
    tables = [_times(coupling, balance)[:, group.components] for balance in balances]  # [parts, size]
    alike: dict[tuple[int, ...], list[Ids]] = defaultdict(list)
    for unit in units:
        counted = [count for table in tables for count in table[:, unit].sum(1).tolist()]
        alike[len(unit), *counted].append(unit)
    return [(group, np.array(alike_units)) for alike_units in alike.values()]


def _times(coupling: Coupling, balance: Balance) -> Ids:
    """How often each part holds each component: [parts, components]."""
    table = np.zeros((len(balance.parts), coupling.components), np.int64)
    for part, components in enumerate(balance.parts):
        np.add.at(table[part], components, 1)
    return table


def _counts(
    coupling: Coupling, cells: Sequence[Cell], balances: Sequence[Balance], shares: Mapping[str, float], multiple: int
) -> list[int]:
    """Solve for the counts of cells, in multiples per group if that can be; at worst all channels stay."""
    whole = [len(members) for _, members in cells]
    for step in dict.fromkeys((multiple, 1)):
        found = _Program(coupling, cells, balances, shares, step).solved()
        if found is not None:
            return found
    return whole


class _Program:
    """An integer program: a count and a distance per cell, a level per demand, a number of steps per group."""

    def __init__(
        self,
        coupling: Coupling,
        cells: Sequence[Cell],
        balances: Sequence[Balance],
        shares: Mapping[str, float],
        step: int,
    ) -> None:
        self.groups = {group.name: group.size for group, _ in cells}
        self.cells, self.levels = cells, len(balances)
        self.width = 2 * len(cells) + self.levels + len(self.groups)
        self.rows: list[NDArray[np.float64]] = []
        self.low: list[float] = []
        self.high: list[float] = []
        for number, balance in enumerate(balances):
            self._balance(coupling, number, balance)
        for at, (group, members) in enumerate(cells):  # distance >= |count - wanted|
            wanted = len(members) * shares[group.name]
            for sign in (1.0, -1.0):
                self._demand({at: -sign, len(cells) + at: 1.0}, -sign * wanted, np.inf)
        for number, (name, size) in enumerate(self.groups.items()):
            inside = {at: 1.0 for at, (group, _) in enumerate(cells) if group.name == name}
            self._demand(inside, 1.0, np.inf)
            if size % step == 0:
                self._demand({**inside, 2 * len(cells) + self.levels + number: -float(step)}, 0.0, 0.0)

    def solved(self) -> list[int] | None:
        """The counts, or None where the demands cannot be met."""
        from scipy.optimize import Bounds, LinearConstraint, milp  # it takes half a second to import

        n = len(self.cells)
        others = self.levels + len(self.groups)
        sizes = [len(members) for _, members in self.cells]
        found = milp(
            np.concatenate([np.zeros(n), np.ones(n), np.zeros(others)]),
            constraints=LinearConstraint(np.array(self.rows), self.low, self.high),
            integrality=np.concatenate([np.ones(n), np.zeros(n), np.ones(others)]),
            bounds=Bounds(
                np.concatenate([np.zeros(2 * n), np.ones(self.levels), np.zeros(len(self.groups))]),
                np.concatenate([sizes, np.full(n + others, np.inf)]),
            ),
            options={"time_limit": SECONDS, "mip_rel_gap": 0.02},
        )
        return None if found.x is None else [int(count) for count in np.round(found.x[:n])]

    def _balance(self, coupling: Coupling, number: int, balance: Balance) -> None:
        """Every part keeps as many as the level says, what is never cut included."""
        table = _times(coupling, balance)
        free = np.zeros(coupling.components, bool)
        for group, members in self.cells:
            free[group.components[members]] = True
        for part in table:
            row = {
                at: float(part[group.components[members[0]]].sum()) for at, (group, members) in enumerate(self.cells)
            }
            always = float(part[~free].sum())
            self._demand({**row, 2 * len(self.cells) + number: -1.0}, -always, -always)

    def _demand(self, row: Mapping[int, float], low: float, high: float) -> None:
        full = np.zeros(self.width)
        full[list(row)] = list(row.values())
        self.rows.append(full)
        self.low.append(low)
        self.high.append(high)


def _without_gaps(
    coupling: Coupling, keep: Mapping[str, Ids], rank: Mapping[str, NDArray[np.float64]]
) -> dict[str, Ids]:
    """Keep at least one channel of every value and of every slice of one."""
    keep = dict(keep)
    alive = np.ones(coupling.components, bool)
    owner: dict[int, tuple[ChannelGroup, int]] = {}
    for group in coupling.groups:
        for channel, component in enumerate(group.components.tolist()):
            owner[component] = group, channel
        if group.name in keep:
            alive[np.delete(group.components, keep[group.name])] = False
    for components in coupling.values.values():
        if components.size and not alive[components].any():
            group, _ = owner[int(components.flat[0])]
            inside = [owner[c][1] for c in components.reshape(-1).tolist() if owner[c][0] is group]
            best = max(inside, key=lambda channel: rank[group.name][channel])
            added = np.arange(group.size) if group.name in coupling.balanced else np.union1d(keep[group.name], [best])
            keep[group.name] = added
            alive[group.components[added]] = True
    return keep
