"""Candidates as points: the metric on the validation part against measured latency, with the limit as a line."""

from collections.abc import Iterator, Sequence
from typing import Any, Literal

import altair as alt

from slimwright.measure import CandidateRecord
from slimwright.report.theme import Theme
from slimwright.tasks import Metric
from slimwright.units import megabytes, milliseconds

ORIGINAL = "original"  # the name of the candidate that nothing was done to
ROLES = {ORIGINAL: "circle", "tried": "triangle-up", "chosen": "diamond"}
NEAR_ACROSS, NEAR_UP = 0.3, 0.15  # of the chart: points whose names would lie on one another
TOOLTIP = {
    "name": "candidate",
    "latency": "latency, measured",
    "score": "metric on the validation part, measured",
    "size": "file size",
}


def role_of(candidate: CandidateRecord) -> str:
    """Say which of ROLES a candidate has."""
    if candidate.chosen:
        return "chosen"
    return ORIGINAL if candidate.name == ORIGINAL else "tried"


def tradeoff(
    candidates: Sequence[CandidateRecord], metric: Metric, limit_ms: float | None, theme: Theme
) -> alt.LayerChart:
    """Return one point for each candidate; `limit_ms` adds the line of the budget."""
    rows = [_row(candidate, metric) for candidate in candidates]
    x = alt.X("latency_ms:Q", title="measured latency, ms", axis=alt.Axis(tickCount=6), scale=alt.Scale(zero=True))
    y = alt.Y(
        "validation_score:Q",
        title=", ".join(filter(None, (f"{metric.name} on the validation part", metric.unit))),
        axis=alt.Axis(format=".4~", tickCount=5, domain=False),
        scale=alt.Scale(zero=False, padding=24, reverse=not metric.higher_is_better),
    )
    colors = alt.Scale(domain=list(ROLES), range=[theme.original, theme.tried, theme.result])
    shapes = alt.Scale(domain=list(ROLES), range=list(ROLES.values()))
    marks = (
        alt.Chart(alt.InlineData(values=rows))
        .mark_point(filled=True, size=150, opacity=1)
        .encode(
            x=x,
            y=y,
            color=alt.Color("role:N", scale=colors),
            shape=alt.Shape("role:N", scale=shapes),
            tooltip=[alt.Tooltip(f"{name}:N", title=title) for name, title in TOOLTIP.items()],
        )
    )
    layers = [*_limit(limit_ms, rows, theme), marks, *_labels(rows, limit_ms, x, y)]
    return alt.LayerChart(layer=layers, height=320)


def _row(candidate: CandidateRecord, metric: Metric) -> dict[str, Any]:
    return {
        "name": candidate.name,
        "role": role_of(candidate),
        "latency_ms": candidate.latency_ms,
        "validation_score": candidate.validation_score,
        "latency": milliseconds(candidate.latency_ms),
        "score": metric.shown(candidate.validation_score),
        "size": megabytes(candidate.size_bytes),
    }


def _labels(rows: Sequence[dict[str, Any]], limit_ms: float | None, x: alt.X, y: alt.Y) -> Iterator[alt.Chart]:
    """Names on the side that has room and no line; those of neighbours below and above, line by line."""
    last = max((row["latency_ms"] for row in rows), default=0.0)
    heights = [row["validation_score"] for row in rows]
    span = max(heights, default=0.0) - min(heights, default=0.0)
    named: list[tuple[str, dict[str, Any]]] = []
    for row in sorted(rows, key=lambda row: float(row["latency_ms"])):
        within = limit_ms is not None and last / 4 < row["latency_ms"] <= limit_ms
        side: Literal["left", "right"] = "right" if within or row["latency_ms"] > last / 2 else "left"
        neighbours = [
            other
            for beside, other in named
            if beside == side
            and abs(other["latency_ms"] - row["latency_ms"]) < NEAR_ACROSS * last
            and abs(other["validation_score"] - row["validation_score"]) <= NEAR_UP * span
        ]
        line, above = divmod(len(neighbours), 2)
        named.append((side, row))
        yield (
            alt.Chart(alt.InlineData(values=[row]))
            .mark_text(align=side, dx=-6 if side == "right" else 6, dy=(-14 - 14 * line) if above else 16 + 14 * line)
            .encode(x=x, y=y, text="name:N")
        )


def _limit(limit_ms: float | None, rows: Sequence[dict[str, Any]], theme: Theme) -> Iterator[alt.Chart]:
    if limit_ms is None:
        return
    right = limit_ms > max((row["latency_ms"] for row in rows), default=0.0) / 2
    line = alt.Chart(alt.InlineData(values=[{"limit": limit_ms, "text": f"limit {milliseconds(limit_ms)}"}]))
    yield line.mark_rule(color=theme.limit, strokeDash=[6, 4], strokeWidth=1.5).encode(x="limit:Q")
    yield line.mark_text(
        color=theme.limit, align="right" if right else "left", dx=-6 if right else 6, baseline="top"
    ).encode(x="limit:Q", y=alt.value(2), text="text:N")
