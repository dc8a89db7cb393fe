"""A page with charts: its script is Vega, and its data are the charts'."""

from collections.abc import Mapping, Sequence

from slimwright.report.charts import Chart
from slimwright.report.frame import framed
from slimwright.report.script import chart_script
from slimwright.report.theme import PAGE, spec


def rendered(
    template: str, values: Mapping[str, object], charts: Sequence[Chart], styles: Sequence[str] = ("page.css",)
) -> str:
    """Return a page as HTML, as `framed` does."""
    specs = {chart.name: spec(chart.draw(PAGE), PAGE) for chart in charts}
    return framed(template, values, chart_script(), specs, styles)
