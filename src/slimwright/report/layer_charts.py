"""Charts of an inspection: one strip for each cost, over the layers in the order in which they run."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import altair as alt

from slimwright.measure import Inspection, Row, grouped
from slimwright.report.charts import Chart
from slimwright.report.figures import op_name, size
from slimwright.report.theme import Theme
from slimwright.runtimes.layers import is_tensor_kernel
from slimwright.units import counted, megabytes, milliseconds

KINDS = ("tensor", "non-tensor")
TAIL = "length(datum.label) > 36 ? '…' + slice(datum.label, -35) : datum.label"  # the end of a name tells it apart
LARGEST = 12  # layers that are named beside their bars
BYTES = "format(datum.value, '~s') + 'B'"
NUMBER = "format(datum.value, '~s')"
STRIPS = {  # cost -> title, note, how a number is said, labels of the axis
    "macs": ("MACs by layer", "Counted exactly, for one image.", counted, NUMBER),
    "params": ("Parameters by layer", "Numbers that are trained; batch norms' statistics are not.", counted, NUMBER),
    "elementwise_ops": ("Elementwise work by layer", "Operations that are no MACs.", counted, NUMBER),
    "moved_bytes": (
        "Bytes moved by layer",
        "Values and weights, read and written once in each layer.",
        megabytes,
        BYTES,
    ),
}


def charts(found: Inspection, depth: int | None, prefix: str) -> list[Chart]:
    """Return the charts of one network, in the order of the page; their names begin with `prefix`."""
    rows = grouped(found.rows, depth) if depth else found.rows
    drawn = [_memory(found, prefix), *(_strip(found, rows, cost, prefix) for cost in STRIPS), _largest(rows, prefix)]
    return [*drawn, *([_kernels(found, prefix)] if found.measured.kernel_ms else [])]


def latencies(found: Sequence[Inspection]) -> Chart | None:
    """Return the medians of several networks as bars, with lines from p10 to p90; None if nothing was measured."""
    rows = [
        {
            "name": name,
            "text": milliseconds(latency.median_ms),
            "p10": latency.p10_ms,
            "median": latency.median_ms,
            "p90": latency.p90_ms,
        }
        for name, each in zip(_distinct(each.name for each in found), found, strict=True)
        if (latency := each.measured.latency)
    ]
    said = "; ".join(f"{row['name']}: {row['text']}" for row in rows)
    note = "Measured in ONNX Runtime, in turn: bars are medians, thin lines reach from the 10th to the 90th percentile."
    chart = Chart("latency", "Latency", note, f"Median latency. {said}.", lambda theme: _latencies(rows, theme))
    return chart if rows else None


def _latencies(rows: Sequence[dict[str, Any]], theme: Theme) -> alt.LayerChart:
    y = alt.Y("name:N", title=None, sort=None, axis=_names())
    tooltip = [alt.Tooltip("name:N", title="network"), alt.Tooltip("text:N", title="median")]
    base = alt.Chart(alt.InlineData(values=rows), height=alt.Step(36)).encode(y=y, tooltip=tooltip)
    x = alt.X("median:Q", title="ms for one image", axis=alt.Axis(tickCount=5))
    bars = base.mark_bar(size=18, color=theme.result).encode(x=x)
    return alt.LayerChart(layer=[bars, base.mark_rule(strokeWidth=2, color=theme.ink).encode(x="p10:Q", x2="p90:Q")])


def _strip(found: Inspection, rows: Sequence[Row], cost: str, prefix: str) -> Chart:
    title, note, in_words, labels = STRIPS[cost]
    values = [
        {
            "step": step,
            "next": step + 0.88,
            "zero": 0,
            "layer": row.path,
            "op": op_name(row),
            "output": size(row.cost.shape[1:]),
            "kind": row.cost.kind,
            "value": getattr(row.cost, cost),
            "text": in_words(getattr(row.cost, cost)),
        }
        for step, row in enumerate(rows)
        if getattr(row.cost, cost)
    ]
    total = in_words(getattr(found.total, cost) or 0)
    spoken = f"{title}, in execution order; in all {total}. Each is in the table of layers."
    return Chart(
        f"{prefix}{cost.replace('_', '-')}",
        f"{title}: {total}",
        note,
        spoken,
        lambda theme: _bars(values, len(rows), labels, cost == next(iter(STRIPS)), theme),
    )


def _bars(values: Sequence[dict[str, Any]], steps: int, labels: str, legend: bool, theme: Theme) -> alt.LayerChart:
    tooltip = [alt.Tooltip(f"{name}:N", title=name) for name in ("layer", "op", "output", "text")]
    bars = (
        alt.Chart(alt.InlineData(values=values), height=110)
        .mark_bar()
        .encode(
            x=_over_layers(steps).title(None),
            x2="next:Q",
            y=alt.Y("value:Q", title=None, axis=_costs(labels, 3)),
            y2="zero:Q",
            color=_kind(theme) if legend else _kind(theme).legend(None),
            tooltip=tooltip,
        )
    )
    return alt.LayerChart(layer=[bars])


def _memory(found: Inspection, prefix: str) -> Chart:
    lives = [row.live_bytes for row in found.rows]
    fullest = lives.index(max(lives))
    where, peak = found.rows[fullest].path, megabytes(max(lives))
    values = [
        {"step": step, "layer": row.path, "bytes": row.live_bytes, "text": megabytes(row.live_bytes)}
        for step, row in enumerate(found.rows)
    ]
    values.append({**values[-1], "step": len(values)})  # the last step has a width too
    return Chart(
        f"{prefix}memory",
        f"Activation memory over time: at most {peak}, at {where}",
        "Bytes that are live while each node runs, planned exactly from lifetimes. A runtime may take more.",
        f"Live activation bytes node by node. The peak is {peak}, at {where}.",
        lambda theme: _timeline(values, fullest, theme),
    )


def _timeline(values: Sequence[dict[str, Any]], fullest: int, theme: Theme) -> alt.LayerChart:
    axis = _costs(BYTES, 5)
    base = alt.Chart(alt.InlineData(values=values), height=200).encode(
        x=_over_layers(len(values) - 1).title("node, in execution order"), y=alt.Y("bytes:Q", title=None, axis=axis)
    )
    tooltip = [alt.Tooltip("layer:N", title="layer"), alt.Tooltip("text:N", title="live")]
    peak = alt.Chart(alt.InlineData(values=[values[fullest]])).encode(x="step:Q", y="bytes:Q")
    return alt.LayerChart(
        layer=[
            base.mark_area(interpolate="step-after", opacity=0.28, color=theme.result),
            base.mark_line(interpolate="step-after", strokeWidth=1.5, color=theme.result),
            peak.mark_point(filled=True, size=60, color=theme.limit, opacity=1),
            base.mark_point(size=160, opacity=0, filled=True).encode(tooltip=tooltip),
        ]
    )


def _largest(rows: Sequence[Row], prefix: str) -> Chart:
    """The layers with the most MACs, by name."""
    most = sorted((row for row in rows if row.cost.macs), key=lambda row: -row.cost.macs)[:LARGEST]
    total = sum(row.cost.macs for row in rows)
    values = [
        {
            "name": name,
            "op": op_name(row),
            "value": row.cost.macs,
            "text": f"{counted(row.cost.macs)}, {row.cost.macs / total:.1%}",
        }
        for name, row in zip(_distinct(row.path for row in most), most, strict=True)
    ]
    said = "; ".join(f"{row['name']}: {row['text']}" for row in values)
    return Chart(
        f"{prefix}largest",
        "The layers with the most MACs",
        "With their share of the whole. MACs do not tell the time: the table has operations per byte moved as well.",
        f"Layers with the most MACs. {said}.",
        lambda theme: _named(values, theme, alt.value(theme.result)),
    )


def _kernels(found: Inspection, prefix: str) -> Chart:
    taken = sorted(found.measured.kernel_ms.items(), key=lambda item: -item[1])
    values = [
        {
            "name": kind,
            "value": ms,
            "text": milliseconds(ms),
            "kind": KINDS[0] if is_tensor_kernel(kind) else KINDS[1],
        }
        for kind, ms in taken
    ]
    said = "; ".join(f"{row['name']}: {row['text']}" for row in values)
    return Chart(
        f"{prefix}kernels",
        "Time by kind of kernel",
        "Measured by ONNX Runtime's profiler: each kernel's median over the runs. What is fused into a tensor layer, "
        "as batch norms and most activations are, is in its time.",
        f"Time by kind of kernel. {said}.",
        lambda theme: _named(values, theme, _kind(theme)),
    )


def _named(values: Sequence[dict[str, Any]], theme: Theme, color: Any) -> alt.LayerChart:
    """Horizontal bars, each with its number behind it."""
    base = alt.Chart(alt.InlineData(values=values), height=alt.Step(22)).encode(
        x=alt.X("value:Q", title=None, axis=None, scale=alt.Scale(padding=0, domainMax={"expr": _room(values)})),
        y=alt.Y("name:N", title=None, sort=None, axis=_names()),
    )
    text = base.mark_text(align="left", dx=6, color=theme.muted).encode(text="text:N")
    return alt.LayerChart(layer=[base.mark_bar(size=14).encode(color=color), text])


def _distinct(names: Iterable[str]) -> Iterator[str]:
    """A layer that runs twice has two bars: "head", "head (2)"."""
    met: Counter[str] = Counter()
    for name in names:
        met[name] += 1
        yield name if met[name] == 1 else f"{name} ({met[name]})"


def _room(values: Sequence[dict[str, Any]]) -> str:
    """An axis with room for the longest bar's number."""
    return repr(1.2 * max((float(row["value"]) for row in values), default=1.0))


def _over_layers(steps: int) -> alt.X:
    return alt.X(
        "step:Q",
        axis=alt.Axis(grid=False, tickMinStep=1, tickCount=8),
        scale=alt.Scale(nice=False, domain=[0, max(steps, 1)]),
    )


def _costs(labels: str, ticks: int) -> alt.Axis:
    """An axis as wide as its neighbours', so that layers stand over one another."""
    return alt.Axis(labelExpr=labels, tickCount=ticks, domain=False, minExtent=52, maxExtent=52)


def _kind(theme: Theme) -> alt.Color:
    return alt.Color("kind:N", scale=alt.Scale(domain=KINDS, range=[theme.result, theme.original]))


def _names() -> alt.Axis:
    return alt.Axis(labelExpr=TAIL, labelLimit=260, ticks=False, domain=False)
