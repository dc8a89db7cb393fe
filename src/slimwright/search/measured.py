"""Plan, measure, correct: until what was *measured* fits the limits, or it is clear that nothing does.

A prediction is only ever a first guess. Each round measures the chosen net as a whole and moves the aims of the next
plan by what the prediction was wrong, both ways: down where a limit was missed, up where there is room to give
channels back.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from slimwright.search.knapsack import Plan, Problem, solve

ROUNDS = 5


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


NOISY = Room(0.95, 0.97, 0.92)  # for the noise of the final measurement
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
    seen: list[Mapping[str, int]] = []
    for _ in range(rounds):
        plan = solve(problem, aims)
        if plan.counts in seen or all(count == problem.sizes[name][0] for name, count in plan.counts.items()):
            break
        seen.append(plan.counts)
        measured = measure(plan)
        shares = {name: cost / limits[name] for name, cost in measured.items() if name in limits}
        exact = all(plan.predicted[name] <= limits[name] for name in limits if name not in shares)
        found = MeasuredPlan(plan, measured, exact and all(share <= room(name).most for name, share in shares.items()))
        best = _better(best, found, shares, limits)
        near = any(share > room(name).least for name, share in shares.items())
        if not shares or (found.fits and near) or (not plan.feasible and not found.fits):
            break
        aims |= {name: room(name).next_aim(limits[name], plan.predicted[name], measured[name]) for name in shares}
    return best


def _first_aim(name: str, limit: float, known: Correction | None) -> float:
    plain = room(name).aim * limit
    if known is None:
        return plain
    found = room(name).next_aim(limit, known.predicted, known.measured)
    return found if found > 0 else plain  # what was known is of a plan that was too far away


def _better(
    best: MeasuredPlan | None, found: MeasuredPlan, shares: Mapping[str, float], limits: Mapping[str, float]
) -> MeasuredPlan:
    if best is None or found.fits > best.fits:
        return found
    if found.fits and best.fits:
        return min(best, found, key=lambda m: m.plan.damage)
    nearest = max(best.measured[name] / limits[name] for name in shares)
    return found if not best.fits and max(shares.values()) < nearest else best
