"""A net as artefacts for several runtimes, each proven in a fresh process before it is handed over.

    NAME-PRECISION/     an artefact's files and about.json, if it passed
    export.json         every measurement, and why others did not pass

Latencies come from rounds in which every artefact has its turn, each time in a process of its own.
"""

import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import Field

from slimwright.atomic import appearing
from slimwright.cost import memory_there
from slimwright.data import Dataset, calibration_inputs, tensors_of, whole
from slimwright.errors import ConversionError, RequestError
from slimwright.graph import Net
from slimwright.jobs.forecast import check_proof
from slimwright.jobs.setups import set_up
from slimwright.measure import (
    EFFORTS,
    About,
    Exam,
    MetricCard,
    Original,
    Parity,
    ProofEffort,
    Proven,
    Record,
    Timing,
    as_json,
    decisions_on_sizes,
    expected_of,
    original_of,
    prove,
    random_exam,
)
from slimwright.progress import Event, Tell, told
from slimwright.reading import sha256_of
from slimwright.runner.machine import Described, loaded_by
from slimwright.runtimes import PRECISIONS, RUNTIMES, Artefact, Precision, Workshop, lent
from slimwright.runtimes.known import installed, pairs
from slimwright.targets import Effort, Local, Target
from slimwright.tasks import Outputs, Task, known_outputs, task_for
from slimwright.techniques import Rounding, corrected_for_runtime, equalised, fold_batch_norm, quantized
from slimwright.techniques.memory_plan import images_within
from slimwright.techniques.solver.draft import Draft

EXPORT = "export.json"
EXPORTED = (EXPORT, *(f"*-{precision}/*" for precision in PRECISIONS))  # all that the folder holds
EFFORT = EFFORTS["export"]
Wanted = tuple[str, Precision]


class Exported(Record):
    """One artefact: what it is, what was measured, and whether it passed. What was not reached is None."""

    runtime: str
    precision: Precision
    passed: bool
    why: str  # it did not pass; "" where it did
    notes: list[str] = Field(default_factory=list)  # sizes that the model's file leaves free; bytes that vary
    files: dict[str, str] = Field(default_factory=dict)  # SHA-256 by path in the export's folder
    size_bytes: int | None = None
    conversion_s: float | None = None
    runtime_version: str | None = None
    proof: Parity | None = None
    score: float | None = None  # on the test part, in the runtime, in the metric's unit
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
    version: Literal[2] = 2
    model: str
    input_shapes: list[list[int]]  # without the batch
    data: str | None
    preprocessing: dict[str, object] = Field(default_factory=dict)  # what a device must do to a picture
    metric: MetricCard | None  # of the scores; None without data
    original_score: float | None  # of the model as it was given, in its own framework, on the test part
    target: str
    machine: dict[str, object]  # the target's: processor, system, runtimes
    threads: int
    artefacts: list[Exported]


@dataclass(frozen=True)
class Request:
    """What to export and how to prove it."""

    wanted: tuple[Wanted, ...]
    name: str = "model"
    licence: str = ""  # of the model, written into what is handed back
    effort: Effort = EFFORT.alone
    rounds: int = EFFORT.rounds
    force: bool = False  # replace what is at `out`, even if it holds what no export wrote
    workshop: Workshop | None = None  # one that several jobs share; without it, the job opens its own
    expect: str | None = None  # of the original's metric, such as "0.76" or "76%"; None judges what is plain
    embed: bool = False  # put the normalization into the model
    memory_bytes: int | None = None  # that rounding, or a conversion, may take; None: what the machine has available
    rounding: Rounding | None = None  # of weights in INT8; None: as the runtime's own tool-kit does
    weight_bits: int = 8  # of weights that are not rounded by the runtime
    equalise: bool = False  # scale channels alike before INT8
    correct_biases: bool = False  # for the means that rounding to the nearest, as runtimes do, moves


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
    original: Original | Net,
    request: Request,
    *,
    data: Dataset | None,
    out: Path,
    task: Task | None = None,
    target: Target | None = None,
    tell: Tell | None = None,
) -> Export:
    """Convert, prove and measure; return what `out` holds, which appears whole or not at all.

    Every artefact is compared with the model as it was given. One that fails is reported and not in `out`. Without
    `data` it is compared on random inputs, and there is no score and no INT8. Raises RequestError for what cannot be
    done.
    """
    place = target or Local()
    original = original if isinstance(original, Original) else original_of(original, [])
    if data is None and any(precision == "int8" for _, precision in request.wanted):
        raise RequestError("INT8 is calibrated on images, and proven by them: name them with --data")
    if data is None and request.embed:
        raise RequestError("the normalization that is put into the model is that of its data: name them with --data")
    if data is not None:
        check_proof(original.net, data, sides=len(request.wanted), there=memory_there(request.memory_bytes))
    with told(tell) as tell, appearing(out, EXPORT, ours=EXPORTED, force=request.force) as folder:
        if data is not None:
            task = task_for(data, original.output_shapes, original.forward, task)
            original, data = set_up(original, task, data, expect=request.expect, embed=request.embed, tell=tell)
        net = fold_batch_norm(original.net)
        exam, expected = _exam(original, data, task)
        entries, artefacts = _converted(net, request, exam.task, data, folder, tell)
        effort = ProofEffort(request.effort, rounds=request.rounds)
        seen = prove(place, artefacts, effort, exam=exam, expected=dict.fromkeys(artefacts, expected), tell=tell)
        about = place.about()
        results = [_judged(entry, seen[name], about) if name in seen else entry for name, entry in entries.items()]
        for result in results:
            if not result.passed:
                shutil.rmtree(folder / _name(result), ignore_errors=True)
        found = Export(
            model=request.name,
            input_shapes=[list(node.shape[1:]) for node in net.inputs],
            data=data.name if data else None,
            preprocessing=dict(data.preprocessing) if data else {},
            metric=MetricCard.of(exam.task.metric) if data else None,
            original_score=exam.score(expected),
            target=place.name,
            machine=dict(about),
            threads=request.effort.threads,
            artefacts=results,
        )
        (folder / EXPORT).write_text(as_json(found))
    return found


