"""What a network costs, layer by layer, and how several compare: exact counts, and what was measured on the runtime.

Counts are those of the net for one image. What is measured is a file: the net exported with its batch norms folded, or
the model of a bundle as it is. Latencies are taken in turn, one image, one thread.
"""

import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from torch import Tensor

from slimwright import targets
from slimwright.cost import Cost, LayerCost, count, count_layers
from slimwright.coupling import couple
from slimwright.data import Batch, Dataset, whole
from slimwright.errors import ConversionError, ModelError, ProofError
from slimwright.graph import Net, plan_memory
from slimwright.measure.proof import net_scores, share_right
from slimwright.progress import Event, Tell, silent
from slimwright.runner.timing import Latency
from slimwright.runtimes import Artefact, Workshop
from slimwright.runtimes.layers import is_tensor_kernel
from slimwright.targets import Effort, Local
from slimwright.techniques.fold import fold_batch_norm

RUNTIME = "onnxruntime"
RUNS, SECONDS = 30, 2.0  # of each model at least, and of all together


@dataclass(frozen=True)
class Subject:
    """A network to inspect. `artefact` is its model file, where there is one that is not to be made from the net."""

    name: str
    net: Net
    trained: bool = True
    artefact: Artefact | None = None


@dataclass(frozen=True)
class Row:
    """One layer, or several of one module. `path` is where it sits in the model, `module` where it belongs.

    `live_bytes` are the activations in memory while it runs. `cut` says whether its output channels can be removed; it
    is None for a layer that makes none.
    """

    path: str
    module: str
    cost: LayerCost
    live_bytes: int
    cut: bool | None
    layers: int = 1


@dataclass(frozen=True)
class Measured:
    """What a model file did on the runtime; None and a reason in `missing` for what could not be measured."""

    size_bytes: int | None = None
    latency: Latency | None = None
    kernel_ms: Mapping[str, float] = field(default_factory=dict)  # in a typical run, by kind of kernel
    accuracy: float | None = None  # 0..1 on the test part
    missing: Mapping[str, str] = field(default_factory=dict)

    @property
    def non_tensor_time(self) -> float | None:
        """Share of the kernels' time outside convolutions and matrix products; what they are fused with is theirs."""
        total = sum(self.kernel_ms.values())
        other = sum(ms for kind, ms in self.kernel_ms.items() if not is_tensor_kernel(kind))
        return other / total if total else None


@dataclass(frozen=True)
class Inspection:
    """Everything that is said of one network."""

    name: str
    image_shape: tuple[int, ...]
    output_shape: tuple[int, ...]
    total: Cost
    arena_bytes: int
    rows: tuple[Row, ...]
    groups: tuple[tuple[str, int, tuple[str, ...]], ...]  # name, channels, the layers that share them
    fixed: Mapping[str, str]  # layers whose channels must stay, and why
    measured: Measured = Measured()

    @property
    def kinds(self) -> Counter[str]:
        """Number of tensor and of non-tensor layers."""
        return Counter(row.cost.kind for row in self.rows if row.cost.kind != "none")


def inspect(subject: Subject, measured: Measured | None = None) -> Inspection:
    """Return the exact counts of a network, with what was measured of it."""
    net = subject.net
    memory, coupling, paths = plan_memory(net), couple(net), net.paths
    cuttable = {cut.node for group in coupling.groups for cut in group.cuts if cut.role != "in"}
    weighted = {node.name for node in net.weighted()}
    modules = _modules(net)
    return Inspection(
        name=subject.name,
        image_shape=net.input.shape[1:],
        output_shape=net[net.outputs[0]].shape[1:],
        total=count(net),
        arena_bytes=memory.arena_bytes,
        rows=tuple(
            Row(
                paths[cost.name],
                modules[cost.name],
                cost,
                live,
                cost.name in cuttable if cost.name in weighted else None,
            )
            for cost, live in zip(count_layers(net), memory.live_bytes, strict=True)
        ),
        groups=tuple(
            (paths[g.name.partition("[")[0]], g.size, tuple(paths[c.node] for c in g.cuts)) for g in coupling.groups
        ),
        fixed={paths[node]: why for node, why in coupling.frozen.items()},
        measured=measured or Measured(),
    )


