"""Where the candidates of a job are built, converted, run and compared; each once, since results are journaled."""

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from slimwright.cost import Cost, count
from slimwright.data import Dataset, Inputs, like, tensors_of
from slimwright.errors import BudgetError, ConversionError, ProofError, RequestError
from slimwright.graph import Net, load_net, save_net, structure, unlisted
from slimwright.measure import EFFORTS, About, Exam, artefact_of, outputs_of, prove, said_of
from slimwright.progress import Tell
from slimwright.runtimes import Artefact, Workshop
from slimwright.search import PAYS, Candidate, Evaluation, Journal, key_of
from slimwright.storage import packed_bytes
from slimwright.targets import Effort, Target, measure
from slimwright.tasks import Task
from slimwright.techniques import Recipe, Technique, Work, applied, fold_batch_norm

PLAN_IMAGES = 8  # calibration images for an INT8 model that is only timed
MOST_BEGUN = 64  # works that recipes may go on from; each holds a net
TIMES = 3  # that a net which seems slower than the original is timed, at most
ORIGINAL = "original"  # the name of the candidate that nothing was done to


@dataclass(frozen=True)
class Given:
    """What a job starts from: the network, what its outputs mean, and the data that candidates are judged by."""

    net: Net
    task: Task
    data: Dataset  # with the task's targets
    calibration: Inputs
    digests: Mapping[str, Any]  # of all of this, targets that only say what the original gives left out
    exam: Callable[[], Exam]  # the validation part; a job that has ended judges no candidate by it
    about: About  # what is put into every artefact, so that what is measured is what is shipped


@dataclass(frozen=True)
class Place:
    """Where candidates are made and run."""

    runtime: str
    target: Target
    workshop: Workshop


@dataclass(frozen=True)
class Method:
    """How candidates are built: the techniques that recipes may name, and what computes."""

    techniques: tuple[Technique, ...]
    recipe: type[Recipe]
    device: str
    memory_bytes: int | None = None  # that work here may take; None: what the machine has available


