"""Run a bundle's proof again, here or on a device, and compare with what its manifest promises."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

from slimwright.cost import count, memory_there
from slimwright.data import Dataset, of_classes, places_of, whole
from slimwright.errors import DataError, ProofError
from slimwright.graph import Net, load_net
from slimwright.jobs.forecast import check_proof
from slimwright.measure import EFFORTS, NET, STEMS, Bundle, Exam, Proven, given_by, misses, outputs_of, prove
from slimwright.progress import Tell, told
from slimwright.storage import packed_bytes
from slimwright.targets import Target
from slimwright.tasks import Forward, Making, Task, task_for

SLACK = 1.15  # latency and memory may be this much above what was promised
SCORE_SLACK = (
    60  # of a metric's finest differences: 0.3 points; another processor may round a borderline image otherwise
)


@dataclass(frozen=True)
class Check:
    """One thing that was looked at."""

    what: str
    promised: str
    found: str
    passed: bool


def verify(
    bundle: Bundle,
    data: Dataset,
    target: Target,
    *,
    task: Task | Making | None = None,
    memory_bytes: int | None = None,
    tell: Tell | None = None,
) -> list[Check]:
    """Return what a bundle promised beside what was found now, on a target, with its data set.

    Of data with more classes than the bundle is for, those are left out. Without a `task` it is the one that the bundle
    names. The work here may take `memory_bytes`, by default what the machine has available. Raises DataError for other
    data or another task than the bundle was proven with, ProofError where one of its models cannot be run, and
    RequestError where memory is sure to be too little.
    """
    card, manifest = bundle.manifest.data, bundle.manifest
    if card.labels and set(card.labels) < set(data.labels):
        data = of_classes(data, places_of(card.labels, data.labels))  # the bundle is for some of the classes
    if list(data.image_shape) != card.image_shape or list(data.labels) != card.labels:
        raise DataError(
            f"the bundle was proven on '{card.name}' {card.image_shape}; "
            f"'{data.name}' {list(data.image_shape)} is other data"
        )
    net, original = load_net(bundle.path / NET), _original(bundle, target)
    check_proof(net, data, sides=len(STEMS), there=memory_there(memory_bytes), held=())
    shapes = [net[name].shape for name in net.outputs]
    task = task_for(data, shapes, original, manifest.task.name if task is None else task, part="test")
    if task.metric != manifest.task.metric.metric:
        raise DataError(
            f"the bundle was proven by its {manifest.task.metric.name} ({manifest.task.name}); the task "
            f"'{task.name}' counts {task.metric.name}"
        )
    inputs, targets = whole(task.data(data, original), "test")
    sides = {"original": bundle.artefact("original"), "result": bundle.artefact("result")}
    expected = {"result": outputs_of(net, inputs)}
    exam = Exam(task, inputs, targets)
    with told(tell) as tell:
        found = prove(target, sides, EFFORTS["final"], exam=exam, expected=expected, tell=tell)
    for name, one in found.items():
        if not one.rounds or one.latency is None:
            raise ProofError(f"the {name} cannot be run: {one.why}")
    return list(_checks(bundle, net, found["original"], found["result"]))


def _original(bundle: Bundle, target: Target) -> Forward:
    """The original's artefact as a function: what an imitation's targets are."""
    return partial(given_by, target, bundle.artefact("original"))


def _checks(bundle: Bundle, net: Net, original: Proven, result: Proven) -> Iterator[Check]:
    manifest, promised, metric = bundle.manifest, bundle.summary, bundle.manifest.task.metric.metric
    assert original.latency is not None and result.latency is not None and result.parity is not None
    yield Check(
        "outputs agree with the network",
        f"relative error <= {result.parity.tolerance:g}, >= {result.parity.least_agreement:.1%} alike",
        f"{result.parity.max_relative_error:.2g}, {result.parity.agreement:.1%} alike",
        result.parity.passed,
    )
    scores = {"original": (promised.score_original, original.score), "result": (promised.score, result.score)}
    for name, (before, now) in scores.items():
        assert now is not None
        holds = metric.drop(before, now) <= SCORE_SLACK * metric.finest
        yield Check(f"{metric.name}, {name}", metric.shown(before), metric.shown(now), holds)
    ratio = result.latency.median_ms / original.latency.median_ms
    allowed = max(promised.latency_ratio * SLACK, manifest.limits.get("latency_ms", 0) / promised.latency_ms_original)
    yield Check("latency, share of the original", f"{promised.latency_ratio:.3f}x", f"{ratio:.3f}x", ratio <= allowed)
    memory = manifest.result.peak_rss_bytes, result.first.peak_rss_bytes
    said = [f"{size / 1e6:.1f} MB" for size in memory]
    yield Check("peak memory of a process", said[0], said[1], memory[1] <= memory[0] * SLACK)
    assert original.score is not None and result.score is not None
    counted = count(net)
    costs = {
        "latency_ms": ratio * promised.latency_ms_original,  # in terms of the machine that the budget was set on
        "size_bytes": result.artefact.size_bytes,
        "macs": counted.macs,
        "peak_activation_bytes": counted.peak_activation_bytes,
        "energy_mj": result.first.energy_mj or 0.0,
        "packed_bytes": packed_bytes(net) if "packed_bytes" in manifest.limits else 0,
    }
    missed = misses(manifest.limits, costs, metric.drop(original.score, result.score), manifest.max_drop, metric)
    was = "within" if promised.within_budget else "; ".join(promised.misses)
    yield Check("budget", was, "; ".join(missed) or "within", not missed or not promised.within_budget)
