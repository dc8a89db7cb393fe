"""Write a bundle's report: the page, and a copy of each chart as an image.

What draws is imported when it is asked to: that takes half a second, which whoever writes no report does not wait for.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from slimwright.atomic import replacing, unwritable, write_text
from slimwright.errors import MissingExtra, RequestError, check_extra
from slimwright.measure import FRONT_PAGE, REPORT, Front, Manifest
from slimwright.techniques import TECHNIQUES, Recipe, Technique

if TYPE_CHECKING:
    from slimwright.report.charts import Chart

PLOTS = "plots"


def write_report(
    bundle_path: Path, manifest: Manifest, recipe: Recipe, techniques: Sequence[Technique] = TECHNIQUES
) -> None:
    """Write `report.html` and `plots/*.png` into a bundle's folder; every number in them is the manifest's.

    Raises MissingExtra where what draws charts is not installed.
    """
    check_drawing()
    from slimwright.report.charts import charts
    from slimwright.report.page import page

    drawn = charts(manifest)
    _write_plots(bundle_path, drawn)
    write_text(bundle_path / REPORT, page(manifest, recipe, drawn, techniques))


def write_front(folder: Path, found: Front) -> None:
    """Write `front.html` and `plots/*.png` into a folder; every number in them is the front's.

    Raises MissingExtra where what draws charts is not installed.
    """
    check_drawing()
    from slimwright.report.front_page import front_charts, front_page

    drawn = list(front_charts(found))
    _write_plots(folder, drawn)
    write_text(folder / FRONT_PAGE, front_page(found, drawn))


def _write_plots(folder: Path, drawn: Sequence["Chart"]) -> None:
    """Write each chart as an image into `plots`, which must not lead elsewhere."""
    plots = folder / PLOTS
    if plots.is_symlink():
        raise RequestError(f"{plots} is a link, and no pictures are written to where it leads; remove it")
    try:
        plots.mkdir(exist_ok=True)
    except OSError as error:
        raise unwritable(plots, error) from error
    for chart in drawn:
        with replacing(plots / f"{chart.name}.png") as temporary:
            temporary.write_bytes(_image(chart))


def check_drawing(what: str = "the page's charts need") -> None:
    """Raise MissingExtra, which begins with `what`, where what draws charts is not installed."""
    check_extra("report", what, "altair", "vl_convert")


def missing_page() -> str:
    """Why no page can be written here, or nothing."""
    try:
        check_drawing()
    except MissingExtra as error:
        return f"the page was left out: {error}"
    return ""


def _image(chart: "Chart") -> bytes:
    import vl_convert

    from slimwright.report.theme import PAPER, spec

    image: bytes = vl_convert.vegalite_to_png(
        spec(chart.draw(PAPER), PAPER, chart.title), scale=2, allowed_base_urls=[]
    )
    return image
