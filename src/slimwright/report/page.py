"""The page: one file with its style, its script and the charts' data inside."""

from collections.abc import Sequence
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from slimwright import units
from slimwright.measure import Manifest
from slimwright.report.charts import Chart
from slimwright.report.headlines import headline, limits, tiles
from slimwright.report.points import role_of
from slimwright.report.script import chart_script, embedded, policy
from slimwright.report.theme import PAGE, spec
from slimwright.techniques import TECHNIQUES, Recipe, Technique, sentences

HERE = Path(__file__).parent


def page(
    manifest: Manifest, recipe: Recipe, charts: Sequence[Chart], techniques: Sequence[Technique] = TECHNIQUES
) -> str:
    """Return a report as HTML. Texts of the manifest are escaped; only our own style, script and specs are not."""
    pages = Environment(
        loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    pages.globals["units"] = units
    pages.globals["role_of"] = role_of
    script = chart_script()
    # Ours alone: a style sheet without texts of the manifest, Vega, and JSON with its brackets escaped.
    style, specs = Markup((HERE / "page.css").read_text(encoding="utf-8")), {}  # noqa: S704
    for chart in charts:
        specs[chart.name] = Markup(embedded(spec(chart.draw(PAGE), PAGE)))  # noqa: S704
    return pages.get_template("page.html").render(
        m=manifest,
        metric=manifest.task.metric.metric,
        headline=headline(manifest.summary, manifest.runtime, manifest.task.metric.metric),
        tiles=tiles(manifest),
        limits=list(limits(manifest)),
        steps=sentences(recipe, techniques),
        recipe=recipe,
        charts=charts,
        specs=specs,
        style=style,
        script=Markup(script),  # noqa: S704
        policy=policy(script),
    )
