"""What a search looks through, and how policies speak about it.

A policy is a function `(space, evaluate, journal) -> Evaluation`. It proposes candidates, `evaluate` builds and
measures them (each once: results are journaled), and it returns the one to ship. Policies know no runtime.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from slimwright.cost import Budget, Cost
from slimwright.errors import RequestError
from slimwright.graph import Net
from slimwright.measure import Outcome
from slimwright.progress import Tell, silent
from slimwright.search.journal import Journal
from slimwright.search.knapsack import Plan
from slimwright.search.measured import room
from slimwright.search.menu import Menu
from slimwright.tasks import Metric
from slimwright.techniques import Recipe

PAYS = 0.97  # a candidate must take less than this share of the time of what it replaces, or it is taken back


@dataclass(frozen=True)
class Candidate:
    """A network to try: the recipe that makes it. `plan` and `predicted_ms` are what a plan predicted of it.

    With `cost_only` its weights need not be solved, since only its costs are asked for.
    """

    name: str
    recipe: Recipe
    plan: Plan | None = None
    predicted_ms: float | None = None
    cost_only: bool = False


@dataclass(frozen=True)
class Evaluation:
    """A candidate with its measurements; the score is that on the validation part, in the metric's unit."""

    candidate: Candidate
    key: str  # under which the journal keeps it, and its files
    precision: str
    cost: Cost
    score: float
    proven: bool  # the runtime's outputs are those of its net
    why: str = ""  # it is not proven
    tensor_share: float = 1.0  # of the kernels' time, in kernels that multiply by weights

    @property
    def name(self) -> str:
        """The candidate's name."""
        return self.candidate.name

    @property
    def latency_ms(self) -> float:
        """Measured milliseconds of an image."""
        assert self.cost.latency_ms is not None
        return self.cost.latency_ms


@dataclass(frozen=True)
class Tuning:
    """Fine-tuning with the original as teacher, where the metric drops too far without: once, or for `minutes`."""

    epochs: int = 3
    rate: float = 0.02
    seed: int = 0
    minutes: float | None = None  # then rounds of `epochs` follow one another while they help

    def __post_init__(self) -> None:
        if self.minutes is not None and not 0 < self.minutes < float("inf"):
            raise RequestError(f"fine-tuning takes more than 0 minutes, not {self.minutes:g}")


@dataclass(frozen=True)
class Goal:
    """What is wanted: limits, resolved in the unit of each name, and what shall be best within them."""

    budget: Budget
    limits: Mapping[str, float]
    metric: Metric


@dataclass(frozen=True)
class Space:
    """What can be chosen from, and what is wanted of it."""

    goal: Goal
    net: Net  # the original
    original: Evaluation
    encodings: Sequence[str]  # of weights, that the runtime has besides float32
    images: int  # calibration images
    menu: Callable[[], Menu]  # what plans choose from; priced when it is first asked for
    recipe: type[Recipe]
    tune: Tuning
    note: Callable[[str, Outcome, str], None]  # what, outcome, why: decisions for the report
    tell: Tell = silent  # how far a search is

    @property
    def budget(self) -> Budget:
        """What the user asked for."""
        return self.goal.budget

    @property
    def limits(self) -> Mapping[str, float]:
        """Limits by the cost's name."""
        return self.goal.limits

    @property
    def metric(self) -> Metric:
        """What scores and drops count in."""
        return self.goal.metric

    @property
    def layers(self) -> list[str]:
        """The layers with weights, in execution order."""
        return [node.name for node in self.net.weighted()]

    def drop(self, one: Evaluation) -> float:
        """Return how much worse than the original's a score is, in the metric's steps, on the validation part."""
        return self.metric.drop(self.original.score, one.score)

    def time_share(self, one: Evaluation, other: Evaluation | None = None) -> float:
        """Return a latency as a share of another's, or of the original's."""
        return one.latency_ms / (other or self.original).latency_ms

    def pays(self, one: Evaluation) -> bool:
        """Return False where a candidate was measured to be slower than the original, noise apart."""
        return one.latency_ms <= self.original.latency_ms / PAYS

    def shares(self, one: Evaluation) -> dict[str, float]:
        """Return each limited cost as a share of its limit."""
        return {name: float(getattr(one.cost, name)) / limit for name, limit in self.limits.items()}

    def fits(self, one: Evaluation) -> bool:
        """True where every limit holds, with room for the noise of the final measurement."""
        return all(share <= room(name).most for name, share in self.shares(one).items())

    def best(self, made: Sequence[Evaluation]) -> Evaluation:
        """Return the one to ship of those that were evaluated, the original among them.

        Slower than the original, or outputs that are not its net's: out. Then those that fit the limits; if none does,
        the one that misses by least. Of those, with an objective, the one with the least cost within `max_drop`;
        without, the one with the best score.
        """
        return min((one for one in made if one.key == self.original.key or self.ships(one)), key=self._rank)

    def ships(self, one: Evaluation) -> bool:
        """Return True for what may ship: proven, and not slower than the original."""
        return one.proven and self.pays(one)

    def _rank(self, one: Evaluation) -> tuple[float, float, float, float]:
        over = sum(max(share - room(name).most, 0.0) for name, share in self.shares(one).items())
        drop, objective = self.drop(one), self.budget.objective
        if objective is None:
            return over, drop, one.latency_ms, 0.0
        too_low = max(drop - self.budget.max_drop, 0.0)
        return over, too_low, float(getattr(one.cost, objective)), drop

    def why_not(self, one: Evaluation, best: Evaluation) -> str:
        """Say why a candidate was not chosen."""
        if not one.proven:
            return f"it failed its proof: {one.why}"
        if not self.pays(one):
            return f"it takes {self.time_share(one):.2f}x the original's time; a slower model is never shipped"
        over = [f"{name} is {share:.2f}x its limit" for name, share in self.shares(one).items() if share > 1]
        if over:
            return "; ".join(over)
        behind = self.metric.drop(best.score, one.score)
        if behind > 0 and self.budget.objective is None:
            return f"{self.metric.number(behind)} {self.metric.step} worse on the validation part than '{best.name}'"
        if self.drop(one) > self.budget.max_drop and self.budget.objective is not None:
            lost = self.metric.number(self.drop(one))
            return f"it loses {lost} {self.metric.step}, more than {self.budget.max_drop:g}"
        return f"not better than '{best.name}', at {self.time_share(one, best):.2f}x its time"


Evaluate: TypeAlias = Callable[[Candidate], Evaluation]
Policy: TypeAlias = Callable[[Space, Evaluate, Journal], Evaluation]


def said_of_policy(policy: Policy) -> str:
    """Return what tells a policy from others: its `said`, where it has settings of its own, or else its name."""
    said = getattr(policy, "said", None)
    return said if isinstance(said, str) else str(policy.__qualname__)
