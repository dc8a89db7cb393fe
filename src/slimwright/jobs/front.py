"""Many budgets at once: a network is observed once, its layers are timed once, and each limit on latency is planned.

Every point is built, run and scored on the validation part, and journaled, so a job that was killed loses at most the
one that was being made. Weights are solved on a share of the calibration images, as those of candidates are; nothing is
fine-tuned, and the test part is not read. `shrink` with the limit of a point then makes the model to ship.
"""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from torch import nn

from slimwright.cost import Budget
from slimwright.data import Dataset
from slimwright.errors import BudgetError
from slimwright.graph import Net
from slimwright.jobs.bench import Bench
from slimwright.jobs.given import versions
from slimwright.jobs.opened import STAGE, Asked, Out, Settings, opened
from slimwright.jobs.proposed import proposed
from slimwright.jobs.stages import Stages
from slimwright.jobs.verdicts import candidate_of
from slimwright.measure import (
    FRONT,
    FRONT_FILES,
    DataCard,
    Front,
    FrontPoint,
    Original,
    TaskCard,
    as_json,
)
from slimwright.progress import Event, Tell
from slimwright.report import missing_page, write_front
from slimwright.search import Candidate, Evaluation, Goal, Space, plan_once
from slimwright.tasks import Metric, Task

SHARES = (0.9, 0.75, 0.6, 0.5, 0.4, 0.3, 0.2)  # of the original's latency
ANY_DROP = 100.0  # no loss is too much for a point


def front(
    model: nn.Module | Net | Original,
    *,
    data: Dataset,
    out: Path | str,
    shares: Sequence[float] = SHARES,
    task: Task | None = None,
    settings: Settings | None = None,
    tell: Tell | None = None,
) -> Front:
    """Return the best network found for each of `shares` of the original's latency, and write `out`.

    `out` appears whole or not at all. Raises BudgetError for shares that are not limits, and RequestError for what
    cannot be done.
    """
    settings, budgets = settings or Settings(), [_budget(share) for share in _descending(shares)]
    asked = Asked(model, data, task, ("front", repr(settings.tuning)))
    with opened(asked, settings, Out(Path(out), FRONT, FRONT_FILES), tell) as job:
        bench, stages = job.bench, job.stages
        with stages(STAGE):
            bench.original()
        with stages("search"):
            what = proposed(bench, budgets[0], settings.tuning, stages=stages, cache=job.cache)
            found = []
            for number, budget in enumerate(budgets):
                job.tell(Event("front", number, len(budgets), f"latency {budget.latency_ms}"))
                found.append(_planned(bench, what.space, budget, stages))
            job.tell(Event("front", len(budgets), len(budgets)))
        record = _record(bench, budgets, found, settings.name, stages)
        (job.folder / FRONT).write_text(as_json(record))
        if why := missing_page():
            job.tell(Event("report", 1, 1, why))
        else:
            write_front(job.folder, record)
    return record


def _descending(shares: Sequence[float]) -> list[float]:
    if not shares or not all(0 < share <= 1 for share in shares):
        raise BudgetError(f"a front needs shares of the original's latency, above 0 and up to 1, not {list(shares)}")
    return sorted(set(shares), reverse=True)


def _budget(share: float) -> Budget:
    return Budget(latency_ms=f"{share:.10g}x", max_drop=ANY_DROP)


def _planned(bench: Bench, first: Space, budget: Budget, stages: Stages) -> Evaluation:
    """The best network for one budget, from the menu that all share."""
    goal = Goal(budget, budget.absolute(first.original.cost), first.metric)
    space = replace(first, goal=goal)

    def evaluate(candidate: Candidate) -> Evaluation:
        with stages("measure" if candidate.cost_only else "solve"):
            return bench.evaluate(candidate)

    return plan_once(space, evaluate, bench.journal)


def _record(bench: Bench, budgets: Sequence[Budget], found: Sequence[Evaluation], name: str, stages: Stages) -> Front:
    given, place, original = bench.given, bench.place, bench.original()
    points = []
    for budget, one in zip(budgets, found, strict=True):
        limit_ms = budget.absolute(original.cost)["latency_ms"]
        points.append(
            FrontPoint(
                share=limit_ms / original.latency_ms,
                limit_ms=limit_ms,
                candidate=candidate_of(one, chosen=False),
                latency_ratio=one.latency_ms / original.latency_ms,
                fits=one.latency_ms <= limit_ms,
                dominated=any(_beats(other, one, given.task.metric) for other in found),
            )
        )
    return Front(
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        seconds=stages.seconds,
        model=name,
        runtime=place.runtime,
        target=place.target.name,
        machine=dict(place.target.about()),
        versions=versions(),
        seed=int(bench.context["seed"]),
        task=TaskCard.of(given.task),
        data=DataCard.of(given.data),
        original=candidate_of(original, chosen=False),
        points=points,
    )


def _beats(other: Evaluation, one: Evaluation, metric: Metric) -> bool:
    """True where another was measured at least as fast and as good, and better in one of them."""
    behind, slower = metric.drop(other.score, one.score), one.latency_ms - other.latency_ms
    return behind >= 0 and slower >= 0 and behind + slower > 0
