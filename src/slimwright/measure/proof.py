"""Prove an artefact: run it in its runtime and compare it with the net it came from.

Accuracy, latency, memory and parity are measured; nothing here is predicted. The same functions serve `shrink`, which
refuses what fails, and `verify`, which runs the proof of a finished bundle again.
"""

from collections.abc import Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from slimwright.cost import Budget, Cost, count, count_layers
from slimwright.data import PARTS, Dataset, whole
from slimwright.errors import DataError
from slimwright.graph import Net, load_net, plan_memory
from slimwright.measure.bundle import (
    NET,
    Bundle,
    DataCard,
    Layer,
    Memory,
    Proof,
    Side,
    Summary,
    Timing,
    misses,
)  # fmt: skip
from slimwright.runner.timing import Latency
from slimwright.runtimes import Artefact
from slimwright.targets import Effort, Measurement, Target, measure

PROOF_RUNS, PROOF_SECONDS, PROFILE_RUNS = 200, 4.0, 40
TOLERANCE = {"fp32": 1e-3, "fp16": 0.05, "int8": 0.5}  # of the largest error over the largest score
LEAST_AGREEMENT = {"fp32": 0.995, "fp16": 0.99, "int8": 0.95}  # share of images named alike
SLACK = 1.15  # verify: latency and memory may be this much above what was promised
ACCURACY_SLACK = 0.003  # verify: another processor may round a borderline image the other way


def parity(found: Tensor, expected: Tensor, precision: str) -> Proof:
    """Compare an artefact's scores [N, classes] with its net's."""
    error = float((found - expected).abs().max())
    relative = error / max(float(expected.abs().max()), 1e-12)
    agreement = float((found.argmax(1) == expected.argmax(1)).float().mean())
    return Proof(
        images=len(found),
        max_abs_error=error,
        max_relative_error=relative,
        tolerance=TOLERANCE[precision],
        agreement=agreement,
        least_agreement=LEAST_AGREEMENT[precision],
        passed=relative <= TOLERANCE[precision] and agreement >= LEAST_AGREEMENT[precision],
    )


def net_scores(net: Net, images: Tensor) -> Tensor:
    """Run the net itself, in batches: [N, C, H, W] -> [N, classes]."""
    module = net.to_module()
    with torch.no_grad():
        return torch.cat([module(batch) for batch in images.split(64)])


def share_right(scores: Tensor, labels: Tensor) -> float:
    """Accuracy, 0 to 1."""
    return float((scores.argmax(1) == labels).double().mean())


@dataclass(frozen=True)
class Measured:
    """What an artefact did when it ran: its latency beside others, the rest in a fresh process of its own."""

    artefact: Artefact
    latency: Latency
    accuracy: float  # 0..1
    scores: Tensor  # [N, classes]
    alone: Measurement


def measured(target: Target, artefacts: Mapping[str, Artefact], images: Tensor, labels: Tensor) -> dict[str, Measured]:
    """Run artefacts over images [N, C, H, W] on a target, and time them against each other."""
    timed = measure(target, artefacts, Effort(runs=PROOF_RUNS, least_s=PROOF_SECONDS))
    found = {}
    for name, artefact in artefacts.items():
        alone = measure(target, {name: artefact}, Effort(runs=5, profile_runs=PROFILE_RUNS), images=images)[name]
        latency, scores = timed[name].latency, alone.scores
        assert latency is not None and scores is not None
        found[name] = Measured(artefact, latency, share_right(scores, labels), scores, alone)
    return found


def side_of(net: Net, found: Measured) -> Side:
    """What a bundle says of one of its two models."""
    counted, latency = count(net), found.latency
    return Side(
        accuracy=found.accuracy,
        latency=Timing(**asdict(latency)),
        size_bytes=found.artefact.size_bytes,
        macs=counted.macs,
        params=counted.params,
        weight_bytes=counted.weight_bytes,
        peak_activation_bytes=counted.peak_activation_bytes,
        arena_bytes=plan_memory(net).arena_bytes,
        peak_rss_bytes=found.alone.peak_rss_bytes,
        cold_start_ms=found.alone.cold_start_ms,
        planned_bytes=found.alone.planned_bytes,
        kernel_ms=found.alone.kernel_ms,
        files=[path.name for path in found.artefact.files],
    )


@dataclass(frozen=True)
class Check:
    """One thing that `verify` looked at."""

    what: str
    promised: str
    found: str
    passed: bool


