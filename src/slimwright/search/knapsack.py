"""Choose how many channels each group keeps, and the ranks of layers, so that the predicted damage is least.

Every layer's cost depends on the groups it reads, the groups it writes, and its own rank, so choices interact. Greedy:
while a limit is exceeded, shrink the item whose step buys the most relief per damage, looking at every smaller size;
then polish: give channels or ranks back where there is room, and trade between two items while that lowers the damage.
Channels and ranks are multiples of the step that the runtime likes. Of wide groups not every multiple is listed: what a
plan of listed sizes leaves of the limits is given back between them. Where costs are sums, plans are also found from
above (`dual.py`), the better one counts, and how far from the least damage it can be is known. A limit on peak memory
alone is a program that a solver takes (`moments.py`).
"""

import heapq
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from slimwright.search.choices import Counts
from slimwright.search.dual import Bound, Dual, Unbounded
from slimwright.search.predictor import Predictor
from slimwright.search.summed import Variation
from slimwright.techniques.prune import Removal

STARTS = 4  # of the choices that a bound meets: so many are improved on
PARTS = 8  # into which the gap between two sizes is divided, again and again
LEAST_GAIN = 1e-5  # of the damage, that a trade must save: the smallest ones take most of the time
_Step: TypeAlias = tuple[float, float, str, int]  # damage per relief, damage, item, size


@dataclass(frozen=True)
class Plan:
    """How many channels each group keeps, and ranks; `predicted` holds each limited cost, `feasible` that all fit."""

    counts: Counts
    damage: float
    predicted: Mapping[str, float]
    feasible: bool
    least: float | None = None  # damage that any choice within the limits has; None: not known

    @property
    def gap(self) -> float | None:
        """How much more damage the plan has than the least that is possible, as a share of that; None: not known."""
        if self.least is None or not self.feasible:
            return None
        return max(self.damage / self.least - 1, 0.0) if self.least > 0 else float(self.damage > 0)


@dataclass(frozen=True)
class Problem:
    """What to choose from: sizes per item (the whole first, then descending), their damage, a choice's costs.

    `steps` names items that may have sizes between those that are listed but the whole, and their distance.
    """

    sizes: Mapping[str, Sequence[int]]
    damage: Mapping[str, Callable[[int], float]]
    costs: Callable[[Counts], Mapping[str, float]]
    relief_falls: bool = False  # what a step brings is never more once others are taken: sums of products of sizes
    dual: Callable[[Counts], Dual] | None = None  # bounds for choices that use about as much memory as one does
    program: Callable[[Mapping[str, float]], Bound | None] | None = None  # finds a plan and its bound under limits
    steps: Mapping[str, int] = field(default_factory=dict)


def problem(
    removals: Mapping[str, Removal],
    predictor: Predictor,
    costs: Callable[[Counts], Mapping[str, float]],
    *,
    ranks: Mapping[str, NDArray[np.float64]] | None = None,
    channel_weight: float = 1.0,
) -> Problem:
    """Return the choice to make; groups without a removal order, and layers without `ranks`, stay whole.

    `ranks` holds the predicted damage [R + 1] of each item of a rank at 0, 1, 2 ... in nats; that of channels counts
    `channel_weight` times. Errors of removed channels add up worse than those of ranks in some nets (ten times in a
    ResNet-20, not at all in a MobileNetV2, November 2026): try some, and compare the nets that come of it.
    """
    losses: dict[str, Callable[[int], float]] = {
        name: _damage(removal, channel_weight) for name, removal in removals.items()
    }
    losses |= {name: _damage_at(damage) for name, damage in (ranks or {}).items()}
    open_sizes = {name: (s if name in losses else s[:1]) for name, s in predictor.sizes.items()}
    return Problem(open_sizes, {name: losses.get(name, lambda _: 0.0) for name in open_sizes}, costs)


def solve(problem: Problem, limits: Mapping[str, float]) -> Plan:
    """Return the least damaging choice found within the limits, or the nearest to them there is."""
    if problem.program is not None and (bound := problem.program(limits)) is not None:
        return _planned(problem, _refined(problem, bound.met[0], limits), limits, bound.damage)
    counts: Mapping[str, int] = {name: sizes[0] for name, sizes in problem.sizes.items()}
    known: list[_Step] = []  # what steps brought when they were last looked at, a heap
    while (excess := _excess(problem.costs(counts), limits)) > 0:
        best = _best_step(problem, counts, limits, excess, known)
        if best is None:
            break
        counts = {**counts, best[0]: best[1]}
    least = None
    if excess <= 0:
        counts = _polished(problem, counts, limits)
        if problem.dual is not None:
            counts, least = _bounded(problem, problem.dual, counts, limits)
        counts = _refined(problem, counts, limits)
    return _planned(problem, counts, limits, least)


def _planned(problem: Problem, counts: Counts, limits: Mapping[str, float], least: float | None) -> Plan:
    costs = problem.costs(counts)
    predicted = {name: costs[name] for name in limits}
    return Plan(counts, _total(problem, counts), predicted, _excess(costs, limits) <= 0, least)


def _bounded(
    problem: Problem, dual: Callable[[Counts], Dual], counts: Counts, limits: Mapping[str, float]
) -> tuple[Counts, float | None]:
    """The better of a choice and those that are met on the way to the least damage that is possible, and that."""
    try:
        bound = dual(counts).bound(limits)
    except Unbounded:
        return counts, None
    fitting = [one for one in bound.met if _excess(problem.costs(one), limits) <= 0]
    fitting.sort(key=lambda one: _total(problem, one))
    found = [counts, *(_polished(problem, one, limits) for one in fitting[:STARTS])]
    return min(found, key=lambda one: _total(problem, one)), bound.damage


