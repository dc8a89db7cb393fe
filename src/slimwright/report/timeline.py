"""Live activation memory, node by node, as steps."""

from typing import Any

import altair as alt

from slimwright.measure import Memory
from slimwright.report.bars import AXES, side_color
from slimwright.report.theme import Theme
from slimwright.units import megabytes


def memory(original: Memory, result: Memory, theme: Theme) -> alt.LayerChart:
    """Return live bytes of both sides, each in the order in which its nodes run."""
    rows = [*_rows("original", original), *_rows("result", result)]
    base = alt.Chart(alt.InlineData(values=rows), height=260).encode(
        x=alt.X(
            "step:Q",
            title="node, in execution order",
            axis=alt.Axis(grid=False, tickMinStep=1, tickCount=8),
            scale=alt.Scale(nice=False),
        ),
        y=alt.Y(
            "bytes:Q",
            stack=None,
            title="live activation bytes",
            axis=alt.Axis(labelExpr=AXES["weight_bytes"][1], tickCount=5, domain=False),
        ),
        color=side_color(theme),
    )
    tooltip = [alt.Tooltip(f"{name}:N", title=name) for name in ("node", "side", "live")]
    return alt.LayerChart(
        layer=[
            base.mark_area(interpolate="step-after", opacity=0.28),
            base.mark_line(interpolate="step-after", strokeWidth=2),
            base.mark_point(size=160, opacity=0, filled=True).encode(tooltip=tooltip),
        ]
    )


def _rows(side: str, found: Memory) -> list[dict[str, Any]]:
    rows = [
        {"step": step, "node": node, "side": side, "bytes": live, "live": megabytes(live)}
        for step, (node, live) in enumerate(zip(found.nodes, found.live_bytes, strict=True))
    ]
    return [*rows, {**rows[-1], "step": len(rows)}] if rows else []  # the last step has a width too