def measure(subjects: Sequence[Subject], data: Dataset | None = None, *, tell: Tell = silent) -> list[Measured]:
    """Run every network on the runtime, one after the other in turn; one that cannot run is told of, not raised."""
    place, test = Local(), whole(data, "test") if data else None
    artefacts: dict[str, Artefact] = {}
    found: list[Measured] = []
    with tempfile.TemporaryDirectory() as scratch, Workshop() as workshop:
        for number, subject in enumerate(subjects):
            tell(Event("export", number, len(subjects), subject.name))
            try:
                folder = Path(scratch) / str(number)
                artefact = subject.artefact or workshop.convert(fold_batch_norm(subject.net), RUNTIME, "fp32", folder)
                images = test[0] if test and subject.trained else None
                alone = targets.measure(place, {"": artefact}, Effort(profile_runs=RUNS), images=images)[""]
            except (ConversionError, ModelError, ProofError) as error:
                found.append(
                    _scored(Measured(missing=dict.fromkeys(("size_bytes", "latency"), str(error))), subject, test)
                )
                continue
            artefacts[str(number)] = artefact
            result = Measured(artefact.size_bytes, kernel_ms=alone.kernel_ms)
            found.append(_scored(result, subject, test, alone.scores))
        tell(Event("export", len(subjects), len(subjects)))
        tell(Event("measure", 0, 1, f"{len(artefacts)} in turn"))
        times = targets.measure(place, artefacts, Effort(runs=RUNS, least_s=SECONDS)) if artefacts else {}
        tell(Event("measure", 1, 1))
    return [replace(one, latency=times[str(k)].latency) if str(k) in times else one for k, one in enumerate(found)]


def score(subjects: Sequence[Subject], data: Dataset | None) -> list[Measured]:
    """Return the accuracy of every network alone, computed by its net; nothing without data."""
    test = whole(data, "test") if data else None
    return [_scored(Measured(), subject, test) for subject in subjects]


def grouped(rows: Sequence[Row], depth: int) -> list[Row]:
    """Return one row for each module that is `depth` names deep, in the order in which they first run.

    A layer without a module of its own goes with the one before it. Counts add up, memory is the most of any; the
    shape is that of the last layer's output.
    """
    together: dict[str, list[Row]] = {}
    for row in rows:
        together.setdefault(".".join(row.module.split(".")[:depth]), []).append(row)
    return [_sum(name, members) for name, members in together.items()]


def as_data(found: Sequence[Inspection], depth: int | None = None) -> dict[str, object]:
    """Return one inspection as JSON-ready data, or several under "models"; layers by module with a `depth`."""
    if len(found) > 1:
        return {"models": [as_data([each], depth) for each in found]}
    (one,) = found
    measured = one.measured
    totals = {k: v for k, v in asdict(one.total).items() if v is not None}
    return {
        "model": one.name,
        "image": list(one.image_shape),
        "result": list(one.output_shape),
        "total": totals | {"intensity": one.total.intensity, "arena_bytes": one.arena_bytes},
        "kinds": dict(one.kinds),
        "measured": asdict(measured) | {"non_tensor_time": measured.non_tensor_time},
        "layers": [_layer_data(row) for row in (grouped(one.rows, depth) if depth else one.rows)],
        "channel_groups": [{"name": name, "channels": n, "layers": list(layers)} for name, n, layers in one.groups],
        "fixed_channels": dict(one.fixed),
    }


def _layer_data(row: Row) -> dict[str, object]:
    more = {"path": row.path, "live_bytes": row.live_bytes, "cut": row.cut}
    return asdict(row.cost) | {"intensity": row.cost.intensity, "kind": row.cost.kind} | more


def _sum(name: str, rows: Sequence[Row]) -> Row:
    costs = [row.cost for row in rows]
    work = [cost for cost in costs if cost.kind != "none"]
    first = costs[0]
    total = replace(
        costs[-1],
        name=name,
        op=first.op if len(costs) == 1 else f"{len(work)} layers",
        **{
            key: sum(getattr(cost, key) for cost in costs)
            for key in ("macs", "params", "weight_bytes", "output_bytes", "elementwise_ops", "moved_bytes")
        },
    )
    cuts = [row.cut for row in rows if row.cut is not None]
    return Row(name, name, total, max(row.live_bytes for row in rows), any(cuts) if cuts else None, len(work))


def _modules(net: Net) -> dict[str, str]:
    """The module of each node: its own path if it owns tensors, else that of the last layer before it that does."""
    modules: dict[str, str] = {}
    latest = net.input.name
    for node in net.nodes:
        latest = net.paths[node.name] if node.tensors else latest
        modules[node.name] = latest
    return modules


def _scored(found: Measured, subject: Subject, test: Batch | None, scores: Tensor | None = None) -> Measured:
    """Add the accuracy on the test part: of the runtime's scores if there are any, else of the net's."""
    if test is None:
        return found
    if not subject.trained:
        why = "its weights are not trained: give --weights, or name a net that slimwright train saved"
        return replace(found, missing={**found.missing, "accuracy": why})
    images, labels = test
    return replace(found, accuracy=share_right(net_scores(subject.net, images) if scores is None else scores, labels))
