"""Examine a network: what each runtime makes of it, what is slow there, and what to change in the model.

Everything is tried: the network is converted for every runtime that is installed, loaded and run on images, and its
scores are compared with the net's own. What helps is measured too: the network with a kind of layer left out or made
plain is timed against itself, in turn, in one process.
Source of what to look for: Tabani et al. 2021 (arXiv 2105.02613): operators that a runtime lacks, that it takes only in
other forms, or that leave its fast path.
"""

import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from slimwright.cost.latency import LayerShape
from slimwright.data import Dataset, Inputs, as_inputs, like, tensors_of, whole
from slimwright.errors import ConversionError, ProofError, RequestError
from slimwright.graph import Net, random_inputs
from slimwright.jobs.doctor.swaps import Swap, swaps_of
from slimwright.jobs.doctor.widths import shapes_to_time
from slimwright.jobs.forecast import check_examination
from slimwright.measure import EFFORTS, TOLERANCE, Exam, outputs_of, prove, times
from slimwright.progress import Event, Tell, told
from slimwright.runner.sessions.session import Kernel
from slimwright.runner.timing import Latency
from slimwright.runtimes import RUNTIMES, Artefact, Precision, Workshop, lent
from slimwright.runtimes.fallbacks import Fallback
from slimwright.runtimes.half import largest_values
from slimwright.runtimes.known import converter_python, of, pairs
from slimwright.runtimes.layers import is_tensor_kernel
from slimwright.runtimes.suited import suited
from slimwright.targets import Effort, Local, Target, layer_timer
from slimwright.tasks import Imitation, Task
from slimwright.techniques import fold_batch_norm

IMAGES, CALIBRATION = 4, 8  # to compare on, and to calibrate INT8 on
COMPARING = Effort(runs=30, least_s=1.0)
TRIAL_S = 20.0  # where a conversion takes longer, no more than one is made
LAYERS_IN = ("onnxruntime", "ncnn")  # single layers are made there without a converter


@dataclass(frozen=True)
class Visit:
    """What one runtime made of the network; `why` says, in its own words, what did not work."""

    runtime: str
    precision: Precision
    why: str = ""
    missing: bool = False  # the runtime; then `why` says how to install it
    converted: bool = False
    ran: bool = False
    error: float | None = None  # largest difference to the net's outputs, over the largest
    conversion_s: float | None = None
    size_bytes: int | None = None
    latency: Latency | None = None
    kernels: tuple[Kernel, ...] = ()
    fallbacks: tuple[Fallback, ...] = ()
    rewritten: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # paths by op, of what was put otherwise

    @property
    def tolerance(self) -> float:
        """The largest error that counts as equal."""
        return TOLERANCE[self.precision]

    @property
    def equal(self) -> bool:
        """True if the scores were the net's; not for what is not a number."""
        return self.error is not None and self.error <= self.tolerance

    @property
    def other_share(self) -> float:
        """Share of the kernels' time outside those that multiply by weights; 0 where there was no profile."""
        total = sum(kernel.ms for kernel in self.kernels)
        return sum(k.ms for k in self.kernels if not is_tensor_kernel(k.kind)) / total if total else 0.0

    @property
    def well(self) -> bool:
        """True if it converts, runs and gives the net's scores."""
        return self.converted and self.ran and self.equal


@dataclass(frozen=True)
class Tried:
    """The network with a swap made, timed against itself in one runtime."""

    swap: Swap
    runtime: str
    before_ms: float
    after_ms: float

    @property
    def gain(self) -> float:
        """Share of the time that the swap saves; negative where it costs."""
        return 1 - self.after_ms / self.before_ms


@dataclass(frozen=True)
class Diagnosis:
    """Everything that was seen of one network; its batch norms are folded, as every runtime's are."""

    model: str
    net: Net
    data: str | None
    visits: tuple[Visit, ...]
    trials: tuple[Tried, ...]
    layer_ms: Mapping[str, Mapping[LayerShape, float]]  # by runtime
    largest: Mapping[str, float]  # absolute value of each node on the images

    @property
    def well(self) -> bool:
        """True if nothing that was tried failed."""
        return all(visit.well for visit in self.visits if not visit.missing)


def examine(
    net: Net,
    name: str,
    *,
    runtimes: Sequence[str] = (),
    precisions: Sequence[str] = ("fp32",),
    data: Dataset | None = None,
    task: Task | None = None,
    workshop: Workshop | None = None,
    memory_bytes: int | None = None,
    tell: Tell | None = None,
) -> Diagnosis:
    """Return what was seen of a network in `runtimes`, or in all there are.

    Images are the first of `data`'s calibration part, else random. `workshop` is one that several jobs share. The work
    here, a conversion and a run may take `memory_bytes` each, by default what the machine has available. Raises
    RequestError for a runtime or a precision that there is not, where none of the runtimes is installed, and where
    memory is sure to be too little.
    """
    net, place = fold_batch_norm(net), Local(memory_bytes)
    wanted = pairs(runtimes or tuple(RUNTIMES), precisions)
    check_examination(net, data, memory_bytes=memory_bytes)
    exam, calibration = _exam(net, data, task)
    with (
        told(tell) as tell,
        lent(workshop, memory_bytes) as at_work,
        tempfile.TemporaryDirectory(prefix="slimwright-") as scratch,
    ):
        ward = _Ward(at_work, place, Path(scratch), exam, calibration)
        visits = []
        for number, (runtime, precision) in enumerate(wanted):
            tell(Event("examine", number, len(wanted), f"{runtime} {precision}"))
            visits.append(ward.visit(net, runtime, precision))
        tell(Event("examine", len(wanted), len(wanted)))
        if all(visit.missing for visit in visits):
            raise RequestError("; ".join(dict.fromkeys(visit.why for visit in visits)))
        trials = tuple(ward.trials(net, visits, tell))
        well = [visit.runtime for visit in visits if visit.well]
        layers = {}
        for runtime in (r for r in LAYERS_IN if r in well):
            tell(Event("layers", 0, 1, runtime))
            shapes = shapes_to_time(net)
            layers[runtime] = dict(zip(shapes, layer_timer(place, runtime)(shapes, 0), strict=True))
            tell(Event("layers", 1, 1, runtime))
    largest = largest_values(net, tensors_of(exam.inputs))
    return Diagnosis(name, net, data.name if data else None, tuple(visits), trials, layers, largest)


