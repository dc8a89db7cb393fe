"""The first policy: plan by predicted damage, measure, correct; once per precision, by channels alone and by all knobs.

Candidates are ranked by weights solved on a share of the calibration images. The best is then solved on all of them.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from slimwright.search.journal import Journal
from slimwright.search.measured import MeasuredPlan
from slimwright.search.menu import Menu, predicted_ms
from slimwright.search.planning import (
    CHANNELS,
    FEW_BITS,
    Whole,
    coarseness,
    fewer_images,
    is_of_one,
    name_of,
    on_images,
    planned_for,
    recipe_of,
)
from slimwright.search.rounded import is_packed, rounded
from slimwright.search.space import PAYS, Candidate, Evaluate, Evaluation, Space
from slimwright.search.tuning import tuned
from slimwright.techniques import Quantize, Round, Solve, Step, most_damaged
from slimwright.techniques.technique import plural

GOOD_ENOUGH = 0.25  # of the drop that is allowed: a whole network that loses no more, within all limits, will do
ROUNDS, LEAST_SHARE = 5, 0.05  # of the search for the least cost
FLOAT_SHARE = 0.5  # of what INT8 damages, that layers in float bear


def measured_plan(space: Space, evaluate: Evaluate, journal: Journal) -> Evaluation:
    """Return the evaluation to ship: the most accurate within the limits, or the cheapest within the drop allowed.

    Where a packed file is asked for, weights are rounded for it, and stay in float for the runtime.
    """
    wholes = [Whole("fp32", space.original), *(() if is_packed(space) else quantized_wholes(space, evaluate))]
    made = [whole.seen for whole in wholes]
    if is_good_enough(space, space.best(made)):
        space.note("planning", "not chosen", "a whole network is within the budget already; nothing has to be cut")
        return space.best(made)
    if is_packed(space):
        made += rounded(space, evaluate)
    else:
        made += (_least_cost if space.budget.objective else _within)(space, evaluate, wholes)
    made = _with_best_in_full(space, evaluate, made)
    made += tuned(space, evaluate, journal, space.best(made))
    return space.best(made)


def plan_once(space: Space, evaluate: Evaluate, journal: Journal) -> Evaluation:
    """Return the best of the whole networks and of one plan for each precision, by all knobs: a point of a front."""
    wholes = [Whole("fp32", space.original), *quantized_wholes(space, evaluate)]
    made = [whole.seen for whole in wholes]
    for whole in wholes:
        best = space.best(made)
        if space.fits(best) and space.drop(best) <= 0:
            break  # a plan can only lose
        found = planned_for(space, evaluate, whole, None, space.limits)
        made += [] if found is None else solved(space, evaluate, whole, found)
    return space.best(made)


def is_good_enough(space: Space, best: Evaluation) -> bool:
    """True for a whole network within all limits that loses next to nothing."""
    allowed = GOOD_ENOUGH * space.budget.max_drop
    return space.budget.objective is None and space.fits(best) and space.drop(best) <= allowed


def quantized_wholes(space: Space, evaluate: Evaluate) -> Iterator[Whole]:
    """The whole original in every other encoding that is proven, and faster or (where size counts) as fast.

    Where INT8 loses too much, or fails its proof, its weights are rounded by least squares; then its first and last
    layers stay in float; then those that bear half of what INT8 is predicted to damage, for the fewest MACs. What loses
    no less than what was tried before it counts for nothing.
    """
    for encoding in space.encodings:
        least = math.inf
        for name, step in _ways(space, encoding):
            seen = evaluate(Candidate(name, space.recipe.of(space.net, step)))
            share = space.time_share(seen)
            pays = share < PAYS or (space.budget.concerns("size_bytes") and space.pays(seen))
            if seen.proven and pays and space.drop(seen) < least:
                least = space.drop(seen)
                yield Whole(name, seen, (step,))
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
        menu = space.menu()
        macs = {name: menu.predictor.macs_of(name, menu.predictor.whole) for name in menu.predictor.shapes}
        kept = most_damaged(space.net, menu.observed.evidence, macs, FLOAT_SHARE)
        if kept and kept != ends:
            name = f"{encoding}, {plural(len(kept), 'layer')} in float that it damages most"
            yield name, solved.model_copy(update={"keep_float": kept})


def _within(space: Space, evaluate: Evaluate, wholes: Sequence[Whole]) -> Iterator[Evaluation]:
    """A candidate for each precision, by channels alone and by all knobs, that was measured within the limits."""
    for whole in wholes:
        for alone in (CHANNELS, FEW_BITS, None):
            for one in _built(space, evaluate, whole, alone, space.limits):
                yield one
                if space.ships(one) and space.fits(one) and space.drop(one) <= 0:
                    return  # nothing that is tried after it can be measured to be better


def _built(
    space: Space,
    evaluate: Evaluate,
    whole: Whole,
    alone: str | None,
    limits: Mapping[str, float],
    objective: str = "",
) -> Iterator[Evaluation]:
    """The candidate of a plan within limits; where it is slower than the original, another in coarser steps."""
    for coarse in coarseness(space, alone):
        found = planned_for(space, evaluate, whole, alone, limits, coarse=coarse)
        if found is None or (not objective and alone is None and is_of_one(found[1], found[0].plan)):
            return  # nothing to cut, or what was planned alone already
        made = list(solved(space, evaluate, whole, found, objective, coarse=coarse))
        yield from made
        if all(space.pays(one) for one in made):
            return


def _least_cost(space: Space, evaluate: Evaluate, wholes: Sequence[Whole]) -> Iterator[Evaluation]:
    """Candidates with ever less of the cost to minimise, as long as they lose no more than is allowed: bisection."""
    objective = space.budget.objective
    assert objective is not None
    for whole in wholes:
        most = float(getattr(whole.seen.cost, objective))
        low, high = LEAST_SHARE, 1.0
        for _ in range(ROUNDS):
            share = (low * high) ** 0.5
            limits = {**space.limits, objective: min(share * most, space.limits.get(objective, most))}
            made = list(_built(space, evaluate, whole, None, limits, objective))
            yield from made
            holds = bool(made) and space.drop(made[-1]) <= space.budget.max_drop
            low, high = (low, share) if holds else (share, high)


def solved(
    space: Space,
    evaluate: Evaluate,
    whole: Whole,
    planned: tuple[MeasuredPlan, Menu],
    objective: str = "",
    *,
    coarse: bool = False,
) -> Iterator[Evaluation]:
    """The candidate of a plan, solved on a share of the images, unless it was measured not to pay.

    Of several plans that minimise an objective, the name says how much of it is left.
    """
    found, menu = planned
    name = name_of(menu, found.plan, whole, coarse=coarse)
    if objective:
        left = found.measured.get(objective, found.plan.predicted[objective])
        name = f"{name}, {left / float(getattr(space.original.cost, objective)):.2f}x {space.budget.minimise}"
    share = found.measured.get("latency_ms", 0.0) / whole.seen.latency_ms
    if share > PAYS and tuple(space.limits) == ("latency_ms",):
        why = f"the smaller net takes {share:.2f}x the time of the whole one; measured"
        space.note(f"plan '{name}'", "taken back", why)
        return
    images = fewer_images(space)
    steps = on_images([*menu.steps(found.plan.counts), Solve()], images, of=space.images)
    recipe = recipe_of(space, whole, steps)
    yield evaluate(Candidate(name, recipe, found.plan, predicted_ms(found.plan)))


def _with_best_in_full(space: Space, evaluate: Evaluate, made: Sequence[Evaluation]) -> list[Evaluation]:
    """Solve the best on all images, where it was solved on a share; it goes before that, since it ships if they tie.

    Those that were rounded are only near the size that was asked for, and count for nothing any more.
    """
    best = space.best(made)
    full = in_full(space, evaluate, best)
    if full is best:
        return [*made]
    if is_packed(space) and full.proven:
        return [space.original, full]
    place = made.index(best)
    return [*made[:place], full, *made[place:]]


def in_full(space: Space, evaluate: Evaluate, one: Evaluation) -> Evaluation:
    """Return a candidate solved on all images; itself where it was."""
    steps = one.candidate.recipe.steps
    whole = tuple(_on_all(step, space.images) for step in steps)
    if whole == steps:
        return one
    recipe = one.candidate.recipe.model_copy(update={"steps": whole})
    return evaluate(replace(one.candidate, name=f"{one.name}, solved in full", recipe=recipe))


def _on_all(step: Step, images: int) -> Step:
    """A step whose weights come from all calibration images."""
    if isinstance(step, Round):
        return Round(**step.model_dump(exclude={"step", "images", "within"}))
    if isinstance(step, Solve):
        return Solve()
    return step.model_copy(update={"images": images}) if isinstance(step, Quantize) else step
