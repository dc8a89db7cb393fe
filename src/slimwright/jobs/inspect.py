"""Inspect networks: exact counts, and what was measured of each, one beside the other.

What is measured is a file: the net exported with its batch norms folded, or the model of a bundle as it is. Latencies
are taken in turn, one image, one thread.
"""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from slimwright.data import Dataset, whole
from slimwright.errors import ConversionError, ModelError, ProofError
from slimwright.jobs.forecast import check_inspection
from slimwright.jobs.setups import check_setup
from slimwright.measure import EFFORTS, Exam, Inspection, Measured, Original, ProofEffort, Proven, inspection_of, prove
from slimwright.progress import Event, Tell, told
from slimwright.runtimes import Artefact, Workshop, lent
from slimwright.targets import Local, Target
from slimwright.tasks import Making, Task, task_for
from slimwright.techniques import fold_batch_norm

RUNTIME = "onnxruntime"


@dataclass(frozen=True)
class Subject:
    """A network to inspect. `artefact` is its model file, where there is one that is not to be made from the net."""

    name: str
    original: Original
    trained: bool = True
    artefact: Artefact | None = None


def inspect(
    subjects: Sequence[Subject],
    *,
    data: Dataset | None = None,
    task: Task | None = None,
    expect: str | None = None,
    timed: bool = False,
    workshop: Workshop | None = None,
    memory_bytes: int | None = None,
    tell: Tell | None = None,
) -> list[Inspection]:
    """Return what each network costs; with `data` its score, and if `timed` what its file does in the runtime.

    A network that cannot be converted or run is reported as such; it does not raise. `workshop` is one that several
    jobs share. The work here, a conversion and a run may take `memory_bytes` each, by default what the machine has
    available. Raises DataError where a trained network does not reach the metric that it is expected to, or is plainly
    set up wrongly, and RequestError where memory is sure to be too little.
    """
    nets = [subject.original.net for subject in subjects]
    check_inspection(nets, data, timed=timed, memory_bytes=memory_bytes)
    with told(tell) as tell:
        if data is not None:
            _check_setups(subjects, data, task, expect, tell)
        exams = [None if data is None else _exam(subject, data, task, subjects[0]) for subject in subjects]
        seen = [Measured()] * len(subjects)
        if timed:
            with lent(workshop, memory_bytes) as at_work:
                seen = _measured(subjects, exams, at_work, Local(memory_bytes), tell)
    scored = (_scored(one, subject, exam) for one, subject, exam in zip(seen, subjects, exams, strict=True))
    return [inspection_of(net, subject.name, one) for net, subject, one in zip(nets, subjects, scored, strict=True)]


def _check_setups(
    subjects: Sequence[Subject], data: Dataset, task: Task | Making | None, expect: str | None, tell: Tell
) -> None:
    for subject in subjects:
        original = subject.original
        if subject.trained:
            wanted = task_for(data, original.output_shapes, original.forward, task)
            check_setup(original, wanted, data, expect=expect, tell=tell)


def _exam(subject: Subject, data: Dataset, task: Task | None, first: Subject) -> Exam:
    """What a network is judged by. Where nobody knows what is right, it is what the first gives of the same shape."""
    original = subject.original
    if [*first.original.output_shapes] == [*original.output_shapes]:
        original = first.original
    task = task_for(data, original.output_shapes, original.forward, task)
    inputs, targets = whole(task.data(data, original.forward), "test")
    return Exam(task, inputs, targets)


def _measured(
    subjects: Sequence[Subject], exams: Sequence[Exam | None], workshop: Workshop, place: Target, tell: Tell
) -> list[Measured]:
    """Run every network on the runtime, one after the other in turn."""
    effort = EFFORTS["inspect"]
    found: list[Measured] = []
    running: dict[str, Artefact] = {}
    with tempfile.TemporaryDirectory(prefix="slimwright-") as scratch:
        for number, (subject, exam) in enumerate(zip(subjects, exams, strict=True)):
            tell(Event("export", number, len(subjects), subject.name))
            try:
                net = fold_batch_norm(subject.original.net)
                artefact = subject.artefact or workshop.convert(net, RUNTIME, "fp32", Path(scratch) / str(number))
                one = prove(place, {"": artefact}, ProofEffort(effort.alone), exam=exam if subject.trained else None)[
                    ""
                ]
                if not one.rounds:
                    raise ProofError(one.why)
            except (ConversionError, ModelError, ProofError) as error:
                found.append(Measured(missing=dict.fromkeys(("size_bytes", "latency"), str(error))))
                continue
            running[str(number)] = artefact
            found.append(_record(one))
        tell(Event("export", len(subjects), len(subjects)))
        beside = prove(place, running, ProofEffort(effort.alone, effort.together), tell=tell) if running else {}
    return [replace(one, latency=beside[str(k)].latency) if str(k) in beside else one for k, one in enumerate(found)]


def _record(one: Proven) -> Measured:
    return Measured(one.artefact.size_bytes, kernel_ms=one.first.kernel_ms, score=one.score)


def _scored(found: Measured, subject: Subject, exam: Exam | None) -> Measured:
    """Add the score on the test part: of the runtime's outputs if there are any, else of the model as it was given."""
    if exam is None:
        return found
    if not subject.trained:
        why = "its weights are not trained: give --weights, or name a net that slimwright train saved"
        return replace(found, missing={**found.missing, "score": why})
    score = exam.score(subject.original.forward(exam.inputs)) if found.score is None else found.score
    return replace(found, score=score, metric=exam.task.metric)
