"""What an inspection says, in words: which layers are shown, the numbers in all, and what could not be measured."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from slimwright.measure import Inspection, Row, grouped
from slimwright.runner.timing import Latency
from slimwright.units import counted, megabytes, milliseconds, significant

NONE = "—"
COMPARED = {  # column of a comparison -> where its numbers come from
    "score": "measured",
    "params": "exact",
    "MACs": "exact",
    "memory": "exact",
    "file": "measured",
    "latency": "measured",
    "p10–p90 ms": "measured",
}


@dataclass(frozen=True)
class Figure:
    """One number of a network: its name, the number as people read it, all its digits, and a remark."""

    name: str
    short: str
    full: str
    remark: str
    source: Literal["exact", "measured"] = "exact"


def shown(found: Inspection, depth: int | None) -> list[Row]:
    """The rows of a table: by module, or every layer but those that do nothing and hold nothing (views, sizes)."""
    if depth:
        return grouped(found.rows, depth)
    return [row for row in found.rows if row.cost.kind != "none" or row.cost.params or row.cost.op == "input"]


def most(rows: Sequence[Row]) -> dict[str, int]:
    """The largest of each cost among the rows: how long its bar may be."""
    costs = ("macs", "params", "elementwise_ops", "moved_bytes")
    return {cost: max((getattr(row.cost, cost) for row in rows), default=0) for cost in costs}


def op_name(row: Row) -> str:
    """The operator without what is particular to ATen: "aten.roll.default" -> "roll"."""
    return row.cost.op.removeprefix("aten.").partition(".")[0]


def size(shape: Sequence[int]) -> str:
    """[3, 224, 224] -> "3x224x224"."""
    return "x".join(map(str, shape)) or "1"


def ends(found: Inspection) -> str:
    """What goes in and what comes out: "image 3x32x32, result 10"."""
    taken, given = (" and ".join(map(size, shapes)) for shapes in (found.input_shapes, found.output_shapes))
    return f"image {taken}, result {given}"


def figures_of(found: Inspection) -> Iterator[Figure]:
    """The figures of a network, in the order in which people ask."""
    total, kinds = found.total, found.kinds
    work, moved, peak = total.elementwise_ops or 0, total.moved_bytes or 0, total.peak_activation_bytes
    share = kinds["non-tensor"] / max(kinds.total(), 1)
    yield Figure("MACs", counted(total.macs), f"{total.macs:,}", "multiply-accumulates for one image")
    weights = f"{megabytes(total.weight_bytes)} of weights and statistics"
    yield Figure("parameters", counted(total.params), f"{total.params:,}", weights)
    yield Figure("peak memory", megabytes(peak), f"{peak:,} B", f"of activations; as an arena {found.arena_bytes:,} B")
    yield Figure("elementwise", counted(work), f"{work:,}", "operations that are no MACs")
    yield Figure("bytes moved", megabytes(moved), f"{moved:,} B", "values and weights, read and written once a layer")
    intensity = f"{total.intensity or 0:.1f}"
    yield Figure("intensity", intensity, intensity, "operations per byte moved, a MAC being two")
    layers = f"{kinds['tensor']} tensor, {kinds['non-tensor']} non-tensor ({share:.0%})"
    yield Figure("layers", str(kinds.total()), str(kinds.total()), layers)
    yield from _measurements(found)


def _measurements(found: Inspection) -> Iterator[Figure]:
    measured = found.measured
    if measured.score is not None and measured.metric is not None:
        shown = measured.metric.shown(measured.score)
        yield Figure(measured.metric.name, shown, shown, "on the test part", "measured")
    if measured.latency is not None:
        median = milliseconds(measured.latency.median_ms)
        remark = f"median of {measured.latency.runs:,} runs; p10 to p90 {spread(measured.latency)}"
        yield Figure("latency", median, median, remark, "measured")
    if measured.size_bytes is not None:
        file = measured.size_bytes
        yield Figure("model file", megabytes(file), f"{file:,} B", "ONNX, as it was run", "measured")
    if measured.non_tensor_time is not None:
        share = f"{measured.non_tensor_time:.1%}"
        remark = "of the kernels' time; what is fused into a tensor layer is its time"
        yield Figure("non-tensor time", share, share, remark, "measured")


def columns(found: Sequence[Inspection]) -> list[str]:
    """The columns of a comparison: only what was asked for."""
    scored = any(each.measured.score is not None or "score" in each.measured.missing for each in found)
    timed = any(each.measured.latency is not None or "latency" in each.measured.missing for each in found)
    left_out = {"score"} - {"score" if scored else ""}
    left_out |= set() if timed else {"file", "latency", "p10–p90 ms"}
    return [name for name in COMPARED if name not in left_out]


def compared(each: Inspection) -> dict[str, str]:
    """What a comparison says of one network, by column."""
    measured, total, latency = each.measured, each.total, each.measured.latency
    return {
        "score": NONE if measured.score is None or measured.metric is None else measured.metric.shown(measured.score),
        "params": counted(total.params),
        "MACs": counted(total.macs),
        "memory": megabytes(total.peak_activation_bytes),
        "file": NONE if measured.size_bytes is None else megabytes(measured.size_bytes),
        "latency": NONE if latency is None else milliseconds(latency.median_ms),
        "p10–p90 ms": NONE if latency is None else f"{significant(latency.p10_ms)}–{significant(latency.p90_ms)}",
    }


def notes(found: Sequence[Inspection]) -> str:
    """How the numbers of a comparison came about."""
    said = ["Counts are exact, for one image; memory is the activations' peak, planned."]
    runs = next((each.measured.latency.runs for each in found if each.measured.latency), 0)
    if runs:
        said.append(f"File and latency are measured in ONNX Runtime: {runs:,} runs in turn, one image, one thread.")
    if "score" in columns(found):
        metric = next((each.measured.metric for each in found if each.measured.metric), None)
        said.append(f"The score is the {metric.name if metric else 'metric'}, measured on the test part.")
    return " ".join(said)


def reasons(found: Sequence[Inspection]) -> list[tuple[str, str]]:
    """Each network for which something could not be measured, and why; a reason is given once."""
    return [(each.name, why) for each in found for why in dict.fromkeys(each.measured.missing.values())]


def fixed(found: Inspection) -> list[tuple[str, str]]:
    """Layers whose channels must stay, and why: one entry for each reason."""
    by_reason: dict[str, list[str]] = {}
    for name, why in found.fixed.items():
        by_reason.setdefault(why, []).append(name)
    return [
        (", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else ""), why)
        for why, names in by_reason.items()
    ]


def spread(latency: Latency) -> str:
    """From the 10th to the 90th percentile."""
    return f"{significant(latency.p10_ms)} to {milliseconds(latency.p90_ms)}"
