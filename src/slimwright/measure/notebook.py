"""A bundle as a notebook shows it: a small table of both sides. Every text is escaped."""

from html import escape
from typing import TYPE_CHECKING

from slimwright.terminal import printable
from slimwright.units import change, counted, megabytes, milliseconds, stepped

if TYPE_CHECKING:
    from slimwright.measure.bundle import Manifest


def html_of(manifest: "Manifest") -> str:
    """Return the table as HTML."""
    before, after, metric = manifest.original, manifest.result, manifest.task.metric.metric
    scores = metric.shown(before.score), metric.shown(after.score), stepped(metric, before.score, after.score)
    rows = [(f"{metric.name} (test)", *scores)]
    for name, show, old, new in (
        ("latency, median", milliseconds, before.latency.median_ms, after.latency.median_ms),
        ("model file", megabytes, before.size_bytes, after.size_bytes),
        ("peak activations", megabytes, before.peak_activation_bytes, after.peak_activation_bytes),
        ("peak memory, process", megabytes, before.peak_rss_bytes, after.peak_rss_bytes),
        ("MACs", counted, before.macs, after.macs),
    ):
        rows.append((name, show(old), show(new), change(old, new)))
    summary = manifest.summary
    verdict = "within budget" if summary.within_budget else f"budget missed: {'; '.join(summary.misses)}"
    caption = f"{manifest.model} on {manifest.runtime}, {after.precision.upper()}: {verdict}"
    head = "".join(f"<th>{name}</th>" for name in ("", "original", "result", "change"))
    body = "".join(f"<tr>{''.join(f'<td>{_shown(cell)}</td>' for cell in row)}</tr>" for row in rows)
    return f"<table><caption>{_shown(caption)}</caption><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _shown(text: str) -> str:
    return escape(printable(text))
