"""A net as artefacts for several runtimes, each proven in a fresh process before it is handed over.

    NAME-PRECISION/     an artefact's files, only if it passed          export.json     every measurement, and why not

Latencies come from rounds in which every artefact has its turn, each time in a process of its own.
"""

import shutil
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from slimwright.atomic import appearing
from slimwright.data import Dataset, whole
from slimwright.errors import ConversionError, ProofError, RequestError
from slimwright.graph import Net
from slimwright.measure.bundle import Proof, Record, Timing, as_json, sha256_of
from slimwright.measure.proof import net_scores, parity, share_right
from slimwright.progress import Event, Tell, silent
from slimwright.runner.machine import Described, loaded_by
from slimwright.runtimes import PRECISIONS, RUNTIMES, Artefact, Precision, Workshop
from slimwright.runtimes.known import installed, pairs
from slimwright.targets import Local, Measurement, Target, measure
from slimwright.targets.measuring import Effort
from slimwright.techniques.fold import fold_batch_norm

EXPORT = "export.json"
ROUNDS = 3
EFFORT = Effort(runs=60, least_s=1.0, energy_s=1.0)
RANDOM_IMAGES = 16  # where there is no data, parity is looked at on these
Wanted = tuple[str, Precision]


class Exported(Record):
    """One artefact: what it is, what was measured, and whether it passed. What was not reached is None."""

    runtime: str
    precision: Precision
    passed: bool
    why: str  # it did not pass; "" where it did
    files: dict[str, str] = Field(default_factory=dict)  # SHA-256 by path in the export's folder
    size_bytes: int | None = None
    conversion_s: float | None = None
    runtime_version: str | None = None
    proof: Proof | None = None
    accuracy: float | None = None  # 0..1 on the test part, in the runtime
    latency: Timing | None = None
    cold_start_ms: float | None = None  # load and first run in a fresh process, median of the rounds
    peak_rss_bytes: int | None = None  # of a fresh process
    own_rss_bytes: int | None = None  # over the empty runtime's
    planned_bytes: int | None = None  # what the runtime says it set aside
    energy_mj: float | None = None  # for an image; the processor's counter, with whatever else ran
    temperature_c: float | None = None


class Export(Record):
    """What `export.json` holds."""

    format: Literal["slimwright-export"] = "slimwright-export"
    version: Literal[1] = 1
    model: str
    image_shape: list[int]
    data: str | None
    net_accuracy: float | None  # of the graph itself, on the test part
    target: str
    machine: dict[str, object]  # the target's: processor, system, runtimes
    threads: int
    artefacts: list[Exported]


@dataclass(frozen=True)
class Request:
    """What to export and how to prove it."""

    wanted: tuple[Wanted, ...]
    name: str = "model"
    effort: Effort = EFFORT
    rounds: int = ROUNDS


def wanted(runtimes: Sequence[str], precisions: Sequence[str]) -> tuple[Wanted, ...]:
    """Return every pair of runtime and precision that is asked for; "all" stands for what is installed and possible.

    Raises RequestError for what there is not; of several, a pair that a runtime does not have is left out.
    """
    for precision in precisions:
        if precision not in (*PRECISIONS, "all"):
            raise RequestError(f"there is no precision '{precision}'; there is {', '.join(PRECISIONS)}, or all")
    names = [name for name in RUNTIMES if installed(name)] if "all" in runtimes else runtimes
    return tuple(pairs(names, [p for p in PRECISIONS if p in precisions or "all" in precisions]))


def export(
    net: Net,
    request: Request,
    *,
    data: Dataset | None,
    out: Path,
    target: Target | None = None,
    tell: Tell = silent,
) -> Export:
    """Convert, prove and measure; return what `out` holds, which appears whole or not at all.

    An artefact that fails is told of and not in `out`. Without `data` parity is looked at on random images, and there
    is no accuracy and no INT8. Raises RequestError for what cannot be done.
    """
    place, net = target or Local(), fold_batch_norm(net)
    if data is None and any(precision == "int8" for _, precision in request.wanted):
        raise RequestError("INT8 is calibrated on images, and proven by accuracy: name them with --data")
    check = _Check.of(net, data)
    with appearing(out, EXPORT) as folder:
        entries, artefacts = _converted(net, request, data, folder, tell)
        seen = _measured(place, artefacts, request, check.images, tell)
        about = place.about()
        results = [_judged(entry, seen.get(name), check, about) for name, entry in entries.items()]
        for result in results:
            if not result.passed:
                shutil.rmtree(folder / _name(result), ignore_errors=True)
        found = Export(
            model=request.name,
            image_shape=list(net.input.shape[1:]),
            data=data.name if data else None,
            net_accuracy=check.accuracy(check.expected),
            target=place.name,
            machine=dict(about),
            threads=request.effort.threads,
            artefacts=results,
        )
        (folder / EXPORT).write_text(as_json(found))
    return found


