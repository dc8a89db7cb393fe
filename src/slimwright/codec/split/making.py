"""A net cut in two for a link: where an image is answered soonest, as a bundle, with all that was measured.

Cuts are predicted (planning.py), the best few are measured (trying.py), and the one with the least total is handed
over. Beside it stands what else could be done (beside.py). Choices are made on the validation part; the test part is
read once, at the end.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from shutil import rmtree

from slimwright.atomic import appearing
from slimwright.codec.split.beside import SPLIT, Way, ways_beside
from slimwright.codec.split.bundle import FILES, MANIFEST, TABLE, TABLES, id_of, write_tables
from slimwright.codec.split.job import JUDGED, RUNTIME, Job, Request
from slimwright.codec.split.judging import Judge
from slimwright.codec.split.planning import Planned, planned
from slimwright.codec.split.records import Manifest
from slimwright.codec.split.telling import alternatives, as_markdown, cut_records, link_record, notes_on
from slimwright.codec.split.trying import MARGIN, TIMED, WHOLE, Results, Tried, answered, halves_error, sent, tried
from slimwright.data import Dataset
from slimwright.errors import ModelError
from slimwright.jobs.setups import set_up
from slimwright.kept import keeping
from slimwright.measure import MetricCard, Original, as_json, said_of, times
from slimwright.progress import Event, Tell, told
from slimwright.reading import sha256_of
from slimwright.runtimes import Artefact, lent
from slimwright.targets import Local, layer_table
from slimwright.tasks import Task
from slimwright.techniques import fold_batch_norm

WORK = ".work"


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
        job = Job(original, net, data, task, request, judge, target, workshop, folder / WORK, tell)
        whole = workshop.convert(net, RUNTIME, "fp32", job.folder / WHOLE)
        plans = plans_of(job, whole)
        results = tried(job, nearest(plans, request), whole)
        made = _handed_over(job, plans, results, folder)
        rmtree(job.folder)
    return made


def plans_of(job: Job, whole: Artefact) -> list[Planned]:
    """Return every cut with what it is predicted to take."""
    with keeping(job.request.cache) as cache:
        table = layer_table(job.target, RUNTIME, cache)
        return planned(job, table, times(job.target, {WHOLE: whole}, TIMED)[WHOLE])


def nearest(plans: Sequence[Planned], request: Request) -> list[Planned]:
    """Return the cuts to measure: those with the least predicted totals, of those that are predicted to keep the cap.

    Where fewer keep it, those with the fewest bytes are measured, too.
    """
    most = math.inf if request.max_bytes is None else request.max_bytes / MARGIN

    def total(plan: Planned) -> tuple[float, float]:
        beyond = max(plan.message_bytes - most, 0.0)
        return beyond, plan.times.total_ms(request.machines, request.link, plan.message_bytes)

    return sorted(plans, key=total)[: request.candidates]


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
    messages, *_ = sent(chosen.fitted, chosen.phone, last.inputs, chosen.most_bytes, job.target)
    outputs = answered(chosen.fitted, chosen.server, messages, job.target)
    sizes = [len(one) for one in messages]
    mean, score = sum(sizes) / len(sizes), last.task.score(outputs, last.targets)
    return Way(SPLIT, chosen.times, score, mean, mean, max(sizes))


def _handed_over(job: Job, plans: Sequence[Planned], results: Results, folder: Path) -> Manifest:
    """Judge the fastest cut on the test part, which nothing has seen so far, and write the bundle."""
    request, chosen = job.request, fastest(results, job.request)
    fitted = chosen.fitted
    job.tell(Event("prove", 0, 1, "read the test part"))
    last = Judge.of(job.original, job.data, job.task, "test")
    ways = [way_of(job, chosen, last), *ways_beside(job, last, results.whole_ms)]
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