def _best_step(
    problem: Problem, counts: Mapping[str, int], limits: Mapping[str, float], excess: float, known: list[_Step]
) -> tuple[str, int] | None:
    """The smaller size, of any group, that costs the least damage for the relief it brings; None if all are smallest.

    Where no single step brings relief (peak memory is a maximum, so several groups must shrink), the least damage.
    If relief only ever falls, a step that was worse when it was `known` need not be looked at again.
    """

    def priced(name: str, size: int) -> _Step:
        relief = excess - _excess(problem.costs(Variation(counts, {name: size})), limits)
        damage = problem.damage[name](size) - problem.damage[name](counts[name])
        return (damage / relief if relief > 1e-12 else math.inf, damage, name, size)

    smaller = ((name, size) for name, sizes in problem.sizes.items() for size in sizes if size < counts[name])
    if not problem.relief_falls:
        steps = [priced(*step) for step in smaller]
        return min(steps)[2:] if steps else None
    if not known:
        known += [priced(*step) for step in smaller]
        heapq.heapify(known)
    fresh: set[tuple[str, int]] = set()
    while known:
        *_, name, size = known[0]
        if size >= counts[name]:
            heapq.heappop(known)
        elif (name, size) in fresh:
            known[:] = [(-math.inf, 0.0, *step[2:]) if step[2] == name else step for step in known]  # look again
            heapq.heapify(known)
            return name, size
        else:
            fresh.add((name, size))
            heapq.heapreplace(known, priced(name, size))
    return None


def _polished(problem: Problem, counts: Mapping[str, int], limits: Mapping[str, float]) -> Mapping[str, int]:
    """Give channels back, alone or in trade for others, as long as that lowers the damage and still fits."""
    damages = {name: {s: problem.damage[name](s) for s in sizes} for name, sizes in problem.sizes.items()}
    while True:
        changed: set[str] = set()  # in this pass: what else was planned for these is out of date
        for change in _changes(problem, damages, counts, max(LEAST_GAIN * _total(problem, counts), 1e-15)):
            if changed.isdisjoint(change) and _excess(problem.costs(Variation(counts, change)), limits) <= 0:
                found = {**counts, **change}
                if _excess(problem.costs(found), limits) <= 0:  # a variation's costs are rounded otherwise
                    counts = found
                    changed.update(change)
        if not changed:
            return counts


def _refined(problem: Problem, counts: Counts, limits: Mapping[str, float]) -> Counts:
    """Polish a choice with sizes between those that are listed, ever nearer to the ones that it has."""
    sizes = {name: [*some] for name, some in problem.sizes.items()}
    while True:
        finer = {name: _finer(some, counts[name], problem.steps.get(name)) for name, some in sizes.items()}
        if finer == sizes:
            return counts
        sizes = finer
        counts = _polished(replace(problem, sizes=sizes), counts, limits)


def _finer(sizes: list[int], count: int, step: int | None) -> list[int]:
    """The sizes, with some more on both sides of `count`, whole steps away from it, but none next to the largest."""
    found, place = {*sizes}, sizes.index(count)
    for above in (place - 1, place):
        if step and 1 <= above < len(sizes) - 1:
            high, low = sizes[above], sizes[above + 1]
            stride = max((high - low) // PARTS // step, 1) * step
            found.update(range(low, high, stride) if low == count else range(high, low, -stride))
    return sorted(found, reverse=True)


def _changes(
    problem: Problem, damages: Mapping[str, Mapping[int, float]], counts: Mapping[str, int], least: float
) -> Iterator[dict[str, int]]:
    """One group up a size, alone or with another down to a smaller one: what saves `least`, the most first."""
    ups = [(n, [s for s in sizes if s > counts[n]][-1:]) for n, sizes in problem.sizes.items()]
    rises = [(name, up, damages[name][counts[name]] - damages[name][up]) for name, larger in ups for up in larger]
    falls: list[tuple[str, int, float]] = [("", 0, 0.0)]  # nothing in trade
    for name, sizes in problem.sizes.items():
        now = damages[name][counts[name]]
        falls += [(name, size, damages[name][size] - now) for size in sizes if size < counts[name]]
    saved = np.array([gain for *_, gain in rises])[:, None] - np.array([loss for *_, loss in falls])
    order = np.argsort(-saved, axis=None, kind="stable")
    for place in order[: int((saved > least).sum())].tolist():
        (up_name, up, _), (name, size, _) = rises[place // len(falls)], falls[place % len(falls)]
        if not name:
            yield {up_name: up}
        elif name != up_name:
            yield {up_name: up, name: size}


def _excess(costs: Mapping[str, float], limits: Mapping[str, float]) -> float:
    return sum(max(costs[name] / limit - 1, 0.0) for name, limit in limits.items())


def _total(problem: Problem, counts: Counts) -> float:
    return sum(problem.damage[name](count) for name, count in counts.items())


def _damage(removal: Removal, weight: float) -> Callable[[int], float]:
    return lambda count: weight * float(removal.damage[len(removal.order) - count])


def _damage_at(damage: NDArray[np.float64]) -> Callable[[int], float]:
    """Of a rank; beyond those that are listed nothing is lost."""
    return lambda rank: float(damage[rank]) if rank < len(damage) else 0.0
