"""What a fleet finds once, whatever is deployed: the model is checked and measured, and observed class by class."""

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from slimwright.cost.latency import LatencyTable
from slimwright.coupling import couple
from slimwright.data import Dataset, part_fingerprint
from slimwright.evidence import Evidence
from slimwright.graph import Net
from slimwright.jobs.bench import Bench
from slimwright.jobs.opened import STAGE, Asked, At, Settings, begun, checked
from slimwright.jobs.proposed import observed
from slimwright.jobs.stages import Stages
from slimwright.kept import keeping
from slimwright.measure import Original, TaskCard
from slimwright.progress import Tell
from slimwright.runtimes import lent
from slimwright.runtimes.layers import TRANSFORMED, timed_by
from slimwright.search import Evaluation, Predictor, factorisable
from slimwright.targets import layer_table
from slimwright.tasks import Making, Task
from slimwright.techniques import fold_batch_norm


@dataclass(frozen=True)
class Base:
    """What every deployment starts from. It travels to the workers."""

    original: Original
    data: Dataset
    wanted: Task | Making | str | None  # what the outputs mean, as it was asked for
    evidence: Evidence  # by class
    measured: Mapping[str, Evaluation]  # the original, by runtime
    tables: Mapping[str, LatencyTable]  # of single layers, by runtime
    settings: Settings
    context: Mapping[str, Any]  # all that shapes results, but for classes, runtime and budget
    card: TaskCard

    @property
    def stored_from(self) -> Net:
        """The net from which models are stored as deltas."""
        return fold_batch_norm(self.original.net)


def base_of(
    model: Original,
    data: Dataset,
    wanted: Task | Making | str | None,
    settings: Settings,
    runtimes: Mapping[str, bool],
    *,
    stages: Stages,
) -> Base:
    """Return what is found once for some runtimes; of each it is said whether latencies of layers are needed.

    All of it is kept in the cache. Raises RequestError for what cannot be done, and DataError where model, data and
    task do not fit one another, or the set-up is plainly wrong.
    """
    tell = stages.tell
    measured: dict[str, Evaluation] = {}
    tables: dict[str, LatencyTable] = {}
    with ExitStack() as stack:
        workshop = stack.enter_context(lent(settings.workshop, settings.memory_bytes))
        cache = stack.enter_context(keeping(settings.cache))
        evidence: Evidence | None = None
        for runtime, timed in runtimes.items():
            here = replace(settings, runtime=runtime)
            asked = Asked(model, data, wanted, ("fleet",))
            with stages(STAGE):
                original, task = checked(asked, here)
                original, bench = begun(original, task, asked, here, At(workshop, cache, tell))
                measured[runtime] = bench.original()
            with stages("observe"):
                evidence = evidence or observed(bench, cache, settings.seed)
            with stages("time layers"):
                tables[runtime] = _table(bench, evidence, cache, timed=timed, tell=tell)
    assert evidence is not None
    shaping = {name: value for name, value in bench.context.items() if name not in ("runtime", "target", "about")}
    context = {**shaping, "machine": dict(settings.target.about())}
    return Base(
        original=original,
        data=data,
        wanted=wanted,
        evidence=evidence,
        measured=measured,
        tables=tables,
        settings=replace(settings, workshop=None),
        context=context,
        card=TaskCard.of(task),
    )


def with_test(base: Base) -> Base:
    """Return the base whose context says what deployments are proven on, too: other test images are another result.

    Of the test part nothing but its fingerprint is looked at.
    """
    return replace(base, context={**base.context, "test": part_fingerprint(base.data, "test")})


def _table(bench: Bench, evidence: Evidence, cache: Path, *, timed: bool, tell: Tell) -> LatencyTable:
    """The latencies of single layers that plans need: of every layer of the whole network, once for all classes."""
    net, runtime = bench.given.net, timed_by(bench.place.runtime)
    table = layer_table(bench.place.target, runtime, cache)
    step = table.step()
    if timed:
        ranks, transformed = factorisable(net, evidence.all(), step), TRANSFORMED.get(runtime, 1.0)
        predictor = Predictor(
            net, couple(net), table, step, ranks=ranks, rank_step=step, transformed=transformed, block=table.block
        )
        predictor.measure(tell)
    table.save()
    return table
