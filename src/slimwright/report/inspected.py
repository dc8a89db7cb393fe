"""The page of an inspection: one network with its layers and charts, or several, compared and then one by one."""

from collections.abc import Sequence
from pathlib import Path

from slimwright.atomic import check_replaceable, unwritable, write_text
from slimwright.measure import Inspection
from slimwright.report import figures
from slimwright.report.write import check_drawing

WRITTEN_BY = '<meta name="generator" content="slimwright inspect">'  # as inspect.html has it


def check_page(path: Path, *, force: bool = False) -> None:
    """Raise RequestError where a file would be replaced that no inspection wrote, unless by `force`."""
    check_replaceable(path, WRITTEN_BY, "--html", force=force)


def write_inspection(path: Path, found: Sequence[Inspection], depth: int | None = None, *, force: bool = False) -> None:
    """Write the page; with a `depth`, layers by module. A page that an inspection wrote is replaced.

    Raises RequestError where nothing can be written, and for any other file unless by `force`, and MissingExtra where
    what draws charts is not installed.
    """
    try:
        check_page(path, force=force)
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise unwritable(path, error) from error
    write_text(path, inspection_page(found, depth))


def inspection_page(found: Sequence[Inspection], depth: int | None = None) -> str:
    """Return an inspection as HTML. Names come from models and are escaped."""
    check_drawing()
    from slimwright.report.layer_charts import charts, latencies  # which takes half a second to import
    from slimwright.report.rendering import rendered

    drawn = [charts(each, depth, f"n{number}-") for number, each in enumerate(found)]
    latency = latencies(found) if len(found) > 1 else None
    every = [*([latency] if latency else []), *(chart for each in drawn for chart in each)]
    rows = [figures.shown(each, depth) for each in found]
    values = {"found": found, "rows": rows, "drawn": drawn, "latency": latency, "figures": figures}
    return rendered("inspect.html", values, every, ("page.css", "inspect.css"))
