"""A net cut in two for a link: where an image is answered soonest, as a bundle, with all that was measured.

Cuts are predicted (planning.py), the best few are measured (trying.py), and the one with the least total is handed
over. Beside it stands what else could be done (beside.py). Choices are made on the validation part; the test part is
read once, at the end.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from shutil import rmtree

from slimwright.atomic import appearing
from slimwright.codec.split.beside import SPLIT, Way, ways_beside
from slimwright.codec.split.bundle import FILES, MANIFEST, TABLE, TABLES, id_of, write_tables
from slimwright.codec.split.judging import Judge
from slimwright.codec.split.links import Link
from slimwright.codec.split.message import check_cap
from slimwright.codec.split.planning import Planned, planned
from slimwright.codec.split.records import Manifest
from slimwright.codec.split.telling import alternatives, as_markdown, cut_records, link_record, notes_on
from slimwright.codec.split.timing import Machines
from slimwright.codec.split.trying import MARGIN, TIMED, WHOLE, Results, Tried, answers, halves_error, tried
from slimwright.codec.split.tuning import Tuning
from slimwright.data import Dataset
from slimwright.errors import ModelError, RequestError
from slimwright.graph.net import Net
from slimwright.jobs.setups import set_up
from slimwright.kept import keeping
from slimwright.measure import MetricCard, Original, as_json, said_of, times
from slimwright.progress import Event, Tell, told
from slimwright.reading import sha256_of
from slimwright.runtimes import Artefact, Workshop, lent
from slimwright.targets import Local, layer_table
from slimwright.tasks import Task
from slimwright.techniques import fold_batch_norm

AS_HERE = Machines()
JUDGED = 1000  # validation images
RUNTIME = "onnxruntime"
WORK = ".work"


@dataclass(frozen=True)
class Request:
    """For which link and machines, how far the metric may drop, and how much a message may take."""

    link: Link
    machines: Machines = AS_HERE
    max_drop: float = 1.0
    max_bytes: int | None = None  # None: a quarter more than the largest message of the validation part
    tune_minutes: float | None = None  # for each cut that is measured: its server's part may be trained
    candidates: int = 3  # cuts that are measured, of those predicted to be best
    name: str = "model"
    expect: str | None = None
    cache: Path | None = None
    memory_bytes: int | None = None
    workshop: Workshop | None = None
    force: bool = False

    def __post_init__(self) -> None:
        if self.candidates < 1:
            raise RequestError(f"at least one cut is measured, not {self.candidates}; give --candidates 3")
        if self.tune_minutes is not None and not self.tune_minutes > 0:
            raise RequestError(f"--tune-minutes is above 0, not {self.tune_minutes:g}; leave it out to train nothing")
        if not self.max_drop > 0:
            raise RequestError(f"rounding costs something, so --max-drop is above 0, not {self.max_drop:g}")
        if self.max_bytes is not None:
            check_cap(self.max_bytes)


@dataclass(frozen=True)
class Job:
    """What a split is made of: the model, folded; who judges; where it runs."""

    original: Original
    net: Net
    data: Dataset
    task: Task
    request: Request
    judge: Judge
    target: Local
    workshop: Workshop
    folder: Path
    tell: Tell


def split(
    original: Original, data: Dataset, task: Task, request: Request, *, out: Path, tell: Tell | None = None
) -> Manifest:
    """Cut a net in two, and return what `out` holds, which appears whole or not at all.

    Raises ModelError where it cannot be cut, or where no cut that was tried keeps the metric.
    """
    with (
        told(tell) as tell,
        appearing(out, MANIFEST, ours=FILES, force=request.force) as folder,
        lent(request.workshop, request.memory_bytes) as workshop,
    ):
        original, data = set_up(original, task, data, expect=request.expect, embed=False, tell=tell)
        judge = Judge.of(original, data, task, "validation", JUDGED)
        net, target = fold_batch_norm(original.net), Local(request.memory_bytes)
        job = Job(original, net, data, task, request, judge, target, workshop, folder, tell)
        whole = workshop.convert(net, RUNTIME, "fp32", folder / WORK / WHOLE)
        plans = plans_of(job, whole)
        results = results_of(job, nearest(plans, request), whole)
        made = _handed_over(job, plans, results, fastest(results, request))
        rmtree(folder / WORK)
    return made


def plans_of(job: Job, whole: Artefact) -> list[Planned]:
    """Return every cut with what it is predicted to take."""
    with keeping(job.request.cache) as cache:
        return planned(
            job.net,
            job.data,
            job.task,
            job.judge,
            max_drop=job.request.max_drop,
            table=layer_table(job.target, RUNTIME, cache),
            whole_ms=times(job.target, {WHOLE: whole}, TIMED)[WHOLE],
            tell=job.tell,
        )


def nearest(plans: Sequence[Planned], request: Request) -> list[Planned]:
    """Return the cuts to measure: those with the least predicted totals, of those that are predicted to keep the cap.

    Where fewer keep it, those with the fewest bytes are measured, too.
    """
    most = math.inf if request.max_bytes is None else request.max_bytes / MARGIN

    def total(plan: Planned) -> tuple[float, float]:
        beyond = max(plan.message_bytes - most, 0.0)
        return beyond, plan.times.total_ms(request.machines, request.link, plan.message_bytes)

    return sorted(plans, key=total)[: request.candidates]


def results_of(job: Job, plans: Sequence[Planned], whole: Artefact) -> Results:
    """Return what became of the cuts that are measured."""
    minutes = job.request.tune_minutes
    return tried(
        job.net,
        plans,
        job.judge,
        max_drop=job.request.max_drop,
        max_bytes=job.request.max_bytes,
        tuning=Tuning(minutes, job.data, job.request.cache) if minutes else None,
        whole=whole,
        workshop=job.workshop,
        target=job.target,
        folder=job.folder / WORK,
        tell=job.tell,
    )


def fastest(results: Results, request: Request) -> Tried:
    """Return the cut with the least measured total, of those that keep the metric if there are any.

    Raises ModelError where none can be used.
    """
    if not results.tried:
        raise ModelError("no cut can be used: " + "; ".join(f"'{name}': {why}" for name, why in results.why.items()))
    every = list(results.tried.values())
    some = [one for one in every if one.drop <= request.max_drop] or every
    return min(some, key=lambda one: one.times.total_ms(request.machines, request.link, one.message_bytes))


def way_of(job: Job, chosen: Tried, last: Judge) -> Way:
    """Return a split as it does on the test part, through its artefacts and messages."""
    outputs, sizes = answers(chosen.fitted, chosen.phone, chosen.server, last.inputs, chosen.most_bytes, job.target)
    mean, score = sum(sizes) / len(sizes), last.task.score(outputs, last.targets)
    return Way(SPLIT, chosen.times, score, mean, mean, max(sizes))


def _handed_over(job: Job, plans: Sequence[Planned], results: Results, chosen: Tried) -> Manifest:
    """Judge on the test part, which nothing has seen so far, and write the bundle."""
    request, fitted, folder = job.request, chosen.fitted, job.folder
    job.tell(Event("prove", 0, 1, "read the test part"))
    last = Judge.of(job.original, job.data, job.task, "test")
    ways = [way_of(job, chosen, last)]
    ways += ways_beside(
        job.net, job.data, job.judge, last, max_drop=request.max_drop, whole_ms=results.whole_ms, tell=job.tell
    )
    parts = {"phone": chosen.phone.copied(folder, "phone"), "server": chosen.server.copied(folder, "server")}
    write_tables(fitted.tables, folder / TABLES)
    metric = job.task.metric
    said = Manifest(
        model=request.name,
        split_id=id_of(fitted.phone, fitted.server, fitted.tables),
        after=chosen.cut.after,
        most_bytes=chosen.most_bytes,
        input_shape=list(job.data.image_shape),
        preprocessing=dict(job.data.preprocessing),
        labels=list(job.data.labels),
        task=job.task.name,
        metric=MetricCard.of(metric),
        original_score=last.score,
        max_drop=request.max_drop,
        drop=metric.drop(last.score, ways[0].score),
        halves_error=halves_error(job.net, chosen.cut, last.inputs),
        link=link_record(request.link, request.machines),
        machine=dict(job.target.about()),
        cuts=cut_records(plans, results, request.link, request.machines),
        alternatives=alternatives(ways, request.link, request.machines),
        artefacts={name: said_of(part, folder) for name, part in parts.items()},
        files={},
        notes=notes_on(ways, request.link, request.machines),
    )
    (folder / TABLE).write_text(as_markdown(said))
    said = said.model_copy(update={"files": _sums(folder)})
    (folder / MANIFEST).write_text(as_json(said))
    job.tell(Event("prove", 1, 1))
    return said


def _sums(folder: Path) -> Mapping[str, str]:
    return {name: sha256_of(folder / name) for name in FILES if name != MANIFEST}
