"""What a network costs, layer by layer, and how several compare: exact counts, and what was measured on the runtime.

Counts are those of the net for one image. What is measured is a file: the net exported with its batch norms folded, or
the model of a bundle as it is. Latencies are taken in turn, one image, one thread.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace

from slimwright.cost import Cost, LayerCost, count, count_layers
from slimwright.coupling import couple
from slimwright.graph import Net, plan_memory
from slimwright.runner.timing import Latency
from slimwright.runtimes.layers import is_tensor_kernel
from slimwright.tasks import Metric


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
    score: float | None = None  # on the test part, in the metric's unit
    metric: Metric | None = None  # of the score
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
    input_shapes: tuple[tuple[int, ...], ...]  # without the batch
    output_shapes: tuple[tuple[int, ...], ...]
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


def inspection_of(net: Net, name: str, measured: Measured | None = None) -> Inspection:
    """Return the exact counts of a network, with what was measured of it."""
    memory, coupling, paths = plan_memory(net), couple(net), net.paths
    cuttable = {cut.node for group in coupling.groups for cut in group.cuts if cut.role != "in"}
    weighted = {node.name for node in net.weighted()}
    modules = _modules(net)
    return Inspection(
        name=name,
        input_shapes=tuple(node.shape[1:] for node in net.inputs),
        output_shapes=tuple(net[output].shape[1:] for output in net.outputs),
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
        "inputs": [list(shape) for shape in one.input_shapes],
        "outputs": [list(shape) for shape in one.output_shapes],
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
    latest = net.nodes[0].name
    for node in net.nodes:
        latest = net.paths[node.name] if node.tensors else latest
        modules[node.name] = latest
    return modules
