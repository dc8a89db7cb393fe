"""The first policy: plan by predicted damage, measure, correct; once per precision, by channels alone and by all knobs.

Candidates are ranked by weights solved on a share of the calibration images. The best is then solved on all of them.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from slimwright.search.journal import Journal
from slimwright.search.knapsack import Plan
from slimwright.search.measured import MOST, MeasuredPlan, plan_by_measuring
from slimwright.search.menu import Menu, predicted_ms
from slimwright.search.space import PAYS, Candidate, Evaluate, Evaluation, Space
from slimwright.search.tuning import tuned
from slimwright.techniques import Factorise, Quantize, Recipe, Solve, Step

CHANNEL_WEIGHT = 10.0
"""Of a removed channel beside a lost rank: its errors add up worse in some nets (ten times in a ResNet-20, not at all
in a MobileNetV2; our measurement of November 2026)."""
CHANNELS = "prune"  # the technique whose knobs are planned alone, too
SHARE, LEAST_IMAGES = 0.25, 128  # of the calibration images, by which candidates are ranked
GOOD_ENOUGH = (
    0.25  # of the drop that is allowed: a whole network that loses no more, within all limits, ends the search
)
ROUNDS, LEAST_SHARE = 5, 0.05  # of the search for the least cost


MEASURED = {"latency_ms", "size_bytes", "energy_mj"}  # the other costs are exact as predicted


@dataclass(frozen=True)
class _Whole:
    """The whole original in one precision: how it was measured, and the step that quantizes it."""

    name: str
    seen: Evaluation
    quantize: tuple[Quantize, ...] = ()


def measured_plan(space: Space, evaluate: Evaluate, journal: Journal) -> Evaluation:
    """Return the evaluation to ship: the most accurate within the limits, or the cheapest within the drop allowed."""
    wholes = [_Whole("fp32", space.original), *_quantized(space, evaluate)]
    made = [whole.seen for whole in wholes]
    if _is_good_enough(space, space.best(made)):
        space.note("planning", "not chosen", "a whole network is within the budget already; nothing has to be cut")
        return space.best(made)
    plans = _least_cost(space, evaluate, wholes) if space.budget.objective else _within(space, evaluate, wholes)
    made += plans
    made = _with_best_in_full(space, evaluate, made)
    made += tuned(space, evaluate, journal, space.best(made))
    return space.best(made)


def plan_once(space: Space, evaluate: Evaluate, journal: Journal) -> Evaluation:
    """Return the best of the whole networks and of one plan for each precision, by all knobs: a point of a front."""
    wholes = [_Whole("fp32", space.original), *_quantized(space, evaluate)]
    made = [whole.seen for whole in wholes]
    for whole in wholes:
        best = space.best(made)
        if _fits(space, best) and space.drop(best) <= 0:
            break  # a plan can only lose
        found = _planned(space, evaluate, whole, None, space.limits)
        made += [] if found is None else _solved(space, evaluate, whole, found)
    return space.best(made)


def _is_good_enough(space: Space, best: Evaluation) -> bool:
    """True for a whole network within all limits that loses next to nothing."""
    allowed = GOOD_ENOUGH * space.budget.max_drop
    return space.budget.objective is None and _fits(space, best) and space.drop(best) <= allowed


def _fits(space: Space, one: Evaluation) -> bool:
    """True where every limit holds, with room for the noise of the final measurement."""
    return all(share <= MOST for share in space.shares(one).values())


def _quantized(space: Space, evaluate: Evaluate) -> Iterator[_Whole]:
    """The whole original in every other encoding that is proven, and faster or (where size counts) as fast.

    Where INT8 loses too much, or fails its proof, its weights are rounded by least squares; then its first and last
    layers stay in float. What loses no less than what was tried before it counts for nothing.
    """
    for encoding in space.encodings:
        least = math.inf
        for name, step in _ways(space, encoding):
            seen = evaluate(Candidate(name, space.recipe.of(space.net, step)))
            share = space.time_share(seen)
            smaller_will_do = "size_bytes" in space.limits or space.budget.objective == "size_bytes"
            pays = share < PAYS or (smaller_will_do and space.pays(seen))
            if seen.proven and pays and space.drop(seen) < least:
                least = space.drop(seen)
                yield _Whole(name, seen, (step,))
            if seen.proven and space.drop(seen) <= space.budget.max_drop:
                break


def _ways(space: Space, encoding: str) -> Iterator[tuple[str, Quantize]]:
    """How to quantize, the cheapest way first: as the runtime does, by least squares, and with layers in float."""
    plain = Quantize(precision="int8", images=space.images)
    yield encoding, plain
    solved = plain.model_copy(update={"rounding": "least squares"})
    yield f"{encoding}, rounded by least squares", solved
    if len(space.layers) > 2:
        ends = (space.layers[0], space.layers[-1])
        yield f"{encoding}, {len(ends)} layers in float", solved.model_copy(update={"keep_float": ends})


def _within(space: Space, evaluate: Evaluate, wholes: Sequence[_Whole]) -> Iterator[Evaluation]:
    """A candidate for each precision, by channels alone and by all knobs, that was measured within the limits."""
    for whole in wholes:
        for alone in (CHANNELS, None):
            found = _planned(space, evaluate, whole, alone, space.limits)
            if found is None or (alone is None and _by_channels(found)):
                continue  # nothing to cut, or what was planned alone already
            for one in _solved(space, evaluate, whole, found):
                yield one
                if space.ships(one) and _fits(space, one) and space.drop(one) <= 0:
                    return  # nothing that is tried after it can be measured to be better


def _by_channels(planned: tuple[MeasuredPlan, Menu]) -> bool:
    """True for a plan that takes channels and nothing else."""
    found, menu = planned
    return [*menu.used(found.plan.counts)] == [CHANNELS]


def _least_cost(space: Space, evaluate: Evaluate, wholes: Sequence[_Whole]) -> Iterator[Evaluation]:
    """Candidates with ever less of the cost to minimise, as long as they lose no more than is allowed: bisection."""
    objective = space.budget.objective
    assert objective is not None
    for whole in wholes:
        most = float(getattr(whole.seen.cost, objective))
        low, high = LEAST_SHARE, 1.0
        for _ in range(ROUNDS):
            share = (low * high) ** 0.5
            limits = {**space.limits, objective: min(share * most, space.limits.get(objective, most))}
            found = _planned(space, evaluate, whole, None, limits)
            made = [] if found is None else list(_solved(space, evaluate, whole, found, objective))
            yield from made
            holds = bool(made) and all(space.drop(one) <= space.budget.max_drop for one in made)
            low, high = (low, share) if holds else (share, high)


def _planned(
    space: Space, evaluate: Evaluate, whole: _Whole, alone: str | None, limits: Mapping[str, float]
) -> tuple[MeasuredPlan, Menu] | None:
    """Plan for one precision: what it gains itself scales the predictions for FP32. None: there is nothing to cut."""
    menu = space.menu()
    costs = menu.costs(space.original.cost, whole.seen.cost, whole.seen.tensor_share, tuple(limits))

    def measure(plan: Plan) -> Mapping[str, float]:
        recipe = _recipe(space, whole, menu.steps(plan.counts))
        cost = evaluate(Candidate("plan", recipe, plan, predicted_ms(plan), cost_only=True)).cost
        return {name: float(getattr(cost, name) or 0.0) for name in measurable}

    measurable = limits.keys() & MEASURED
    task = menu.problem(costs, limits, alone=alone, weights=None if alone else {CHANNELS: CHANNEL_WEIGHT})
    found = plan_by_measuring(task, limits, measure if measurable else lambda _: {})
    return None if found is None else (found, menu)


def _solved(
    space: Space, evaluate: Evaluate, whole: _Whole, planned: tuple[MeasuredPlan, Menu], objective: str = ""
) -> Iterator[Evaluation]:
    """The candidate of a plan, solved on a share of the images, unless it was measured not to pay.

    Of several plans that minimise an objective, the name says how much of it is left.
    """
    found, menu = planned
    name = " and ".join(menu.used(found.plan.counts).values())
    name = name if not whole.quantize else f"{name}, {whole.name}"
    if objective:
        left = found.measured.get(objective, found.plan.predicted[objective])
        name = f"{name}, {left / float(getattr(space.original.cost, objective)):.2f}x {space.budget.minimise}"
    share = found.measured.get("latency_ms", 0.0) / whole.seen.latency_ms
    if share > PAYS and tuple(space.limits) == ("latency_ms",):
        why = f"the smaller net takes {share:.2f}x the time of the whole one; measured"
        space.note(f"plan '{name}'", "taken back", why)
        return
    images = min(max(LEAST_IMAGES, round(SHARE * space.images)), space.images)
    steps = _on([*menu.steps(found.plan.counts), Solve()], images, of=space.images)
    recipe = _recipe(space, whole, steps)
    yield evaluate(Candidate(name, recipe, found.plan, predicted_ms(found.plan)))


def _recipe(space: Space, whole: _Whole, steps: Sequence[Step]) -> Recipe:
    return space.recipe.of(space.net, *steps, *whole.quantize)


def _on(steps: Sequence[Step], images: int, of: int) -> tuple[Step, ...]:
    """Return steps whose weights come from so many calibration images, of all that there are."""
    found = []
    for step in steps:
        if isinstance(step, Solve):
            step = Solve(images=images if images < of else None)
        elif isinstance(step, Factorise) and step.images:
            step = step.model_copy(update={"images": images})
        found.append(step)
    return tuple(found)


def _with_best_in_full(space: Space, evaluate: Evaluate, made: Sequence[Evaluation]) -> list[Evaluation]:
    """Solve the best on all images, where it was solved on a share; it goes before that, since it ships if they tie."""
    best = space.best(made)
    steps = best.candidate.recipe.steps
    whole = tuple(Solve() if isinstance(step, Solve) else step for step in steps)
    if whole == steps:
        return [*made]
    recipe = best.candidate.recipe.model_copy(update={"steps": whole})
    full = evaluate(replace(best.candidate, name=f"{best.name}, solved in full", recipe=recipe))
    place = made.index(best)
    return [*made[:place], full, *made[place:]]
