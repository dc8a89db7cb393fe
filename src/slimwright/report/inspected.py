"""The page of an inspection: one network with its layers and charts, or several, compared and then one by one."""

from collections.abc import Sequence
from pathlib import Path

from markupsafe import Markup

from slimwright import units
from slimwright.atomic import replacing
from slimwright.errors import RequestError, check_extra
from slimwright.measure import Inspection
from slimwright.report import figures
from slimwright.report.write import CHARTS, DRAWING

HERE = Path(__file__).parent


def write_inspection(path: Path, found: Sequence[Inspection], depth: int | None = None) -> None:
    """Write the page; with a `depth`, layers by module.

    Raises RequestError where nothing can be written, and MissingExtra where what draws charts is not installed.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary:
            temporary.write_text(inspection_page(found, depth), encoding="utf-8", newline="\n")
    except OSError as error:
        raise RequestError(f"cannot write to {path}: {error.strerror}") from error


def inspection_page(found: Sequence[Inspection], depth: int | None = None) -> str:
    """Return an inspection as HTML. Names come from models and are escaped; only our own style and script are not."""
    check_extra("report", CHARTS, *DRAWING)
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    from slimwright.report.layer_charts import charts, latencies  # which takes half a second to import
    from slimwright.report.script import chart_script, embedded, policy
    from slimwright.report.theme import PAGE, spec

    pages = Environment(
        loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    pages.globals |= {"units": units, "figures": figures}
    drawn = [charts(each, depth, f"n{number}-") for number, each in enumerate(found)]
    latency = latencies(found) if len(found) > 1 else None
    every = [*([latency] if latency else []), *(chart for each in drawn for chart in each)]
    script = chart_script()
    style = "\n".join((HERE / name).read_text(encoding="utf-8") for name in ("page.css", "inspect.css"))
    return pages.get_template("inspect.html").render(
        found=found,
        rows=[figures.shown(each, depth) for each in found],
        drawn=drawn,
        latency=latency,
        specs={chart.name: Markup(embedded(spec(chart.draw(PAGE), PAGE))) for chart in every},  # noqa: S704
        style=Markup(style),  # noqa: S704
        script=Markup(script),  # noqa: S704
        policy=policy(script),
    )
