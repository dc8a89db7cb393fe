"""A search whose best answer is known: a residual net, counted exactly, whose score follows a script.

Some groups of channels may go for nothing and the others cost much; some blocks may be removed for nothing and the
others may not. What a policy is told is what any other is told; only the evaluation is scripted, so that it takes
milliseconds. Costs are counted on the net that a candidate's steps lead to.
"""

import functools
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from slimwright.cost import Budget, Cost, count
from slimwright.cost.latency import LatencyTable, one_by_one
from slimwright.coupling import couple
from slimwright.evidence import observe
from slimwright.graph import Net
from slimwright.importers import capture
from slimwright.measure import Outcome
from slimwright.progress import Event
from slimwright.search import (
    Candidate,
    Evaluation,
    Goal,
    Journal,
    Menu,
    Predictor,
    Space,
    Tuning,
    factorisable,
    key_of,
    open_journal,
)
from slimwright.tasks import Classification
from slimwright.techniques import Prune, Recipe, Remove, Solve, apply
from small_digits import few_digits

BLOCKS, CHANNELS = 6, 16
FREE = frozenset({3, 4, 5})  # blocks whose inner channels, and which themselves, cost nothing: the late ones
SCORE = 95.0
LOST = 12.0  # points, by a block that counts and is gone, or without any of its inner channels


class Block(nn.Module):
    """Two convolutions beside a shortcut."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = (nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] -> the same."""
        added: Tensor = self.second(self.first(x).relu())
        return x + added


@functools.cache
def residual_net() -> Net:
    """A stem, blocks, and a linear layer, not trained."""
    torch.manual_seed(0)
    layers = nn.Sequential(
        nn.Conv2d(1, CHANNELS, 3, 4, 1),
        *(Block() for _ in range(BLOCKS)),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(CHANNELS, 10),
    )
    return capture(layers.eval(), few_digits().image_shape)


@functools.cache
def menu(ranks: bool = False) -> Menu:
    """What can be chosen of the residual net: channels, and ranks too."""
    net, data = residual_net(), few_digits()
    evidence = observe(
        net,
        data.batches("calibration", 64),
        task=Classification(data.labels),
        seed=0,
        images=data.size("calibration"),
        taylor=False,
    ).all()
    table = LatencyTable(one_by_one(lambda shape: 1.0), None, {})
    thin = factorisable(net, evidence, 2) if ranks else ()
    predictor = Predictor(net, couple(net), table, 2, ranks=thin)
    return Menu.priced(predictor, evidence, images=data.size("calibration"))


def counted(net: Net) -> Cost:
    """The exact costs; every net takes as long as its multiply-accumulates say."""
    cost = count(net)
    return replace(cost, latency_ms=cost.macs * 1e-5, size_bytes=cost.weight_bytes)


def original() -> Evaluation:
    """The net as it is."""
    net = residual_net()
    return Evaluation(Candidate("original", Recipe.of(net)), "original", "fp32", counted(net), SCORE, True)


def scored(steps: tuple[Any, ...]) -> float:
    """What is left of the score: blocks that count cost it as much as they lose."""
    coupling = menu().observed.coupling
    inner = [group.name for group in coupling.groups if len(list(group.of("out"))) == 1]
    sums = [node.name for node in residual_net().nodes if node.op == "add"]
    gone = [name for step in steps if isinstance(step, Remove) for name in step.layers]
    kept = {name: list(left) for step in steps if isinstance(step, Prune) for name, left in step.keep.items()}
    left = SCORE
    for number, (name, total) in enumerate(zip(inner, sums, strict=True)):
        lost = 1.0 if total in gone else 1 - len(kept.get(name, range(CHANNELS))) / CHANNELS
        left -= 0.0 if number in FREE else LOST * lost
    others = [name for name in kept if name not in inner]
    left -= sum(LOST * (1 - len(kept[name]) / CHANNELS) for name in others)
    alone = [name for name in gone if name not in sums]
    return left - LOST * len(alone)


@dataclass
class Scripted:
    """Evaluates what is not in a journal, and keeps what was asked for."""

    journal: Journal
    most: int | None = None  # evaluations before it is killed
    asked: list[str] = field(default_factory=list)  # recipes, in order
    points: list[tuple[float, float]] = field(default_factory=list)  # of each: share of the work, and score
    evaluated: int = 0

    def __call__(self, candidate: Candidate) -> Evaluation:
        """Count a candidate's net, and look up its score."""
        said = candidate.recipe.model_dump_json()
        self.asked.append(said)
        key = key_of(said, candidate.cost_only)
        found = self.journal.once(key, lambda: self._measured(candidate))
        self.points.append((found["cost"]["macs"] / original().cost.macs, found["score"]))
        return Evaluation(candidate, key, "fp32", Cost(**found["cost"]), found["score"], True)

    def _measured(self, candidate: Candidate) -> dict[str, Any]:
        if self.evaluated == self.most:
            raise KeyboardInterrupt
        self.evaluated += 1
        steps = tuple(step for step in candidate.recipe.steps if not isinstance(step, Solve))
        net = apply(candidate.recipe.model_copy(update={"steps": steps}), residual_net(), few_digits())
        return {"cost": asdict(counted(net)), "score": scored(steps)}


@dataclass
class Told:
    """What a search told and noted."""

    events: list[Event] = field(default_factory=list)
    notes: list[tuple[str, Outcome, str]] = field(default_factory=list)


def space(limit: str = "0.6x", *, ranks: bool = False, told: Told | None = None, max_drop: float = 1.0) -> Space:
    """A limit on multiply-accumulates, nothing to tune."""
    budget, told = Budget(macs=limit, max_drop=max_drop), told or Told()
    goal = Goal(budget, budget.absolute(original().cost), Classification(few_digits().labels).metric)
    return Space(
        goal,
        residual_net(),
        original(),
        (),
        few_digits().size("calibration"),
        lambda: menu(ranks),
        Recipe,
        Tuning(0),
        lambda *note: told.notes.append(note),
        told.events.append,
    )


def searched(
    policy: Callable[..., Evaluation], folder: Path, where: Space, *, most: int | None = None
) -> tuple[Evaluation, Scripted]:
    """Run a policy, with what an earlier run left in the folder."""
    journal = open_journal(folder)
    evaluate = Scripted(journal, most)
    return policy(where, evaluate, journal), evaluate
