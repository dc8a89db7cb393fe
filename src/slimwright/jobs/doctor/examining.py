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

import torch
from torch import Tensor

from slimwright.cost.latency import LayerShape
from slimwright.data import Dataset, whole
from slimwright.errors import ConversionError, ProofError, RequestError
from slimwright.graph import Net
from slimwright.jobs.doctor.swaps import Swap, swaps_of
from slimwright.jobs.doctor.widths import shapes_to_time
from slimwright.measure.proof import TOLERANCE, net_scores, parity
from slimwright.progress import Event, Tell, silent
from slimwright.runner.sessions.session import Kernel
from slimwright.runner.timing import Latency
from slimwright.runtimes import RUNTIMES, Artefact, Precision, Workshop
from slimwright.runtimes.fallbacks import Fallback
from slimwright.runtimes.half import largest_values
from slimwright.runtimes.known import converter_python, of, pairs
from slimwright.runtimes.layers import is_tensor_kernel
from slimwright.runtimes.suited import suited
from slimwright.targets import Effort, Local, Target, measure
from slimwright.targets.layers import layer_timer
from slimwright.techniques.fold import fold_batch_norm

IMAGES, CALIBRATION = 4, 8  # to compare on, and to calibrate INT8 on
RUNNING = Effort(runs=20, least_s=0.5, profile_runs=10)
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
    error: float | None = None  # largest difference to the net's scores, over the largest score
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
    tell: Tell = silent,
) -> Diagnosis:
    """Return what was seen of a network in `runtimes`, or in all there are.

    Images are the first of `data`'s calibration part, else random. Raises RequestError for a runtime or a precision
    that there is not, and where none of the runtimes is installed.
    """
    net, place = fold_batch_norm(net), Local()
    wanted = pairs(runtimes or tuple(RUNTIMES), precisions)
    images = _images(net, data)
    with Workshop() as workshop, tempfile.TemporaryDirectory(prefix="slimwright-") as scratch:
        room = _Room(workshop, place, Path(scratch), images)
        visits = []
        for number, (runtime, precision) in enumerate(wanted):
            tell(Event("examine", number, len(wanted), f"{runtime} {precision}"))
            visits.append(room.visit(net, runtime, precision))
        tell(Event("examine", len(wanted), len(wanted)))
        if all(visit.missing for visit in visits):
            raise RequestError("; ".join(dict.fromkeys(visit.why for visit in visits)))
        trials = tuple(room.trials(net, visits, tell))
    well = [visit.runtime for visit in visits if visit.well]
    layers = {}
    for runtime in (r for r in LAYERS_IN if r in well):
        tell(Event("layers", 0, 1, runtime))
        shapes = shapes_to_time(net)
        layers[runtime] = dict(zip(shapes, layer_timer(place, runtime)(shapes, 0), strict=True))
        tell(Event("layers", 1, 1, runtime))
    largest = largest_values(net, images[0])
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
class _Room:
    """Where a network is converted and run."""

    workshop: Workshop
    place: Target
    folder: Path
    images: tuple[Tensor, Tensor]  # to compare on, and to calibrate on
    made: dict[tuple[str, str, str], Artefact] = field(default_factory=dict)

    def visit(self, net: Net, runtime: str, precision: Precision) -> Visit:
        """Convert, run and compare; what fails is told of."""
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
        took = time.perf_counter() - began
        visit = Visit(
            runtime,
            precision,
            converted=True,
            conversion_s=took,
            size_bytes=artefact.size_bytes,
            fallbacks=artefact.fallbacks,
            rewritten=changed,
        )
        try:
            found = measure(self.place, {"net": artefact}, RUNNING, images=self.images[0])["net"]
        except RequestError as error:
            return replace(visit, why=str(error), missing=True)
        except ProofError as error:
            return replace(visit, why=str(error))
        visit = replace(visit, ran=True, latency=found.latency, kernels=found.kernels)
        scores, expected = found.scores, net_scores(net, self.images[0])
        assert scores is not None
        if scores.shape != expected.shape:
            return replace(visit, why=f"its scores are {list(scores.shape)}, the net's {list(expected.shape)}")
        return replace(visit, error=parity(scores, expected, precision).max_relative_error)

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
                seen = measure(self.place, sides, COMPARING)
            except (ConversionError, ProofError):
                continue  # a trial that cannot be made says nothing of the network
            before, after = seen["net"].latency, seen["swapped"].latency
            assert before is not None and after is not None
            yield Tried(swap, runtime, before.median_ms, after.median_ms)
        if steps:
            tell(Event("try", len(steps), len(steps)))

    def converted(self, net: Net, runtime: str, precision: Precision, name: str) -> Artefact:
        """Return the artefact of a net, made once for each name."""
        key = (runtime, precision, name)
        if key not in self.made:
            calibration, folder = self.images[1] if precision == "int8" else None, self.folder / "-".join(key)
            self.made[key] = self.workshop.convert(net, runtime, precision, folder, images=calibration)
        return self.made[key]


def _images(net: Net, data: Dataset | None) -> tuple[Tensor, Tensor]:
    """Images to compare on, and to calibrate on."""
    if data is not None:
        images = whole(data, "calibration")[0]
        return images[:IMAGES], images[:CALIBRATION]
    drawn = torch.randn(IMAGES + CALIBRATION, *net.input.shape[1:], generator=torch.Generator().manual_seed(0))
    return drawn[:IMAGES], drawn[IMAGES:]
