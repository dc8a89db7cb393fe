"""A page: one file with its style, its script and the charts' data inside."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from slimwright import units
from slimwright.report.charts import Chart
from slimwright.report.script import chart_script, embedded, policy
from slimwright.report.theme import PAGE, spec
from slimwright.terminal import printable

HERE = Path(__file__).parent


def rendered(
    template: str, values: Mapping[str, object], charts: Sequence[Chart], styles: Sequence[str] = ("page.css",)
) -> str:
    """Return a page as HTML. Values are escaped, and letters that cannot be seen are marked; our own parts are not."""
    pages = Environment(
        loader=FileSystemLoader(HERE),
        autoescape=True,
        finalize=_seen,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
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


def _seen(value: object) -> object:
    return printable(value) if isinstance(value, str) and not isinstance(value, Markup) else value
