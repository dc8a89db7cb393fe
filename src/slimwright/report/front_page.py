"""The page of a front: a table in which planned and measured stand apart, and a chart of each."""

from collections.abc import Iterator, Sequence
from typing import Any

import altair as alt

from slimwright.measure import CandidateRecord, Front
from slimwright.report.charts import Chart
from slimwright.report.points import tradeoff
from slimwright.report.rendering import rendered
from slimwright.report.theme import Theme
from slimwright.units import milliseconds, nats, times


def front_page(found: Front, drawn: Sequence[Chart]) -> str:
    """Return a front as HTML. Texts of the record are escaped."""
    return rendered("front.html", {"m": found, "metric": found.task.metric.metric, "charts": drawn}, drawn)


def front_charts(found: Front) -> Iterator[Chart]:
    """Yield what was measured as a chart, and what was predicted as another."""
    metric = found.task.metric.metric
    measured = [found.original, *_named(found)]
    said = "; ".join(
        f"{one.name}: {milliseconds(one.latency_ms)}, {metric.shown(one.validation_score)}" for one in measured
    )
    yield Chart(
        "measured",
        f"{metric.title} against latency, measured",
        f"Every point was built and run. Latency is measured; {metric.name} is measured on the validation part.",
        f"Validation {metric.name} against measured latency. {said}.",
        lambda theme: tradeoff(measured, metric, None, theme),
    )
    planned = [one for one in measured if one.predicted_damage is not None and one.predicted_latency_ms is not None]
    if planned:
        said = "; ".join(
            f"{one.name}: {milliseconds(one.predicted_latency_ms)}, {nats(one.predicted_damage)} nats"
            for one in planned
        )
        yield Chart(
            "predicted",
            "Damage against latency, predicted",
            "What the plans predicted before anything was built. Damage is the rise of the loss, in nats; it orders "
            "choices, and promises nothing.",
            f"Predicted damage against predicted latency. {said}.",
            lambda theme: _predicted(planned, theme),
        )


def _named(found: Front) -> Iterator[CandidateRecord]:
    """The points, each once, called after the tightest limit that it is for."""
    last = {(point.candidate.name, point.candidate.latency_ms): point for point in found.points}
    for point in last.values():
        yield point.candidate.model_copy(update={"name": f"{times(point.share)} {point.candidate.name}"})


def _predicted(planned: Sequence[CandidateRecord], theme: Theme) -> alt.LayerChart:
    rows: list[dict[str, Any]] = [
        {"name": one.name, "latency_ms": one.predicted_latency_ms, "damage": one.predicted_damage} for one in planned
    ]
    base = alt.Chart(alt.InlineData(values=rows)).encode(
        x=alt.X("latency_ms:Q", title="predicted latency, ms", scale=alt.Scale(zero=True)),
        y=alt.Y("damage:Q", title="predicted damage, nats", axis=alt.Axis(domain=False)),
    )
    marks = base.mark_point(filled=False, size=150, opacity=1, color=theme.tried)
    names = base.mark_text(align="left", dx=9, dy=-9).encode(text="name:N")
    return alt.LayerChart(layer=[marks, names], height=320)
