"""What the manifest says, as the page groups it: headline, tiles and limits."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from slimwright.measure import Manifest, Summary
from slimwright.tasks import Metric
from slimwright.units import (
    change,
    counted,
    faster,
    lost,
    megabytes,
    millijoules,
    milliseconds,
    smaller,
    stepped,
    true_minus,
    within,
)

LIMITS: dict[str, tuple[str, Callable[[float], str]]] = {
    "latency_ms": ("Latency", milliseconds),
    "size_bytes": ("File size", megabytes),
    "packed_bytes": ("Packed file", megabytes),
    "peak_activation_bytes": ("Peak activation memory", megabytes),
    "macs": ("MACs", counted),
    "energy_mj": ("Energy", millijoules),
}


@dataclass(frozen=True)
class Tile:
    """One cost or gain, before and after. `source` says where the numbers come from: measured or exact."""

    name: str
    label: str
    before: str
    after: str
    change: str
    source: str
    note: str


@dataclass(frozen=True)
class LimitRow:
    """One limit: as the user wrote it, as a number, and what the result came to."""

    name: str
    written: str
    limit: str
    result: str


def headline(summary: Summary, runtime: str, metric: Metric) -> str:
    """Return the result in one sentence: "2.1x faster on onnxruntime, 0.3 points of accuracy lost, ..."."""
    gains = [
        f"{faster(summary.latency_ratio)} on {runtime}",
        lost(metric, summary.drop),
        smaller(summary.size_bytes_original, summary.size_bytes),
    ]
    return f"{', '.join(gains)}: {'within budget' if summary.within_budget else 'the budget was missed'}"


def tiles(manifest: Manifest) -> list[Tile]:
    """Return the seven numbers that people ask for first."""
    before, after, summary, metric = manifest.original, manifest.result, manifest.summary, manifest.task.metric.metric
    empty = manifest.empty_runtime_rss_bytes
    rss = before.peak_rss_bytes - empty, after.peak_rss_bytes - empty
    tested = f"{manifest.data.sizes['test']:,} test images" if "test" in manifest.data.sizes else "the test part"
    spread = f"p10 to p90: {milliseconds(after.latency.p10_ms)} to {milliseconds(after.latency.p90_ms)}"
    arena = (
        f"FP32 activations of one image; as an arena {megabytes(before.arena_bytes)} → {megabytes(after.arena_bytes)}"
    )
    return [
        Tile(
            "score",
            metric.title,
            metric.shown(summary.score_original),
            metric.shown(summary.score),
            stepped(metric, summary.score_original, summary.score),
            "measured",
            f"on {tested}{_interval(summary, metric)}",
        ),
        _tile(
            "latency", "Latency", milliseconds, (summary.latency_ms_original, summary.latency_ms), "measured", spread
        ),
        _tile(
            "size",
            "File size",
            megabytes,
            (summary.size_bytes_original, summary.size_bytes),
            "measured",
            "the model's files"
            if after.packed_bytes is None
            else f"packed for a download {megabytes(after.packed_bytes)}",
        ),
        _tile("macs", "MACs", counted, (before.macs, after.macs), "exact", "multiply-accumulates for one image"),
        _tile("params", "Parameters", counted, (before.params, after.params), "exact", "numbers that were trained"),
        _tile(
            "memory",
            "Planned peak memory",
            megabytes,
            (before.peak_activation_bytes, after.peak_activation_bytes),
            "exact",
            arena,
        ),
        _tile(
            "rss",
            "Process memory",
            megabytes,
            rss,
            "measured",
            f"peak RSS over the {megabytes(empty)} of the runtime alone",
        ),
    ]


def _interval(summary: Summary, metric: Metric) -> str:
    found = summary.interval
    return "" if found is None else f"; {within(metric, found.low, found.high, found.images)}"


def _tile(
    name: str, label: str, show: Callable[[float], str], sides: tuple[float, float], source: str, note: str
) -> Tile:
    return Tile(name, label, show(sides[0]), show(sides[1]), change(*sides), source, note)


def limits(manifest: Manifest) -> Iterator[LimitRow]:
    """Yield every limit that the user set."""
    result = {
        "latency_ms": manifest.summary.latency_ms,
        "size_bytes": manifest.summary.size_bytes,
        "peak_activation_bytes": manifest.result.peak_activation_bytes,
        "macs": manifest.result.macs,
        "energy_mj": manifest.result.energy_mj or 0.0,
        "packed_bytes": manifest.result.packed_bytes or 0,
    }
    for name, limit in manifest.limits.items():
        label, show = LIMITS.get(name, (name, "{:g}".format))
        came_to = show(result[name]) if name in result else "–"
        yield LimitRow(label, manifest.budget.get(name, "–"), show(limit), came_to)
    metric = manifest.task.metric.metric
    most, drop = (true_minus(metric.number(value)) for value in (manifest.max_drop, manifest.summary.drop))
    name = f"{metric.title} {'lost' if metric.higher_is_better else 'added'}, {metric.step}"
    yield LimitRow(name, manifest.budget.get("max_drop", "–"), most, drop)
