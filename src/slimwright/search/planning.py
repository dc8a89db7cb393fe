"""A plan for one form of the network, and the recipe that it leads to: what every policy that plans is made of."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from slimwright.search.knapsack import Plan, Problem
from slimwright.search.measured import MeasuredPlan, plan_by_measuring
from slimwright.search.menu import Menu, predicted_ms
from slimwright.search.space import Candidate, Evaluate, Evaluation, Space
from slimwright.techniques import Factorise, Quantize, Recipe, Solve, Step

CHANNEL_WEIGHT = 10.0
"""Of a removed channel beside a lost rank: its errors add up worse in some nets (ten times in a ResNet-20, not at all
in a MobileNetV2; our measurement of November 2026)."""
CHANNELS, FEW_BITS = "prune", "quantize"  # the techniques whose knobs are planned alone, too
SHARE, LEAST_IMAGES = 0.25, 128  # of the calibration images, by which candidates are ranked
MEASURED = {"latency_ms", "size_bytes", "energy_mj"}  # the other costs are exact as predicted


@dataclass(frozen=True)
class Whole:
    """The whole original in one precision: how it was measured, and the step that quantizes it."""

    name: str
    seen: Evaluation
    quantize: tuple[Quantize, ...] = ()


def planned_for(
    space: Space,
    evaluate: Evaluate,
    whole: Whole,
    alone: str | None,
    limits: Mapping[str, float],
    *,
    coarse: bool = False,
) -> tuple[MeasuredPlan, Menu] | None:
    """Plan for one precision: what it gains itself scales the predictions for FP32. None: there is nothing to cut."""
    menu = space.menu()

    def measure(plan: Plan) -> Mapping[str, float]:
        recipe = recipe_of(space, whole, [*menu.steps(plan.counts), Solve()])
        cost = evaluate(Candidate("plan", recipe, plan, predicted_ms(plan), cost_only=True)).cost
        return {name: float(getattr(cost, name) or 0.0) for name in measurable}

    measurable = limits.keys() & MEASURED
    task = problem_for(space, whole, tuple(limits), alone=alone, weights=weights_for(alone), coarse=coarse)
    found = plan_by_measuring(task, limits, measure if measurable else lambda _: {})
    return None if found is None else (found, menu)


def problem_for(
    space: Space,
    whole: Whole,
    limited: Sequence[str],
    *,
    alone: str | None = None,
    weights: Mapping[str, float] | None = None,
    coarse: bool = False,
) -> Problem:
    """Return the choice to make for one precision, under limits on these costs; INT8 leaves no bits to choose."""
    menu = space.menu()
    costs = menu.costs(space.original.cost, whole.seen.cost, whole.seen.tensor_share, limited)
    without = {FEW_BITS} if whole.quantize else ()
    return menu.problem(costs, alone=alone, without=without, weights=weights, coarse=coarse)


def weights_for(alone: str | None = None) -> Mapping[str, float] | None:
    """Return what the damage of techniques counts for where all are planned together; None for one `alone`."""
    return None if alone else {CHANNELS: CHANNEL_WEIGHT}


def is_of_one(menu: Menu, plan: Plan) -> bool:
    """True for a plan that takes nothing but channels, or nothing but bits."""
    return [*menu.used(plan.counts)] in ([CHANNELS], [FEW_BITS])


def coarseness(space: Space, alone: str | None) -> tuple[bool, ...]:
    """Return how channels may be planned, one way after the other: single ones, then in the runtime's steps.

    Odd counts can make a smaller net slower than the original. Then the second way is tried, where there are two.
    """
    return (False, True) if alone != FEW_BITS and space.menu().coarse_step else (False,)


def name_of(menu: Menu, plan: Plan, whole: Whole, *, coarse: bool = False) -> str:
    """Return what a plan does to the network in one precision, in words."""
    done = " and ".join(menu.used(plan.counts).values())
    if coarse:
        done = f"{done} in steps of {menu.coarse_step}"
    return f"{done}, {whole.name}" if whole.quantize else done


def fewer_images(space: Space) -> int:
    """Return on how many calibration images candidates are solved, to be ranked."""
    return min(max(LEAST_IMAGES, round(SHARE * space.images)), space.images)


def recipe_of(space: Space, whole: Whole, steps: Sequence[Step]) -> Recipe:
    """Return the recipe that takes these steps, and quantizes as a whole was."""
    return space.recipe.of(space.net, *steps, *whole.quantize)


def on_images(steps: Sequence[Step], images: int, of: int) -> tuple[Step, ...]:
    """Return steps whose weights come from so many calibration images, of all that there are."""
    found = []
    for step in steps:
        if isinstance(step, Solve):
            step = Solve(images=images if images < of else None)
        elif (isinstance(step, Factorise) and step.images) or isinstance(step, Quantize):
            step = step.model_copy(update={"images": images})
        found.append(step)
    return tuple(found)
