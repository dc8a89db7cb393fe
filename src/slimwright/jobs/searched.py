"""The search of a job: a policy looks through the space, and what it found is journaled.

A search that has ended is not run again: the journal holds its winner, its candidates and its decisions.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slimwright.cost import Budget
from slimwright.jobs.bench import Bench
from slimwright.jobs.proposed import proposed
from slimwright.jobs.stages import Stages
from slimwright.jobs.verdicts import candidate_of, reachable, verdicts
from slimwright.measure import CandidateRecord, Decision
from slimwright.search import Candidate, Evaluation, Policy, Tuning
from slimwright.techniques import Recipe

ENDED = "ended"  # the key of a search's result in the journal


@dataclass(frozen=True)
class Found:
    """What a search found: the winner's key and recipe, every candidate, and every decision."""

    key: str
    recipe: Recipe
    candidates: list[CandidateRecord]
    decisions: list[Decision]
    channel_step: int
    reachable: list[str]  # in place of a budget that is missed


def searched(bench: Bench, policy: Policy, budget: Budget, tune: Tuning, *, stages: Stages, cache: Path) -> Found:
    """Return what a policy finds; from the journal where it has ended before."""
    ended = bench.journal.once(ENDED, lambda: _search(bench, policy, budget, tune, stages=stages, cache=cache))
    return Found(
        key=ended["key"],
        recipe=bench.method.recipe.model_validate(ended["recipe"]),
        candidates=[CandidateRecord.model_validate(entry) for entry in ended["candidates"]],
        decisions=[Decision.model_validate(entry) for entry in ended["decisions"]],
        channel_step=ended["channel_step"],
        reachable=ended["reachable"],
    )


def _search(
    bench: Bench, policy: Policy, budget: Budget, tune: Tuning, *, stages: Stages, cache: Path
) -> Mapping[str, Any]:
    what = proposed(bench, budget, tune, stages=stages, cache=cache)
    made: dict[str, Evaluation] = {what.space.original.key: what.space.original}

    def evaluate(candidate: Candidate) -> Evaluation:
        with stages("measure" if candidate.cost_only else "solve"):
            one = bench.evaluate(candidate)
        if not candidate.cost_only:
            made.setdefault(one.key, one)
        return one

    best = policy(what.space, evaluate, bench.journal)
    menu = what.menus[0] if what.menus else None
    return {
        "key": best.key,
        "recipe": best.candidate.recipe.model_dump(mode="json"),
        "candidates": [candidate_of(one, chosen=one.key == best.key).model_dump() for one in made.values()],
        "decisions": [d.model_dump() for d in verdicts(what.space, best, [*made.values()], what.decisions, menu)],
        "channel_step": menu.predictor.step if menu else 1,
        "reachable": reachable(what.space, [*made.values()]),
    }
