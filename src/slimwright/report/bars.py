"""Horizontal bars, original against result: a wide pale bar behind a narrow one."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import altair as alt

from slimwright.measure import Timing
from slimwright.report.theme import Theme
from slimwright.units import milliseconds

SIDES = ("original", "result")
AXES = {  # title, and the format of its labels: SI prefixes are powers of ten
    "macs": ("MACs for one image", "format(datum.value, '~s')"),
    "weight_bytes": ("bytes of weights", "format(datum.value, '~s') + 'B'"),
    "kernels": ("ms per run", "format(datum.value, '~r')"),
}
TAIL = "length(datum.label) > 24 ? '…' + slice(datum.label, -23) : datum.label"  # the end of a name tells it apart


@dataclass(frozen=True)
class Bar:
    """One bar pair."""

    name: str
    before: float
    after: float


def before_after(
    rows: Sequence[Bar],
    theme: Theme,
    *,
    axis: tuple[str, str],
    in_words: Callable[[float], str],
) -> alt.LayerChart:
    """Return one row for each name, in the order given, with its value before and after."""
    title, labels = axis
    names = list(_distinct(row.name for row in rows))
    values = [
        {"name": name, "side": side, "value": value, "text": in_words(value)}
        for name, row in zip(names, rows, strict=True)
        for side, value in (("original", row.before), ("result", row.after))
    ]
    base = alt.Chart(alt.InlineData(values=values), height=alt.Step(20)).encode(
        x=alt.X("value:Q", stack=None, title=title, axis=alt.Axis(labelExpr=labels, tickCount=5)),
        y=alt.Y("name:N", title=None, scale=alt.Scale(domain=names), axis=_names()),
        color=side_color(theme),
        tooltip=[
            alt.Tooltip("name:N", title="name"),
            alt.Tooltip("side:N", title="side"),
            alt.Tooltip("text:N", title=title),
        ],
    )
    wide, narrow = (
        base.mark_bar(size=size).transform_filter(alt.FieldEqualPredicate(field="side", equal=side))
        for side, size in zip(SIDES, (14, 6), strict=True)
    )
    return alt.LayerChart(layer=[wide, narrow])


def latency(before: Timing, after: Timing, theme: Theme) -> alt.LayerChart:
    """Return the medians of both sides as bars, with lines from p10 to p90."""
    values = [
        {"name": f"{side}  {milliseconds(timing.median_ms)}", "side": side, **timing.model_dump()}
        for side, timing in zip(SIDES, (before, after), strict=True)
    ]
    y = alt.Y("name:N", title=None, sort=None, axis=_names())
    tooltip = [
        alt.Tooltip("side:N", title="side"),
        *(
            alt.Tooltip(f"{name}:Q", title=name.replace("_", " "), format=".3")
            for name in ("p10_ms", "median_ms", "p90_ms")
        ),
        alt.Tooltip("runs:Q", title="runs"),
    ]
    base = alt.Chart(alt.InlineData(values=values), height=alt.Step(44))
    x = alt.X("median_ms:Q", title="ms for one image", axis=alt.Axis(tickCount=5))
    medians = base.mark_bar(size=22).encode(x=x, y=y, color=side_color(theme).legend(None), tooltip=tooltip)
    spread = base.mark_rule(strokeWidth=2, color=theme.ink).encode(x="p10_ms:Q", x2="p90_ms:Q", y=y, tooltip=tooltip)
    ends = [
        base.mark_tick(thickness=2, size=12, color=theme.ink).encode(x=f"{end}:Q", y=y, tooltip=tooltip)
        for end in ("p10_ms", "p90_ms")
    ]
    return alt.LayerChart(layer=[medians, spread, *ends])


def side_color(theme: Theme) -> alt.Color:
    """Return the colours of original and result."""
    return alt.Color("side:N", scale=alt.Scale(domain=SIDES, range=[theme.original, theme.result]))


def _distinct(names: Iterable[str]) -> Iterator[str]:
    """A layer that runs twice has two rows: "head", "head (2)"."""
    met: Counter[str] = Counter()
    for name in names:
        met[name] += 1
        yield name if met[name] == 1 else f"{name} ({met[name]})"


def _names() -> alt.Axis:
    return alt.Axis(labelExpr=TAIL, labelLimit=180, ticks=False, domain=False)