@dataclass(frozen=True)
class Bench:
    """Builds and measures candidates. `context` is everything that shapes a result besides the candidate."""

    given: Given
    place: Place
    method: Method
    journal: Journal
    context: Mapping[str, Any]
    tell: Tell
    packs: bool = False  # count the bytes of packed files, too
    artefacts: dict[str, Artefact] = field(default_factory=dict)  # by key, as far as they were asked for
    begun: dict[str, Work] = field(default_factory=dict)  # what recipes may go on from

    def evaluate(self, candidate: Candidate) -> Evaluation:
        """Return a candidate with its measurements: those in the journal, or new ones."""
        key = key_of(self.context, candidate.recipe.model_dump(mode="json"), candidate.cost_only)
        found = self.journal.once(key, lambda: self._measured(candidate, key))
        cost = Cost(**found["cost"])
        rest = {name: found[name] for name in ("precision", "score", "proven", "why", "tensor_share")}
        return Evaluation(candidate, key, cost=cost, **rest)

    def original(self) -> Evaluation:
        """Return the original as it is: all others are timed beside its artefact."""
        return self.evaluate(Candidate(ORIGINAL, self.method.recipe.of(self.given.net)))

    def artefact(self, key: str) -> Artefact:
        """Return the artefact of an evaluation."""
        if key not in self.artefacts:
            self.artefacts[key] = artefact_of(self.journal.results[key]["artefact"], self.journal.files(key))
        return self.artefacts[key]

    def network(self, key: str) -> Net:
        """Return the net of an evaluation."""
        return load_net(self.journal.files(key) / "net", carried=unlisted(self.given.net))

    def _measured(self, candidate: Candidate, key: str) -> Mapping[str, Any]:
        with self.journal.writing(key) as folder:
            try:
                net = self._built(candidate, key)
            except RequestError as error:
                if not isinstance(error.__cause__, BudgetError):
                    raise
                return self._failed(self.given.net, str(error.__cause__))
            try:
                artefact = self._converted(net, folder / "artefact", PLAN_IMAGES if candidate.cost_only else None)
            except ConversionError as error:
                if candidate.name == ORIGINAL or candidate.cost_only:
                    raise
                return self._failed(net, str(error))
            save_net(net, folder / "net")
            alike = _structure(net, artefact)
            try:
                measured = self._costs if candidate.cost_only else self._proven
                found = measured(candidate, net, artefact, alike)
            except ProofError as error:
                if candidate.name == ORIGINAL or candidate.cost_only:
                    raise
                return self._failed(net, str(error))
        return {**found, "artefact": said_of(artefact, folder), "structure": alike}

    def _built(self, candidate: Candidate, key: str) -> Net:
        """Apply a candidate's recipe; training that was stopped goes on."""
        work = applied(
            candidate.recipe,
            self.given.net,
            self.given.data,
            task=self.given.task,
            techniques=self.method.techniques,
            device=self.method.device,
            checkpoint=self.journal.folder / f"training-{key}.safetensors",
            cost_only=candidate.cost_only,
            begun=None if candidate.cost_only else self.begun,
            memory_bytes=self.method.memory_bytes,
            tell=self.tell,
        )
        for first in [*self.begun][:-MOST_BEGUN]:
            del self.begun[first]
        return work.draft.net

    def _converted(self, net: Net, folder: Path, images: int | None) -> Artefact:
        """Export a net, batch norms folded; INT8 is calibrated on the first `images` calibration images, or on all."""
        some = like(self.given.calibration, lambda tensor: tensor[:images])
        made = self.place.workshop.convert(
            fold_batch_norm(net), self.place.runtime, net.precision, folder, calibration=tensors_of(some)
        )
        self.given.about.put_into(made)
        return made

    def _failed(self, net: Net, why: str) -> Mapping[str, Any]:
        """What is kept of a candidate that could not be converted or run: it costs what the original does."""
        cost = asdict(self.original().cost)
        return {"cost": cost, "precision": net.precision, "score": self.original().score, "proven": False,
                "why": why, "tensor_share": 1.0}  # fmt: skip

    def _costs(self, candidate: Candidate, net: Net, artefact: Artefact, alike: str) -> Mapping[str, Any]:
        """Count and time a net whose weights mean nothing."""
        cost = self._cost(candidate, net, artefact, alike)
        return {"cost": asdict(cost), "precision": artefact.precision, "score": 0.0, "proven": False, "why": "",
                "tensor_share": 1.0}  # fmt: skip

    def _proven(self, candidate: Candidate, net: Net, artefact: Artefact, alike: str) -> Mapping[str, Any]:
        """Run a candidate over the validation part, and time it beside the original."""
        exam, name = self.given.exam(), candidate.name
        sides, expected = {name: artefact}, {name: outputs_of(net, exam.inputs)}
        one = prove(self.place.target, sides, EFFORTS["outputs"], exam=exam, expected=expected)[name]
        if not one.rounds or one.score is None:
            raise ProofError(one.why)
        if not math.isfinite(one.score):
            raise ProofError(
                f"its {self.given.task.metric.name} is {one.score}: its outputs hold values that are not numbers, or "
                "the metric gives none for them"
            )
        cost = self._cost(candidate, net, artefact, alike)
        return {
            "cost": asdict(replace(cost, packed_bytes=packed_bytes(net)) if self.packs else cost),
            "precision": artefact.precision,
            "score": one.score,
            "proven": one.passed,
            "why": one.why,
            "tensor_share": one.first.tensor_share,
        }

    def _cost(self, candidate: Candidate, net: Net, artefact: Artefact, alike: str) -> Cost:
        """Count a net and measure its artefact; its time is in terms of the original's, since both run in turn."""
        latency_ms, energy_mj = self._timed(candidate, artefact, alike)
        counted = count(net)
        return Cost(
            counted.macs,
            counted.params,
            counted.weight_bytes,
            counted.peak_activation_bytes,
            latency_ms=latency_ms,
            size_bytes=artefact.size_bytes,
            energy_mj=energy_mj,
        )

    def _timed(self, candidate: Candidate, artefact: Artefact, alike: str) -> tuple[float, float | None]:
        """Milliseconds and millijoules of an image: as measured of the same layers before, whatever their weights."""
        known = next(
            (found["cost"] for found in self.journal.results.values() if found.get("structure") == alike), None
        )
        if known is not None:
            return known["latency_ms"], known["energy_mj"]
        has_to_meet_it = candidate.cost_only and candidate.predicted_ms is not None
        target, effort = self.place.target, EFFORTS["plans" if has_to_meet_it else "times"].together
        assert effort is not None
        if candidate.name == ORIGINAL:
            one = measure(target, {ORIGINAL: artefact}, effort)[ORIGINAL]
            assert one.latency is not None
            return one.latency.median_ms, one.energy_mj
        original = self.original()
        seen = beside_original(target, {ORIGINAL: self.artefact(original.key), "this": artefact}, effort)
        return seen.share * original.latency_ms, seen.energy_mj


@dataclass(frozen=True)
class Beside:
    """What an artefact took beside the original: the share of its time, and energy."""

    share: float
    energy_mj: float | None = None


def beside_original(
    target: Target, sides: Mapping[str, Artefact], effort: Effort, first: Beside | None = None
) -> Beside:
    """Time the original and another artefact in turn, after a `first` time where there was one.

    A model that is slower than the original never ships. So one that seems slower is timed again, in a fresh process,
    up to `TIMES` times in all: beside other work a small net can seem so by chance. The least share counts.
    """
    found = [] if first is None else [first]
    while not found or (len(found) < TIMES and min(one.share for one in found) > 1 / PAYS):
        seen = measure(target, sides, effort)
        whole, one = (seen[name] for name in sides)
        assert whole.latency is not None and one.latency is not None
        found.append(Beside(one.latency.median_ms / whole.latency.median_ms, one.energy_mj))
    return min(found, key=lambda one: one.share)


def _structure(net: Net, artefact: Artefact) -> str:
    """A key of all that an artefact's time depends on: everything but the numbers in its weights."""
    folded = fold_batch_norm(net)
    shapes = {name: list(tensor.shape) for name, tensor in sorted(folded.tensors.items())}
    return key_of(structure(folded), shapes, artefact.runtime, artefact.precision)
