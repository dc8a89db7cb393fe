"""Candidates of a fleet are built and measured here: each once, beside the original, in one process of the runtime."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from slimwright.atomic import removed
from slimwright.cost import Cost, count
from slimwright.data import tensors_of, whole
from slimwright.errors import ConversionError
from slimwright.graph import Net
from slimwright.jobs.bench import ORIGINAL, Beside, beside_original
from slimwright.jobs.fleet.ground import Ground
from slimwright.measure import Exam, Proven, artefact_of, expected_of, outputs_of, prove_together, said_of
from slimwright.runtimes import Artefact, Workshop
from slimwright.search import Candidate, Evaluation
from slimwright.targets import Effort
from slimwright.tasks import Outputs, known_outputs
from slimwright.techniques import applied, fold_batch_norm

RESULT = "result"
CHOICE = Effort(runs=40, least_s=0.8, profile_runs=5)  # of a candidate beside the original
FINAL = Effort(runs=60, least_s=1.6)  # of the one that ships
UNTIMED_CHOICE, UNTIMED_FINAL = replace(CHOICE, least_s=0.3), replace(FINAL, least_s=0.6)  # no time is to be met
MOST_MADE = 64  # models of one ground that a process remembers


@dataclass(frozen=True)
class Built:
    """A candidate as it would ship: its evaluation, its net, its files."""

    evaluation: Evaluation
    net: Net
    artefact: Artefact | None  # None where the net could not be converted


@dataclass(frozen=True)
class Boxed:
    """The same to be sent to other workers: its files as bytes."""

    evaluation: Evaluation
    net: Net
    artefact: Mapping[str, Any]
    files: Mapping[str, bytes]

    @classmethod
    def of(cls, one: Built) -> "Boxed | None":
        """Return a candidate with its files; None where it has none."""
        if one.artefact is None:
            return None
        folder = one.artefact.files[0].parent
        files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in one.artefact.files}
        return cls(one.evaluation, one.net, said_of(one.artefact, folder), files)

    def laid_down(self, folder: Path) -> Built:
        """Write the files into a folder."""
        for name, data in self.files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        return Built(self.evaluation, self.net, artefact_of(self.artefact, folder))


@dataclass(frozen=True)
class Tested:
    """The test part, and what the model as it was given makes of it. No choice sees it."""

    exam: Exam
    expected: Outputs


@dataclass(frozen=True)
class Maker:
    """Builds and measures for one ground in one process."""

    ground: Ground
    workshop: Workshop
    folder: Path
    made: dict[str, Built] = field(default_factory=dict)
    lasting: set[str] = field(default_factory=set)  # of what was made, that which is never let go
    tested: list[Tested] = field(default_factory=list)  # once a proof asked for it

    def original(self) -> Built:
        """Return the original, converted; it costs what the network of all classes was measured to."""
        key = self.ground.whole.key
        if key not in self.made:
            net = self.ground.given.net
            artefact = self._converted(net, key)
            cost = replace(self.ground.whole.cost, size_bytes=artefact.size_bytes)
            self.made[key] = Built(replace(self.ground.whole, cost=cost), net, artefact)
            self.lasting.add(key)
        return self.made[key]

    def evaluate(self, candidate: Candidate) -> Evaluation:
        """Return a candidate with its measurements: built, and run beside the original."""
        key = self.ground.model_key(candidate.recipe)
        if key not in self.made:
            for first in [one for one in self.made if one not in self.lasting][:-MOST_MADE]:
                del self.made[first]
                removed(self.folder / first)
            self.made[key] = self._built(candidate, key)
        return replace(self.made[key].evaluation, candidate=candidate)

    def proven(self, key: str) -> dict[str, Proven]:
        """Prove a model that was made on the test part, beside the original."""
        test, one = self.test(), self.made[key]
        sides = {ORIGINAL: self._files_of(self.original()), RESULT: self._files_of(one)}
        expected = {ORIGINAL: test.expected, RESULT: outputs_of(one.net, test.exam.inputs)}
        effort = UNTIMED_FINAL if _is_untimed(one.evaluation.candidate) else FINAL
        return prove_together(self.ground.settings.target, sides, effort, exam=test.exam, expected=expected)

    def test(self) -> Tested:
        """Return the test part; only a proof asks for it."""
        if not self.tested:
            ground, given = self.ground, self.ground.given
            inputs, targets = whole(given.data, "test")
            known = known_outputs(given.data, targets, ground.original.forward, given.task.outputs)
            expected = expected_of(ground.original, inputs, known)
            self.tested.append(Tested(Exam(given.task, inputs, targets), expected))
        return self.tested[0]

    def _built(self, candidate: Candidate, key: str) -> Built:
        ground, given, settings = self.ground, self.ground.given, self.ground.settings
        work = applied(
            candidate.recipe,
            given.net,
            given.data,
            task=given.task,
            techniques=settings.techniques,
            device=settings.device,
            memory_bytes=settings.memory_bytes,
        )
        net = work.draft.net
        try:
            artefact = self._converted(net, key)
        except ConversionError as error:
            return Built(self._failed(candidate, key, net, str(error)), net, None)
        sides = {ORIGINAL: self._files_of(self.original()), RESULT: artefact}
        expected = {RESULT: outputs_of(net, ground.exam.inputs)}
        effort = UNTIMED_CHOICE if _is_untimed(candidate) else CHOICE
        seen = prove_together(settings.target, sides, effort, exam=ground.exam, expected=expected)
        one, beside = seen[RESULT], seen[ORIGINAL]
        if one.latency is None or beside.latency is None or one.score is None or not math.isfinite(one.score):
            why = one.why or f"its {given.task.metric.name} is {one.score}"
            return Built(self._failed(candidate, key, net, why), net, artefact)
        first = Beside(one.latency.median_ms / beside.latency.median_ms)
        share_of_time = beside_original(settings.target, sides, effort, first).share
        cost = _cost_of(net, artefact, share_of_time * ground.whole.latency_ms)
        share = one.first.tensor_share
        found = Evaluation(candidate, key, net.precision, cost, one.score, one.passed, one.why, share)
        return Built(found, net, artefact)

    def _converted(self, net: Net, key: str) -> Artefact:
        """Export a net, batch norms folded; INT8 is calibrated on all calibration images."""
        given = self.ground.given
        calibration = tensors_of(given.calibration) if net.precision == "int8" else None
        made = self.workshop.convert(
            fold_batch_norm(net), self.ground.runtime, net.precision, self.folder / key, calibration=calibration
        )
        given.about.put_into(made)
        return made

    def _files_of(self, one: Built) -> Artefact:
        if one.artefact is None:
            raise ConversionError(one.evaluation.why)
        return one.artefact

    def _failed(self, candidate: Candidate, key: str, net: Net, why: str) -> Evaluation:
        """What is said of a candidate that could not be converted or run: it costs what the original does."""
        whole = self.ground.whole
        return Evaluation(candidate, key, net.precision, whole.cost, whole.score, proven=False, why=why)


def _is_untimed(candidate: Candidate) -> bool:
    """True for a plan for limits that say nothing of time; a whole network is for any limits."""
    return candidate.plan is not None and candidate.predicted_ms is None


def _cost_of(net: Net, artefact: Artefact, latency_ms: float) -> Cost:
    return Cost(**{**asdict(count(net)), "latency_ms": latency_ms, "size_bytes": artefact.size_bytes})