def verify(bundle: Bundle, data: Dataset, target: Target) -> list[Check]:
    """Run a bundle's proof again on a target, with its data set, and compare with what its manifest promises.

    Raises DataError for other data than the bundle was proven on.
    """
    card, manifest, promised = bundle.manifest.data, bundle.manifest, bundle.summary
    if list(data.image_shape) != card.image_shape or list(data.labels) != card.labels:
        raise DataError(
            f"the bundle was proven on '{card.name}' {card.image_shape}; "
            f"'{data.name}' {list(data.image_shape)} is other data"
        )
    net = load_net(bundle.path / NET)
    images, labels = whole(data, "test")
    sides = {"original": bundle.artefact("original"), "result": bundle.artefact("result")}
    found = measured(target, sides, images, labels)
    original, result = found["original"], found["result"]
    proof = parity(result.scores, net_scores(net, images), bundle.recipe.precision())
    ratio = result.latency.median_ms / original.latency.median_ms
    allowed = max(promised.latency_ratio * SLACK, manifest.limits.get("latency_ms", 0) / promised.latency_ms_original)
    counted = count(net)
    costs = {
        "latency_ms": ratio * promised.latency_ms_original,  # in terms of the machine that the budget was set on
        "size_bytes": result.artefact.size_bytes,
        "macs": counted.macs,
        "peak_activation_bytes": counted.peak_activation_bytes,
    }
    missed = misses(manifest.limits, costs, 100 * (original.accuracy - result.accuracy), manifest.max_accuracy_drop)
    return [
        _parity_check(proof),
        _accuracy_check("original", promised.accuracy_original, original.accuracy),
        _accuracy_check("result", promised.accuracy, result.accuracy),
        Check("latency, share of the original", f"{promised.latency_ratio:.3f}x", f"{ratio:.3f}x", ratio <= allowed),
        _memory_check(manifest.result.peak_rss_bytes, result.alone.peak_rss_bytes),
        Check(
            "budget",
            "within" if promised.within_budget else "; ".join(promised.misses),
            "; ".join(missed) or "within",
            not missed or not promised.within_budget,
        ),
    ]


def _parity_check(proof: Proof) -> Check:
    promised = f"relative error <= {proof.tolerance:g}, >= {proof.least_agreement:.1%} alike"
    found = f"{proof.max_relative_error:.2g}, {proof.agreement:.1%} alike"
    return Check("scores agree with the net", promised, found, proof.passed)


def _accuracy_check(name: str, promised: float, found: float) -> Check:
    return Check(f"accuracy, {name}", f"{promised:.2%}", f"{found:.2%}", found >= promised - ACCURACY_SLACK)


def _memory_check(promised: int, found: int) -> Check:
    passed = found <= promised * SLACK
    return Check("peak memory of a process", f"{promised / 1e6:.1f} MB", f"{found / 1e6:.1f} MB", passed)


def summed_up(budget: Budget, original: Side, result: Side) -> tuple[dict[str, float], Summary]:
    """Return the limits, resolved against the original as it was measured now, and what matters to most people."""
    limits = budget.absolute(_cost_of(original))
    costs = {name: getattr(_cost_of(result), name) for name in limits}
    missed = misses(limits, costs, 100 * (original.accuracy - result.accuracy), budget.max_accuracy_drop)
    summary = Summary(
        accuracy_original=original.accuracy,
        accuracy=result.accuracy,
        latency_ms_original=original.latency.median_ms,
        latency_ms=result.latency.median_ms,
        latency_ratio=result.latency.median_ms / original.latency.median_ms,
        size_bytes_original=original.size_bytes,
        size_bytes=result.size_bytes,
        within_budget=not missed,
        misses=missed,
    )
    return limits, summary


def _cost_of(side: Side) -> Cost:
    return Cost(
        side.macs,
        side.params,
        side.weight_bytes,
        side.peak_activation_bytes,
        latency_ms=side.latency.median_ms,
        size_bytes=side.size_bytes,
    )


def card_of(data: Dataset) -> DataCard:
    """What a bundle says of its data."""
    return DataCard(
        name=data.name,
        labels=list(data.labels),
        image_shape=list(data.image_shape),
        preprocessing=dict(data.preprocessing),
        sizes={part: data.size(part) for part in PARTS},
    )


def layers_of(before: Net, after: Net) -> list[Layer]:
    """The weighted layers of two nets side by side; what a layer was factorised into counts as that layer."""
    old, new = ({layer.name: layer for layer in count_layers(net)} for net in (before, after))
    known, found = {node.name for node in before.weighted()}, []
    for node in before.weighted():
        parts = [new[name] for name in _parts(after, node.name, known)]
        found.append(
            Layer(
                name=before.paths[node.name],
                op=node.op,
                channels_before=before.tensors[node.tensors["weight"]].shape[0],
                channels_after=after.tensors[after[node.name].tensors["weight"]].shape[0],
                macs_before=old[node.name].macs,
                macs_after=sum(part.macs for part in parts),
                weight_bytes_before=old[node.name].weight_bytes,
                weight_bytes_after=sum(part.weight_bytes for part in parts),
                output_bytes_before=old[node.name].output_bytes,
                output_bytes_after=new[node.name].output_bytes,
            )
        )
    return found


def _parts(net: Net, name: str, known: AbstractSet[str]) -> Iterator[str]:
    """A layer, and those right before it that are not of the original."""
    yield name
    weighted = {node.name for node in net.weighted()} - known
    while (name := net[name].source) in weighted:
        yield name


def memory_of(net: Net) -> Memory:
    """Live activation bytes over the run of a net."""
    return Memory(nodes=[net.paths[node.name] for node in net.nodes], live_bytes=list(plan_memory(net).live_bytes))