@dataclass(frozen=True)
class _Check:
    """Images to prove on, with what the net makes of them."""

    images: Tensor
    labels: Tensor | None
    expected: Tensor

    @classmethod
    def of(cls, net: Net, data: Dataset | None) -> "_Check":
        if data is None:
            images = torch.randn(RANDOM_IMAGES, *net.input.shape[1:], generator=torch.Generator().manual_seed(0))
            return cls(images, None, net_scores(net, images))
        images, labels = whole(data, "test")
        return cls(images, labels, net_scores(net, images))

    def accuracy(self, scores: Tensor) -> float | None:
        return None if self.labels is None else share_right(scores, self.labels)

    def proof(self, scores: Tensor, precision: Precision) -> Proof:
        found = parity(scores, self.expected, precision)
        if self.labels is None:  # random images lie between classes: only the error counts
            found = found.model_copy(
                update={"least_agreement": 0.0, "passed": found.max_relative_error <= found.tolerance}
            )
        return found


def _converted(
    net: Net, request: Request, data: Dataset | None, folder: Path, tell: Tell
) -> tuple[dict[str, Exported], dict[str, Artefact]]:
    """Every artefact that is wanted, by name, and the files of those whose converters did not fail."""
    calibration = whole(data, "calibration")[0] if data else None
    entries, artefacts = {}, {}
    with Workshop() as workshop:
        for number, (runtime, precision) in enumerate(request.wanted):
            entry, began = Exported(runtime=runtime, precision=precision, passed=False, why=""), time.perf_counter()
            name, images = _name(entry), calibration if precision == "int8" else None
            tell(Event("convert", number, len(request.wanted), name))
            try:
                made = artefacts[name] = workshop.convert(net, runtime, precision, folder / name, images=images)
                entries[name] = entry.model_copy(
                    update={
                        "files": {path.relative_to(folder).as_posix(): sha256_of(path) for path in made.files},
                        "size_bytes": made.size_bytes,
                        "conversion_s": round(time.perf_counter() - began, 1),
                    }
                )
            except ConversionError as error:
                entries[name] = entry.model_copy(update={"why": str(error)})
    tell(Event("convert", len(request.wanted), len(request.wanted)))
    return entries, artefacts


def _name(entry: Exported) -> str:
    return f"{entry.runtime}-{entry.precision}"


def _measured(
    place: Target, artefacts: Mapping[str, Artefact], request: Request, images: Tensor, tell: Tell
) -> dict[str, list[Measurement] | str]:
    """Every round's measurements of each artefact; the first round gives the scores. A text says what went wrong."""
    seen: dict[str, list[Measurement] | str] = {}
    steps = request.rounds * len(artefacts)
    for turn in range(request.rounds):
        for number, (name, artefact) in enumerate(artefacts.items()):
            tell(Event("prove", turn * len(artefacts) + number, steps, name))
            before = seen.setdefault(name, [])
            if isinstance(before, list):
                try:
                    one = measure(place, {name: artefact}, request.effort, images=None if turn else images)
                    before.append(one[name])
                except (ProofError, RequestError) as error:
                    seen[name] = str(error)
    tell(Event("prove", steps, steps))
    return seen


def _judged(entry: Exported, seen: list[Measurement] | str | None, check: _Check, about: Described) -> Exported:
    """Add what was measured, and say whether the artefact passed."""
    if seen is None:
        return entry
    if isinstance(seen, str):
        return entry.model_copy(update={"why": seen})
    first = seen[0]
    assert first.scores is not None
    typical = sorted((m.latency for m in seen if m.latency), key=lambda latency: latency.median_ms)[len(seen) // 2]
    proof = check.proof(first.scores, entry.precision)
    measured = {
        "passed": proof.passed,
        "why": "" if proof.passed else _fault(proof),
        "runtime_version": about["runtimes"].get(loaded_by(entry.runtime)),
        "proof": proof,
        "accuracy": check.accuracy(first.scores),
        "latency": Timing(**vars(typical)),
        "cold_start_ms": statistics.median(m.cold_start_ms for m in seen),
        "peak_rss_bytes": int(statistics.median(m.peak_rss_bytes for m in seen[1:] or seen)),
        "own_rss_bytes": int(statistics.median(m.own_rss_bytes for m in seen[1:] or seen)),
        "planned_bytes": first.planned_bytes,
        "energy_mj": first.energy_mj,
        "temperature_c": seen[-1].temperature_c,
    }
    return entry.model_copy(update=measured)


def _fault(proof: Proof) -> str:
    return (
        f"its scores leave the net's: relative error {proof.max_relative_error:.2g} (at most {proof.tolerance:g}), "
        f"{proof.agreement:.1%} of {proof.images} images named alike (at least {proof.least_agreement:.1%})"
    )
