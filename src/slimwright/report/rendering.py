"""A page: one file with its style, its script and the charts' data inside."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from slimwright import units
from slimwright.report.charts import Chart
from slimwright.report.script import chart_script, embedded, policy
from slimwright.report.theme import PAGE, spec

HERE = Path(__file__).parent


def rendered(
    template: str, values: Mapping[str, object], charts: Sequence[Chart], styles: Sequence[str] = ("page.css",)
) -> str:
    """Return a page as HTML. Values are escaped; only our own style, script and specs are not."""
    pages = Environment(
        loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    pages.globals["units"] = units
    script = chart_script()
    # Ours alone: style sheets without texts of a record, Vega, and JSON with its brackets escaped.
    style = "\n".join((HERE / name).read_text(encoding="utf-8") for name in styles)
    return pages.get_template(template).render(
        **values,
        specs={chart.name: Markup(embedded(spec(chart.draw(PAGE), PAGE))) for chart in charts},  # noqa: S704
        style=Markup(style),  # noqa: S704
        script=Markup(script),  # noqa: S704
        policy=policy(script),
    )
