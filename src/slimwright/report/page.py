"""The page: one file with its style, its script and the charts' data inside."""

from collections.abc import Sequence
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from slimwright.measure.bundle import Manifest
from slimwright.report import words
from slimwright.report.charts import Chart
from slimwright.report.points import role_of
from slimwright.report.script import chart_script, embedded, policy
from slimwright.report.story import headline, limits, steps, tiles
from slimwright.report.theme import PAGE, spec
from slimwright.techniques.recipe import Recipe

HERE = Path(__file__).parent


def page(manifest: Manifest, recipe: Recipe, charts: Sequence[Chart]) -> str:
    """Return a report as HTML. Texts of the manifest are escaped; only our own style, script and specs are not."""
    pages = Environment(
        loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    pages.globals["words"] = words
    pages.globals["role_of"] = role_of
    script = chart_script()
    # Ours alone: a style sheet without texts of the manifest, Vega, and JSON with its brackets escaped.
    style, specs = Markup((HERE / "page.css").read_text(encoding="utf-8")), {}  # noqa: S704
    for chart in charts:
        specs[chart.name] = Markup(embedded(spec(chart.draw(PAGE), PAGE)))  # noqa: S704
    return pages.get_template("page.html").render(
        m=manifest,
        headline=headline(manifest.summary, manifest.runtime),
        tiles=tiles(manifest),
        limits=list(limits(manifest)),
        steps=steps(recipe),
        recipe=recipe,
        charts=charts,
        specs=specs,
        style=style,
        script=Markup(script),  # noqa: S704
        policy=policy(script),
    )
