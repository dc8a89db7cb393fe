"""Prove artefacts: run them in their runtime, compare their outputs, score them, and time them. All of it is measured.

Every job proves by the same function; an `Effort` of `EFFORTS` says how much is run.
"""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from torch import Tensor

from slimwright.data import Inputs, Targets, as_inputs, tensors_of
from slimwright.errors import ProofError, RequestError
from slimwright.graph import Net, random_inputs
from slimwright.measure.records import Parity
from slimwright.progress import Event, Tell, silent
from slimwright.runner.timing import Latency
from slimwright.runtimes import Artefact
from slimwright.targets import Effort, Measurement, Target, measure
from slimwright.tasks import Imitation, Outputs, Task

TOLERANCE = {"fp32": 1e-3, "fp16": 0.05, "int8": 0.5}  # of the largest error over the largest value of an output
RANDOM_IMAGES = 16  # where there is no data
COMPARED = 1 << 22  # values of an output that are compared at once, in float64
LEAST_AGREEMENT = {"fp32": 0.995, "fp16": 0.99, "int8": 0.95}  # share of answers on which both mean the same


@dataclass(frozen=True)
class ProofEffort:
    """How much of a proof is run: `alone` in a fresh process for each artefact, `together` in turn in one process.

    What is run alone is run `rounds` times, each time in a fresh process; medians count.
    """

    alone: Effort
    together: Effort | None = None
    rounds: int = 1


EFFORTS: Mapping[str, ProofEffort] = {
    "outputs": ProofEffort(Effort(profile_runs=10)),  # what an artefact computes, and its kernels
    "times": ProofEffort(Effort(), Effort(runs=40, least_s=1.0, energy_s=0.5)),  # beside the original
    "plans": ProofEffort(Effort(), Effort(runs=40, least_s=2.5, energy_s=0.5)),  # the same where a time is to be met
    "final": ProofEffort(Effort(runs=5, profile_runs=20, energy_s=1.0), Effort(runs=60, least_s=2.5)),
    "export": ProofEffort(Effort(runs=60, least_s=1.0, energy_s=1.0), rounds=3),
    "inspect": ProofEffort(Effort(profile_runs=30), Effort(runs=30, least_s=2.0)),
    "doctor": ProofEffort(Effort(runs=20, least_s=0.5, profile_runs=10)),
}


@dataclass(frozen=True)
class Exam:
    """What artefacts are proven on: inputs, what they should give, and how the task judges it.

    Without `targets` there is no score; with random inputs only the error counts, not agreement.
    """

    task: Task
    inputs: Inputs
    targets: Targets | None = None
    random: bool = False

    def parity(self, found: Outputs, expected: Outputs, precision: str) -> Parity:
        """Compare an artefact's outputs with those that it should give."""
        return parity(self.task, found, expected, precision, random=self.random)

    def score(self, outputs: Outputs) -> float | None:
        """Return the metric of outputs; None without targets."""
        return None if self.targets is None else self.task.score(outputs, self.targets)


def random_exam(net: Net, task: Task | None = None) -> Exam:
    """Return what artefacts of a net are proven on where there is no data; nothing is known of the outputs' meaning."""
    inputs = as_inputs(random_inputs(net, RANDOM_IMAGES, seed=0))
    return Exam(task or Imitation((1.0,) * len(net.outputs)), inputs, random=True)


@dataclass(frozen=True)
class Proven:
    """What an artefact did: its outputs against what was expected, and its costs. `why` says what went wrong."""

    artefact: Artefact
    why: str = ""
    missing: bool = False  # the runtime, on the target; then `why` says how to install it
    parity: Parity | None = None
    score: float | None = None  # in the metric's unit
    latency: Latency | None = None  # beside the others where they ran together, else of the median round
    rounds: tuple[Measurement, ...] = ()

    @property
    def passed(self) -> bool:
        """True where it ran and gave what it should."""
        return not self.why and (self.parity is None or self.parity.passed)

    @property
    def first(self) -> Measurement:
        """The first round, which gave the outputs and the kernels."""
        return self.rounds[0]

    @property
    def cold_start_ms(self) -> float:
        """Load and first run in a fresh process, median of the rounds."""
        return statistics.median(one.cold_start_ms for one in self.rounds)

    @property
    def peak_rss_bytes(self) -> int:
        """Peak memory of a fresh process, median of the rounds that returned no outputs, if there are any."""
        return int(statistics.median(one.peak_rss_bytes for one in self.rounds[1:] or self.rounds))

    @property
    def own_rss_bytes(self) -> int:
        """Peak memory over that of the empty runtime, likewise."""
        return int(statistics.median(one.own_rss_bytes for one in self.rounds[1:] or self.rounds))


def prove(
    target: Target,
    artefacts: Mapping[str, Artefact],
    effort: ProofEffort,
    *,
    exam: Exam | None = None,
    expected: Mapping[str, Outputs] | None = None,
    tell: Tell = silent,
) -> dict[str, Proven]:
    """Run artefacts on a target by an effort; each is compared with the outputs `expected` of its name.

    An artefact that cannot be loaded, run or that crashes its runtime is reported in `why`; it does not raise.
    """
    found = {name: Proven(artefact) for name, artefact in artefacts.items()}
    steps, step = effort.rounds * len(found) + 1, 0
    for turn in range(effort.rounds):
        for name, so_far in found.items():
            tell(Event("prove", step, steps, name))
            step += 1
            if not so_far.why:
                found[name] = _round(target, name, so_far, effort, exam if turn == 0 else None)
    found = {name: _judged(name, one, exam, expected or {}) for name, one in found.items()}
    runs = {name: one.artefact for name, one in found.items() if one.rounds}
    if effort.together is not None and runs:
        tell(Event("prove", steps - 1, steps, f"{len(runs)} in turn" if len(runs) > 1 else next(iter(runs))))
        seen = measure(target, runs, effort.together)
        found |= {name: replace(found[name], latency=seen[name].latency) for name in runs}
    tell(Event("prove", steps, steps))
    return found


