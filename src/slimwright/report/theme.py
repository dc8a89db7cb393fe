"""How charts look: once for the page, whose style sheet gives the colours, and once for images on white paper.

On the page a colour is a CSS variable, so that one drawing follows the reader's light or dark scheme and the printer.
"""

from dataclasses import dataclass
from typing import Any, Literal

import altair as alt


@dataclass(frozen=True)
class Theme:
    """Colours of a chart, each a CSS colour, and its width in pixels."""

    ink: str
    muted: str
    line: str
    original: str
    result: str
    tried: str
    limit: str
    paper: str
    font: str
    width: float | Literal["container"]


PAGE = Theme(
    ink="var(--ink)",
    muted="var(--muted)",
    line="var(--line)",
    original="var(--original)",
    result="var(--result)",
    tried="var(--tried)",
    limit="var(--limit)",
    paper="transparent",
    font="system-ui, -apple-system, 'Segoe UI', Roboto, Helvetica, Arial, sans-serif",
    width="container",
)
PAPER = Theme(
    ink="#1d2530",
    muted="#566170",
    line="#dcdfe3",
    original="#7d8896",
    result="#0b7a72",
    tried="#b07f1e",
    limit="#b3402f",
    paper="#ffffff",
    font="Helvetica, Arial, sans-serif",
    width=640,
)


def spec(drawing: alt.LayerChart, theme: Theme, title: str | None = None) -> dict[str, Any]:
    """Return the Vega-Lite spec of a drawing; an image carries its title, on the page that is a heading."""
    drawn = drawing.properties(width=theme.width, background=theme.paper)
    if title is None:
        autosize = alt.AutoSizeParams(type="fit-x", contains="padding")
        drawn = drawn.properties(padding={"left": 0, "right": 8, "top": 4, "bottom": 4}, autosize=autosize)
    else:
        drawn = drawn.properties(title=title, padding=24)
    found: dict[str, Any] = drawn.configure(**_config(theme)).to_dict()
    del found["$schema"]  # an address that nothing has to visit
    return found


def _config(theme: Theme) -> dict[str, Any]:
    words = {"labelFont": theme.font, "titleFont": theme.font, "labelColor": theme.muted, "titleColor": theme.muted}
    sizes = {"labelFontSize": 12, "titleFontSize": 12, "titleFontWeight": "normal"}
    return {
        "font": theme.font,
        "view": {"stroke": None},
        "axis": {
            **words,
            **sizes,
            "gridColor": theme.line,
            "domainColor": theme.line,
            "tickColor": theme.line,
            "labelPadding": 6,
            "titlePadding": 10,
        },
        "legend": {
            **words,
            **sizes,
            "orient": "top",
            "direction": "horizontal",
            "title": None,
            "offset": 12,
            "symbolOpacity": 1,
        },
        "title": {"font": theme.font, "fontSize": 16, "anchor": "start", "color": theme.ink, "offset": 14},
        "text": {"font": theme.font, "fontSize": 12, "color": theme.ink},
    }
