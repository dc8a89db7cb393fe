"""The end of a job: the proof on the test part, which nothing has seen so far, and the bundle's files."""

from datetime import UTC, datetime
from pathlib import Path

from slimwright.cost import Budget, Cost, count
from slimwright.data import whole
from slimwright.errors import ProofError
from slimwright.graph import Net, plan_memory, save_net
from slimwright.jobs.bench import ORIGINAL, Bench
from slimwright.jobs.given import doubts, versions
from slimwright.jobs.searched import Found
from slimwright.jobs.stages import Stages
from slimwright.measure import (
    EFFORTS,
    MANIFEST,
    NET,
    PACKED,
    RECIPE,
    STEMS,
    Bundle,
    DataCard,
    Exam,
    Manifest,
    Memories,
    ModelRecord,
    Original,
    Parity,
    Proven,
    Summary,
    TaskCard,
    Timing,
    as_json,
    decisions_on_sizes,
    drop_interval,
    expected_of,
    hashed,
    layers_of,
    memory_of,
    misses,
    outputs_of,
    prove,
    write_sbom,
)
from slimwright.progress import Event
from slimwright.reading import sha256_of
from slimwright.storage import write_packed
from slimwright.tasks import Metric, known_outputs


def handed_over(
    bench: Bench, found: Found, budget: Budget, original: Original, folder: Path, name: str, stages: Stages
) -> Bundle:
    """Prove the result on the test part and write the bundle's files, all but the report.

    Raises ProofError where the runtime's outputs are not those of the net, or the original's not those of the model as
    it was given.
    """
    given, place = bench.given, bench.place
    sides = {
        "original": bench.artefact(bench.original().key).copied(folder, STEMS["original"]),
        "result": bench.artefact(found.key).copied(folder, STEMS["result"]),
    }
    net = bench.network(found.key)
    given.about.write(net, sides["result"], folder)
    save_net(net, folder / NET)
    (folder / RECIPE).write_text(as_json(found.recipe))
    packed = write_packed(net, folder / PACKED).size_bytes if bench.packs else None
    bench.tell(Event("prove", 0, len(sides) + 1, "read the test part"))
    inputs, targets = whole(given.data, "test")
    known = known_outputs(given.data, targets, original.forward, given.task.outputs)
    expected = {"original": expected_of(original, inputs, known), "result": outputs_of(net, inputs)}
    exam = Exam(given.task, inputs, targets)
    seen = prove(place.target, sides, EFFORTS["final"], exam=exam, expected=expected, tell=bench.tell)
    reading, proof = checked_parity(seen["original"], "original"), checked_parity(seen["result"], "result")
    score = given.task.score(expected["original"], targets)
    before = record_of(given.net, seen["original"], score, bench.original().cost.packed_bytes)
    assert seen["result"].score is not None
    after = record_of(net, seen["result"], seen["result"].score, packed)
    limits, summary = summed_up(budget, before, after, given.task.metric)
    outputs = seen["result"].first.outputs
    assert outputs is not None
    told = {
        "interval": drop_interval(given.task, expected["original"], outputs, targets),
        "doubts": doubts(given, budget.max_drop),
        "reachable": found.reachable if summary.misses else [],
    }
    summary = summary.model_copy(update=told)
    budgeted = (*budget.limited(), "max_drop", *(("minimise",) if budget.minimise else ()))
    manifest = Manifest(
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        seconds=stages.seconds,
        model=name,
        runtime=place.runtime,
        seed=int(bench.context["seed"]),
        versions=versions(),
        target=place.target.name,
        machine=dict(place.target.about()),
        budget={key: str(getattr(budget, key)) for key in budgeted},
        limits=limits,
        max_drop=budget.max_drop,
        channel_step=found.channel_step,
        empty_runtime_rss_bytes=seen["result"].first.empty_rss_bytes,
        task=TaskCard.of(given.task),
        data=DataCard.of(given.data),
        summary=summary,
        original=before,
        result=after,
        reading=reading,
        proof=proof,
        candidates=found.candidates,
        decisions=[*found.decisions, *decisions_on_sizes(given.net, sides["result"])],
        layers=layers_of(given.net, net),
        memory=Memories(original=memory_of(given.net), result=memory_of(net)),
        sha256={file: sha256_of(folder / file) for file in hashed(before, after)},
    )
    (folder / MANIFEST).write_text(as_json(manifest))
    write_sbom(folder, manifest, given.about.licence)
    return Bundle(folder, manifest, found.recipe)


def record_of(net: Net, one: Proven, score: float, packed_bytes: int | None) -> ModelRecord:
    """Return what a bundle says of one of its two models, with the bytes of its packed file, where one is asked for."""
    counted = count(net)
    assert one.latency is not None
    return ModelRecord(
        precision=one.artefact.precision,
        score=score,
        latency=Timing.of(one.latency),
        size_bytes=one.artefact.size_bytes,
        macs=counted.macs,
        params=counted.params,
        weight_bytes=counted.weight_bytes,
        peak_activation_bytes=counted.peak_activation_bytes,
        arena_bytes=plan_memory(net).arena_bytes,
        peak_rss_bytes=one.first.peak_rss_bytes,
        cold_start_ms=one.first.cold_start_ms,
        planned_bytes=one.first.planned_bytes,
        energy_mj=one.first.energy_mj,
        packed_bytes=packed_bytes,
        kernel_ms=one.first.kernel_ms,
        files=[path.name for path in one.artefact.files],
        input_shapes=[list(shape) for shape in one.artefact.shapes],
        output_shapes=[list(shape) for shape in one.artefact.output_shapes],
    )


def summed_up(
    budget: Budget, original: ModelRecord, result: ModelRecord, metric: Metric
) -> tuple[dict[str, float], Summary]:
    """Return the limits, resolved against the original as it was measured now, and what matters to most people."""
    limits = budget.absolute(cost_of(original))
    costs = {name: float(getattr(cost_of(result), name) or 0.0) for name in limits}
    drop = metric.drop(original.score, result.score)
    missed = misses(limits, costs, drop, budget.max_drop, metric)
    summary = Summary(
        score_original=original.score,
        score=result.score,
        drop=drop,
        latency_ms_original=original.latency.median_ms,
        latency_ms=result.latency.median_ms,
        latency_ratio=result.latency.median_ms / original.latency.median_ms,
        size_bytes_original=original.size_bytes,
        size_bytes=result.size_bytes,
        within_budget=not missed,
        misses=missed,
    )
    return limits, summary


def cost_of(side: ModelRecord) -> Cost:
    """Return the costs of one of a bundle's models."""
    return Cost(
        side.macs,
        side.params,
        side.weight_bytes,
        side.peak_activation_bytes,
        latency_ms=side.latency.median_ms,
        size_bytes=side.size_bytes,
        energy_mj=side.energy_mj,
        packed_bytes=side.packed_bytes,
    )


def checked_parity(one: Proven, which: str) -> Parity:
    """Return the parity of a side, "original" or "result". Raises ProofError where it failed."""
    what = "the result does not compute what its net computes"
    if which == ORIGINAL:
        what = "the original as it was converted does not compute what the model as it was given does"
    if not one.passed or one.parity is None:
        raise ProofError(f"{what}: {one.why}")
    return one.parity
