"""Candidates that a search tries: each judged cheaply, counted, and shown as a front that grows.

Weights are solved on a share of the calibration images, and the metric is that of the validation part. A candidate that
was tried before is not counted again. Nothing here is random but by the seed and the number of a try, so a search that
was killed proposes the same candidates again, and finds them in the journal.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch

from slimwright.cost.budget import called
from slimwright.progress import Event
from slimwright.search.knapsack import Plan
from slimwright.search.measured import room
from slimwright.search.menu import predicted_ms
from slimwright.search.planning import MEASURED, Whole, fewer_images, on_images, recipe_of
from slimwright.search.policies.front import drawing, front
from slimwright.search.policies.ground import Ground
from slimwright.search.policies.reward import cost_share
from slimwright.search.space import Candidate, Evaluate, Evaluation, Space
from slimwright.techniques import Solve, Step
from slimwright.techniques.knobs import Choice

STAGE = "search"
PATIENCE = 4  # proposals for each try that is left: a policy that repeats itself ends
MOST_WRONG = 2.0  # by which a prediction is corrected at most
_LARGE_PRIME = 1_000_003


@dataclass
class Tries:
    """What was tried so far, by recipe, of at most so many tries."""

    space: Space
    evaluate: Evaluate
    whole: Whole
    name: str  # of the policy
    most: int
    seed: int
    made: dict[str, Evaluation] = field(default_factory=dict)
    proposed: int = 0
    repeated: int = 0  # of the last proposals, how many in a row were known
    wrong: list[Mapping[str, float]] = field(default_factory=list)  # predicted costs, as shares of the measured ones

    @property
    def over(self) -> bool:
        """True where no try is left."""
        return len(self.made) >= self.most or self.proposed >= PATIENCE * self.most

    @property
    def left(self) -> int:
        """How many tries are left."""
        return self.most - len(self.made)

    def aims(self) -> dict[str, float]:
        """Return what predictions must stay within, for each limit, corrected by how wrong they were so far."""
        found = {}
        for name, limit in self.space.limits.items():
            ratios = [each[name] for each in self.wrong if name in each]
            mean = sum(ratios) / len(ratios) if ratios else 1.0
            found[name] = room(name).aim * limit * min(max(mean, 1 / MOST_WRONG), MOST_WRONG)
        return found

    def random(self) -> torch.Generator:
        """Return the random numbers of the next proposal: they follow from the seed and its number."""
        return torch.Generator().manual_seed(self.seed * _LARGE_PRIME + self.proposed)

    def choice(self, ground: Ground, choice: Choice) -> Evaluation:
        """Try a choice of settings."""
        plan = ground.plan(choice, self.space.menu())
        return self(ground.steps(choice), plan)

    def __call__(self, steps: Sequence[Step], plan: Plan | None = None) -> Evaluation:
        """Try what these steps make of the original; without any, that is the whole net, which is known."""
        self.proposed += 1
        self.repeated += 1
        if not steps:
            return self.whole.seen
        space = self.space
        solved = on_images([*steps, Solve()], fewer_images(space), of=space.images)
        recipe = recipe_of(space, self.whole, solved)
        said = recipe.model_dump_json()
        if said in self.made:
            return self.made[said]
        self.repeated = 0
        name = f"{self.name} {len(self.made) + 1}"
        one = self.made[said] = self.evaluate(Candidate(name, recipe, plan, predicted_ms(plan)))
        if plan is not None and one.proven:
            costs = {each: float(getattr(one.cost, each)) for each in space.limits if each in MEASURED}
            self.wrong.append({each: plan.predicted[each] / cost for each, cost in costs.items()})
        self._tell(one)
        return one

    def _tell(self, one: Evaluation) -> None:
        """Say what the last try came to, and draw the front so far."""
        space, metric = self.space, self.space.metric
        points = {each.key: self._point(each) for each in (space.original, *self.made.values()) if each.proven}
        cost = called(next(iter(space.limits)))
        note = f"{one.name}: failed, {one.why}"
        if one.proven:
            at, _ = points[one.key]
            note = f"{one.name}: {at:.2f}x of the {cost}, {metric.name} {metric.shown(one.score)}"
            note += ", on the front" if points[one.key] in front([*points.values()]) else ""
        shown = drawing([*points.values()], cost, metric.name)
        space.tell(Event(STAGE, len(self.made), self.most, note, shown))

    def _point(self, one: Evaluation) -> tuple[float, float]:
        worth = one.score if self.space.metric.higher_is_better else -one.score
        return cost_share(self.space, one), worth
