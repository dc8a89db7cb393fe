"""Plans for one of many budgets: what is planned is built at once as it would ship, and the first that will do ends it.

`measured_plan` ranks candidates on a share of the images, and measures plans before their weights are solved. Where
many budgets are asked of one network, nearly all that is learned of a plan is known already: the whole networks were
measured once for all, and by how much a plan's costs were predicted wrongly is known of a finished plan like it
(`corrections`). So a plan is built in full, by channels alone first, which are solved in half the time.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

from slimwright.search.knapsack import Plan, solve
from slimwright.search.measured import Correction, plan_by_measuring, room
from slimwright.search.measured_plan import is_good_enough
from slimwright.search.menu import predicted_ms
from slimwright.search.planning import (
    CHANNELS,
    FEW_BITS,
    MEASURED,
    Whole,
    coarseness,
    is_of_one,
    name_of,
    on_images,
    problem_for,
    recipe_of,
    weights_for,
)
from slimwright.search.space import PAYS, Candidate, Evaluate, Evaluation, Space
from slimwright.techniques import Solve

ROUNDS = 3  # of building and correcting; `plan_by_measuring` has five, of plans that are not solved
WAYS = (CHANNELS, FEW_BITS, None)  # one technique alone, or all
SHORTER = 0.98  # of a limit on time, that plans are built for: one of many is not timed for long
GOOD_ENOUGH = 0.5  # of the drop that is allowed: with less, no other way is tried


@dataclass(frozen=True)
class Direct:
    """What came of one budget: the evaluation to ship, and how costs of the last plan were predicted and measured."""

    best: Evaluation
    corrections: Mapping[str, Correction] = field(default_factory=dict)


def direct_plan(
    space: Space, evaluate: Evaluate, wholes: Sequence[Whole], corrections: Mapping[str, Correction] | None = None
) -> Direct:
    """Return the evaluation to ship, of the whole networks in each precision and of plans that are built in full.

    `corrections` are those of a plan for nearly the same budget.
    """
    made, known = [whole.seen for whole in wholes], dict(corrections or {})
    if is_good_enough(space, space.best(made)):
        return Direct(space.best(made), known)
    for whole in wholes:
        for way in WAYS:
            for one, seen in _built(space, evaluate, whole, way, known):
                made.append(one)
                known |= seen
            if space.ships(best := space.best(made)) and _will_do(space, best):
                return Direct(best, known)
    return Direct(space.best(made), known)


def planned(space: Space, whole: Whole) -> Plan:
    """Return what would be planned first for a budget; by all techniques where channels alone cannot meet the limits.

    Nothing is built: all of it is predicted.
    """
    plan = _first_plan(space, whole, CHANNELS)
    return plan if plan.feasible else _first_plan(space, whole, None)


def _will_do(space: Space, best: Evaluation) -> bool:
    return space.fits(best) and space.drop(best) <= GOOD_ENOUGH * space.budget.max_drop


def _first_plan(space: Space, whole: Whole, way: str | None) -> Plan:
    aims = {name: limit * room(name).aim for name, limit in space.limits.items()}
    return solve(problem_for(space, whole, tuple(aims), alone=way, weights=weights_for(way)), aims)


def _built(
    space: Space, evaluate: Evaluate, whole: Whole, way: str | None, corrections: Mapping[str, Correction]
) -> Iterator[tuple[Evaluation, Mapping[str, Correction]]]:
    """Every plan that was built for one precision in one way, with what is learned of its predictions."""
    menu, made = space.menu(), list[tuple[Evaluation, Mapping[str, Correction]]]()
    measurable = space.limits.keys() & MEASURED

    def measure(plan: Plan, coarse: bool) -> Mapping[str, float]:
        if way is None and is_of_one(menu, plan):
            return {}  # it was built before, alone
        steps = on_images([*menu.steps(plan.counts), Solve()], space.images, of=space.images)
        name, recipe = name_of(menu, plan, whole, coarse=coarse), recipe_of(space, whole, steps)
        one = evaluate(Candidate(name, recipe, plan, predicted_ms(plan)))
        costs = {cost: float(getattr(one.cost, cost) or 0.0) for cost in measurable}
        made.append((one, {cost: Correction(plan.predicted[cost], found) for cost, found in costs.items() if found}))
        return costs if one.proven and space.time_share(one, whole.seen) <= 1 / PAYS else {}

    limits = {name: limit * (SHORTER if name == "latency_ms" else 1.0) for name, limit in space.limits.items()}
    weights = weights_for(way)
    for coarse in coarseness(space, way):
        task = problem_for(space, whole, tuple(limits), alone=way, weights=weights, coarse=coarse)
        measured = partial(measure, coarse=coarse)
        plan_by_measuring(task, limits, measured, corrections=corrections, rounds=ROUNDS)
        if not made or any(space.pays(one) for one, _ in made):
            break
    yield from made