def rewritten(net: Net, runtime: str) -> dict[str, tuple[str, ...]]:
    """Return what is put otherwise for a runtime: the paths of those layers, by op."""
    other = {node.name: node for node in suited(net, runtime).nodes}
    found: dict[str, list[str]] = {}
    for node in net.nodes:
        if node.name not in other or (node.op, node.arguments) != (other[node.name].op, other[node.name].arguments):
            found.setdefault(node.op, []).append(net.paths[node.name])
    return {op: tuple(paths) for op, paths in found.items()}


@dataclass(frozen=True)
class _Ward:
    """Where a network is converted and run."""

    workshop: Workshop
    place: Target
    folder: Path
    exam: Exam
    calibration: Inputs
    made: dict[tuple[str, str, str], Artefact] = field(default_factory=dict)

    def visit(self, net: Net, runtime: str, precision: Precision) -> Visit:
        """Convert, run and compare; what fails is reported."""
        try:
            converter_python(runtime)
        except RequestError as error:
            return Visit(runtime, precision, str(error), missing=True)
        began = time.perf_counter()
        changed = rewritten(net, runtime)
        try:
            artefact = self.converted(net, runtime, precision, "net")
        except ConversionError as error:
            why = str(error).removeprefix(f"{of(runtime).title}, {precision}: ")
            return Visit(runtime, precision, why, rewritten=changed)
        visit = Visit(
            runtime,
            precision,
            converted=True,
            conversion_s=time.perf_counter() - began,
            size_bytes=artefact.size_bytes,
            fallbacks=artefact.fallbacks,
            rewritten=changed,
        )
        expected = {"net": outputs_of(net, self.exam.inputs)}
        one = prove(self.place, {"net": artefact}, EFFORTS["doctor"], exam=self.exam, expected=expected)["net"]
        if not one.rounds:
            return replace(visit, why=one.why, missing=one.missing)
        visit = replace(visit, ran=True, latency=one.latency, kernels=one.first.kernels)
        if one.parity is None:
            return replace(visit, why=one.why)
        return replace(visit, error=one.parity.max_relative_error)

    def trials(self, net: Net, visits: Sequence[Visit], tell: Tell) -> Iterator[Tried]:
        """Time every swap in every runtime that is well and quick to convert for."""
        swaps = swaps_of(net)
        quick = [v.runtime for v in visits if v.well and v.precision == "fp32" and (v.conversion_s or 0) <= TRIAL_S]
        steps = [(swap, runtime) for runtime in quick for swap in swaps]
        for number, (swap, runtime) in enumerate(steps):
            tell(Event("try", number, len(steps), f"{swap.name}, {runtime}"))
            try:
                sides = {
                    "net": self.converted(net, runtime, "fp32", "net"),
                    "swapped": self.converted(swap.net, runtime, "fp32", swap.name),
                }
                ms = times(self.place, sides, COMPARING)
            except (ConversionError, ProofError):
                continue  # a trial that cannot be made says nothing of the network
            yield Tried(swap, runtime, ms["net"], ms["swapped"])
        if steps:
            tell(Event("try", len(steps), len(steps)))

    def converted(self, net: Net, runtime: str, precision: Precision, name: str) -> Artefact:
        """Return the artefact of a net, made once for each name."""
        key = (runtime, precision, name)
        if key not in self.made:
            folder, calibration = self.folder / "-".join(key), tensors_of(self.calibration)
            self.made[key] = self.workshop.convert(net, runtime, precision, folder, calibration=calibration)
        return self.made[key]


def _exam(net: Net, data: Dataset | None, task: Task | None) -> tuple[Exam, Inputs]:
    """What is compared, and images to calibrate on."""
    task = task or Imitation((1.0,) * len(net.outputs))
    if data is not None:
        inputs = whole(data, "calibration")[0]
        return Exam(task, _some(inputs, 0, IMAGES), random=True), _some(inputs, 0, CALIBRATION)
    drawn = as_inputs(random_inputs(net, IMAGES + CALIBRATION, seed=0))
    return Exam(task, _some(drawn, 0, IMAGES), random=True), _some(drawn, IMAGES, IMAGES + CALIBRATION)


def _some(inputs: Inputs, start: int, end: int) -> Inputs:
    return like(inputs, lambda tensor: tensor[start:end])