def prove_together(
    target: Target, artefacts: Mapping[str, Artefact], effort: Effort, *, exam: Exam, expected: Mapping[str, Outputs]
) -> dict[str, Proven]:
    """Run artefacts in turn in one process, once, and compare and score what they give as `prove` does.

    One process takes a third of the time of `prove`; memory and cold start then belong to no side. Where one of them
    cannot be run, `why` says so of all.
    """
    try:
        seen = measure(target, artefacts, effort, inputs=tensors_of(exam.inputs))
    except ProofError as error:
        return {name: Proven(artefact, str(error)) for name, artefact in artefacts.items()}
    found = {name: Proven(artefact, rounds=(seen[name],)) for name, artefact in artefacts.items()}
    return {name: _judged(name, one, exam, expected) for name, one in found.items()}


def times(target: Target, artefacts: Mapping[str, Artefact], effort: Effort) -> dict[str, float]:
    """Return the median milliseconds of artefacts that run in turn in one process.

    Raises ProofError where one of them cannot be run.
    """
    seen = measure(target, artefacts, effort)
    return {name: one.latency.median_ms for name, one in seen.items() if one.latency}


def given_by(target: Target, artefact: Artefact, inputs: Inputs) -> Outputs:
    """Return what an artefact gives on a target. Raises ProofError where it cannot be run."""
    seen = measure(target, {"model": artefact}, Effort(), inputs=tensors_of(inputs))["model"]
    assert seen.outputs is not None
    return seen.outputs


def parity(task: Task, found: Outputs, expected: Outputs, precision: str, *, random: bool = False) -> Parity:
    """Compare outputs with those expected: the largest error, of the largest value, and what they mean to the task.

    Of several outputs the worst counts. On `random` inputs, which lie between classes, agreement does not count.
    """
    if [one.shape for one in found] != [one.shape for one in expected]:
        shapes = [[list(one.shape) for one in side] for side in (found, expected)]
        raise ProofError(f"the artefact gives outputs of shapes {shapes[0]}, the network {shapes[1]}")
    errors = [_error(mine, its) for mine, its in zip(found, expected, strict=True)]
    relative, agreement = max(error for _, error in errors), task.agreement(found, expected)
    least = 0.0 if random else LEAST_AGREEMENT[precision]
    return Parity(
        images=len(found[0]),
        max_abs_error=max(error for error, _ in errors),
        max_relative_error=relative,
        tolerance=TOLERANCE[precision],
        agreement=agreement,
        least_agreement=least,
        passed=relative <= TOLERANCE[precision] and agreement >= least,
    )


def fault(found: Parity) -> str:
    """Say how outputs differ from what they should be."""
    return (
        f"its outputs differ from the network's: relative error {found.max_relative_error:.2g} (at most "
        f"{found.tolerance:g}), {found.agreement:.1%} of the answers on {found.images} images agree (at "
        f"least {found.least_agreement:.1%})"
    )


def outputs_of(net: Net, inputs: Inputs) -> Outputs:
    """Run the net itself, in batches, and return all of its outputs, each [N, ...]."""
    return net.run(tensors_of(inputs))


def _round(target: Target, name: str, so_far: Proven, effort: ProofEffort, exam: Exam | None) -> Proven:
    inputs: Sequence[Tensor] | None = None if exam is None else tensors_of(exam.inputs)
    try:
        one = measure(target, {name: so_far.artefact}, effort.alone, inputs=inputs)[name]
    except (ProofError, RequestError) as error:
        return Proven(so_far.artefact, str(error), missing=isinstance(error, RequestError))
    return Proven(so_far.artefact, rounds=(*so_far.rounds, one))


def _judged(name: str, one: Proven, exam: Exam | None, expected: Mapping[str, Outputs]) -> Proven:
    """Add parity, score and the latency of the median round."""
    if one.why:
        return one
    timed = sorted((m.latency for m in one.rounds if m.latency), key=lambda latency: latency.median_ms)
    latency = timed[len(timed) // 2] if timed else None
    outputs = one.first.outputs
    if exam is None or outputs is None:
        return replace(one, latency=latency)
    try:
        found = exam.parity(outputs, expected[name], one.artefact.precision) if name in expected else None
    except ProofError as error:
        return replace(one, why=str(error), latency=latency)
    why = "" if found is None or found.passed else fault(found)
    return replace(one, why=why, parity=found, score=exam.score(outputs), latency=latency)


def _error(found: Tensor, expected: Tensor) -> tuple[float, float]:
    """The largest error of an output, absolute and relative to its largest value."""
    if not found.numel():
        return 0.0, 0.0
    images = max(COMPARED // max(found[0].numel(), 1), 1)
    error, largest = 0.0, 0.0
    for mine, its in zip(found.split(images), expected.split(images), strict=True):
        far = float((mine.double() - its.double()).abs().max())
        error = max(error, math.inf if math.isnan(far) else far)
        largest = max(largest, float(its.double().abs().max()))
    return error, error / max(largest, 1e-12)
