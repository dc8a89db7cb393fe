"""Plan, measure, correct: until what was *measured* fits the limits, or it is clear that nothing does.

A prediction is only ever a first guess. Each round measures the chosen net as a whole and moves the aims of the next
plan by what the prediction was wrong, both ways: down where a limit was missed, up where there is room to give
channels back.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from slimwright.search.knapsack import Plan, Problem, solve

ROUNDS = 8
LEAST_STEP = 0.002  # of an aim, between two of which another is tried
FURTHER = 1.1  # times an aim that led to a plan that is known


@dataclass(frozen=True)
class Room:
    """How near to a limit plans go, as shares of it: what is aimed at, what counts as fitting, what is near enough.

    With less than `least`, channels are given back in another round. What a prediction misses is a share of it, or a
    number that hardly falls with it (`by_offset`): a file's nodes and scales stay as its weights get smaller.
    """

    aim: float
    most: float
    least: float
    by_offset: bool = False

    def next_aim(self, limit: float, predicted: float, measured: float) -> float:
        """Return what to aim at, where a plan was predicted and measured to cost so much."""
        if self.by_offset:
            return self.aim * limit + predicted - measured
        return self.aim * limit * predicted / measured


NOISY = Room(0.97, 0.985, 0.96)  # for the noise of the final measurement
COUNTED = Room(0.99, 1.0, 0.97, by_offset=True)  # what is predicted is only near to it
EXACT = Room(1.0, 1.0, 0.0)
ROOMS = {"latency_ms": NOISY, "energy_mj": NOISY, "size_bytes": COUNTED}


def room(name: str) -> Room:
    """Return the room that a cost needs below its limit."""
    return ROOMS.get(name, EXACT)


@dataclass(frozen=True)
class Correction:
    """How a cost of a plan was predicted, and how it was measured."""

    predicted: float
    measured: float


@dataclass(frozen=True)
class MeasuredPlan:
    """A plan, and what the net that it leads to was measured to cost."""

    plan: Plan
    measured: Mapping[str, float]
    fits: bool


def plan_by_measuring(
    problem: Problem,
    limits: Mapping[str, float],
    measure: Callable[[Plan], Mapping[str, float]],
    *,
    corrections: Mapping[str, Correction] | None = None,
    rounds: int = ROUNDS,
) -> MeasuredPlan | None:
    """Return the least damaging plan that measured within the limits, or else the one nearest to them.

    `measure` gives some of the limited costs of a plan; the others are exact as predicted. The first aims are
    corrected by what is known of a plan like this one. None where nothing has to be cut.
    """
    aims = {name: _first_aim(name, limit, (corrections or {}).get(name)) for name, limit in limits.items()}
    best: MeasuredPlan | None = None
    known: dict[frozenset[tuple[str, int]], Mapping[str, float]] = {}
    between: dict[str, _Between] = {}
    for _ in range(rounds):
        plan = solve(problem, aims)
        if all(count == problem.sizes[name][0] for name, count in plan.counts.items()):
            break
        counts = frozenset(plan.counts.items())
        is_new = counts not in known
        measured = known[counts] = measure(plan) if is_new else known[counts]
        shares = _shares(measured, limits)
        fits = all(plan.predicted[name] <= limits[name] for name in limits if name not in shares) and all(
            share <= room(name).most for name, share in shares.items()
        )
        if is_new:
            best = _better(best, MeasuredPlan(plan, measured, fits), limits)
        elif not any(one.is_open for one in between.values()):
            break
        near = any(share >= room(name).least for name, share in shares.items())
        if not shares or (fits and near) or (not plan.feasible and not fits):
            break
        for name, share in shares.items():
            corrected = room(name).next_aim(limits[name], plan.predicted[name], measured[name])
            bounds = between.setdefault(name, _Between())
            aims[name] = bounds.next(aims[name], corrected, fits=share <= room(name).most)
    return best


@dataclass
class _Between:
    """The largest aim at which a plan was found to fit, and the least at which none did."""

    low: float = 0.0
    high: float = math.inf

    @property
    def is_open(self) -> bool:
        """True where another aim may lead to a plan that is not known yet."""
        return self.high > (1 + LEAST_STEP) * self.low

    def next(self, aim: float, corrected: float, *, fits: bool) -> float:
        """Return what to aim at after an aim: as corrected, or where that leads nowhere new, further on or halfway."""
        self.low, self.high = (max(self.low, aim), self.high) if fits else (self.low, min(self.high, aim))
        if self.low < corrected < self.high:
            return corrected
        if self.high == math.inf:
            return self.low * FURTHER
        return (self.low + self.high) / 2 if self.low else self.high / FURTHER


def _shares(measured: Mapping[str, float], limits: Mapping[str, float]) -> dict[str, float]:
    """Of each limit that was measured, how much is used."""
    return {name: cost / limits[name] for name, cost in measured.items() if name in limits}


def _first_aim(name: str, limit: float, known: Correction | None) -> float:
    plain = room(name).aim * limit
    if known is None:
        return plain
    found = room(name).next_aim(limit, known.predicted, known.measured)
    return found if found > 0 else plain  # what was known is of a plan that was too far away


def _better(best: MeasuredPlan | None, found: MeasuredPlan, limits: Mapping[str, float]) -> MeasuredPlan:
    if best is None or found.fits > best.fits:
        return found
    if found.fits and best.fits:
        return min(best, found, key=lambda m: m.plan.damage)
    nearest, this = (max(_shares(one.measured, limits).values()) for one in (best, found))
    return found if not best.fits and this < nearest else best