def _exam(original: Original, data: Dataset | None, task: Task | None) -> tuple[Exam, Outputs]:
    """What artefacts are proven on, the test part or random inputs, and what they must give."""
    if data is None:
        exam = random_exam(original.net, task)
        return exam, expected_of(original, exam.inputs, random=True)
    task = task_for(data, original.output_shapes, original.forward, task)
    taught = task.data(data, original.forward)
    inputs, targets = whole(taught, "test")
    known = known_outputs(taught, targets, original.forward, task.outputs)
    return Exam(task, inputs, targets), expected_of(original, inputs, known=known)


def _converted(
    net: Net, request: Request, task: Task, data: Dataset | None, folder: Path, tell: Tell
) -> tuple[dict[str, Exported], dict[str, Artefact]]:
    """Every artefact that is wanted, by name, and the files of those whose converters did not fail."""
    calibration = tensors_of(whole(data, "calibration")[0]) if data else None
    nets: dict[Precision, Net] = {}
    if data and any(precision == "int8" for _, precision in request.wanted):
        nets["int8"] = _for_int8(net, request, data, tell)
    entries, artefacts = {}, {}
    with lent(request.workshop, request.memory_bytes) as workshop:
        for number, (runtime, precision) in enumerate(request.wanted):
            entry, began = Exported(runtime=runtime, precision=precision, passed=False, why=""), time.perf_counter()
            name = _name(entry)
            tell(Event("convert", number, len(request.wanted), name))
            try:
                made = artefacts[name] = workshop.convert(
                    nets.get(precision, net), runtime, precision, folder / name, calibration=calibration
                )
                about = About.of(data, task, request.licence)
                about.put_into(made)
                about.write(net, made, folder / name)
                entries[name] = entry.model_copy(
                    update={
                        "files": {path.relative_to(folder).as_posix(): sha256_of(path) for path in made.files},
                        "size_bytes": made.size_bytes,
                        "conversion_s": round(time.perf_counter() - began, 1),
                        "notes": _notes(net, made),
                    }
                )
            except ConversionError as error:
                entries[name] = entry.model_copy(update={"why": str(error)})
    tell(Event("convert", len(request.wanted), len(request.wanted)))
    return entries, artefacts


def _for_int8(net: Net, request: Request, data: Dataset, tell: Tell) -> Net:
    """The net that is converted to INT8: scaled, corrected and rounded as is asked for, or as it is.

    By least squares on as many calibration images as memory allows. Raises RequestError, before anything is solved,
    where it allows too few.
    """
    if not (request.rounding or request.equalise or request.correct_biases):
        return net
    images = data.size("calibration")
    if request.rounding == "least squares" or request.correct_biases:
        there = memory_there(request.memory_bytes)
        images = images_within(Draft.of(net), images, there=there, rounded=True, tell=tell)
    inputs = calibration_inputs(data, images)
    if request.equalise:
        net = equalised(net, inputs)
    if request.rounding:
        return quantized(
            net,
            inputs,
            weight_bits=request.weight_bits,
            rounding=request.rounding,
            correct_biases=request.correct_biases,
            tell=tell,
        )
    return corrected_for_runtime(net, inputs, tell=tell) if request.correct_biases else net


def _notes(net: Net, made: Artefact) -> list[str]:
    """What to know of an artefact: free sizes, and whether the same net gives the same bytes."""
    notes = [f"{one.what}: {one.why}" for one in decisions_on_sizes(net, made)]
    varies = RUNTIMES[made.runtime].varies
    return [*notes, f"another export gives other bytes: {varies} differs"] if varies else notes


def _name(entry: Exported) -> str:
    return f"{entry.runtime}-{entry.precision}"


def _judged(entry: Exported, one: Proven, about: Described) -> Exported:
    """Add what was measured, and say whether the artefact passed."""
    if not one.rounds or one.latency is None:
        return entry.model_copy(update={"why": one.why})
    found = {
        "passed": one.passed,
        "why": one.why,
        "runtime_version": about["runtimes"].get(loaded_by(entry.runtime)),
        "proof": one.parity,
        "score": one.score,
        "latency": Timing.of(one.latency),
        "cold_start_ms": one.cold_start_ms,
        "peak_rss_bytes": one.peak_rss_bytes,
        "own_rss_bytes": one.own_rss_bytes,
        "planned_bytes": one.first.planned_bytes,
        "energy_mj": one.first.energy_mj,
        "temperature_c": one.rounds[-1].temperature_c,
    }
    return entry.model_copy(update=found)
