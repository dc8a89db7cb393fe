"""The charts of a report, as Vega-Lite drawings of what the manifest says."""

from collections.abc import Callable
from dataclasses import dataclass

import altair as alt

from slimwright.measure import CandidateRecord, Manifest
from slimwright.report import bars, points, timeline
from slimwright.report.theme import Theme
from slimwright.tasks import Metric
from slimwright.units import counted, faster, megabytes, milliseconds


@dataclass(frozen=True)
class Chart:
    """A chart: what it is called, what it shows, what it tells people who cannot see it, and how it is drawn."""

    name: str
    title: str
    note: str
    spoken: str
    draw: Callable[[Theme], alt.LayerChart]


def charts(manifest: Manifest) -> list[Chart]:
    """Return every chart, in the order of the page."""
    return [
        _tradeoff(manifest),
        _latency(manifest),
        _by_layer(manifest, "macs"),
        _by_layer(manifest, "weight_bytes"),
        _memory(manifest),
        _kernels(manifest),
    ]


def _tradeoff(manifest: Manifest) -> Chart:
    metric = manifest.task.metric.metric
    said = "; ".join(_spoken(candidate, metric) for candidate in manifest.candidates)
    limit = manifest.limits.get("latency_ms")
    return Chart(
        "tradeoff",
        f"{metric.title} against latency",
        f"Every candidate that was built and run. Latency is measured; {metric.name} is measured on the validation "
        f"part, which decides between candidates. The {metric.name} on the test part is in the tiles above.",
        f"Validation {metric.name} against measured latency. {said}."
        + (f" The budget allows {milliseconds(limit)}." if limit is not None else ""),
        lambda theme: points.tradeoff(manifest.candidates, metric, limit, theme),
    )


def _spoken(candidate: CandidateRecord, metric: Metric) -> str:
    chosen = ", chosen" if candidate.chosen else ""
    score = metric.shown(candidate.validation_score)
    return f"{candidate.name}{chosen}: {milliseconds(candidate.latency_ms)}, {score}"


def _latency(manifest: Manifest) -> Chart:
    before, after = manifest.original.latency, manifest.result.latency
    return Chart(
        "latency",
        "Latency",
        f"Measured on {manifest.runtime}, one image, one thread, the two models in turn. Bars are the median of "
        f"{after.runs} runs, thin lines reach from the 10th to the 90th percentile.",
        f"Median latency: original {milliseconds(before.median_ms)}, result {milliseconds(after.median_ms)}. "
        f"{faster(manifest.summary.latency_ratio)}.",
        lambda theme: bars.latency(before, after, theme),
    )


def _by_layer(manifest: Manifest, cost: str) -> Chart:
    title, note, in_words = {
        "macs": ("Multiply-accumulates by layer", "Counted exactly, for one image.", counted),
        "weight_bytes": ("Weights by layer", "Bytes of the weights as they are stored, counted exactly.", megabytes),
    }[cost]
    rows = [
        bars.Bar(layer.name, getattr(layer, f"{cost}_before"), getattr(layer, f"{cost}_after"))
        for layer in manifest.layers
    ]
    before, after = sum(row.before for row in rows), sum(row.after for row in rows)
    return Chart(
        cost.replace("_", "-"),
        title,
        f"{note} Layers with weights, in execution order.",
        f"{title}, in all: original {in_words(before)}, result {in_words(after)}. Each is in the table of layers.",
        lambda theme: bars.before_after(rows, theme, axis=bars.AXES[cost], in_words=in_words),
    )


def _memory(manifest: Manifest) -> Chart:
    before, after = manifest.original.peak_activation_bytes, manifest.result.peak_activation_bytes
    return Chart(
        "memory",
        "Activation memory over the graph",
        "Bytes that are live while each node runs, for one image in FP32, planned exactly from tensor lifetimes. "
        "A runtime may take more.",
        f"Live activation bytes node by node. Peak: original {megabytes(before)}, result {megabytes(after)}.",
        lambda theme: timeline.memory(manifest.memory.original, manifest.memory.result, theme),
    )


def _kernels(manifest: Manifest) -> Chart:
    before, after = manifest.original.kernel_ms, manifest.result.kernel_ms
    kinds = sorted({*before, *after}, key=lambda kind: (-max(before.get(kind, 0), after.get(kind, 0)), kind))
    rows = [bars.Bar(kind, before.get(kind, 0.0), after.get(kind, 0.0)) for kind in kinds]
    said = "; ".join(f"{row.name}: {milliseconds(row.before)}, then {milliseconds(row.after)}" for row in rows)
    return Chart(
        "kernels",
        "Time by kind of kernel",
        "Measured by the runtime's own profiler, mean per run. Profiling takes time itself, so the sum is not "
        "the latency above.",
        f"Mean time per run by kind of kernel, original and result. {said}.",
        lambda theme: bars.before_after(rows, theme, axis=bars.AXES["kernels"], in_words=milliseconds),
    )
