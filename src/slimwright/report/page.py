"""The page of a bundle."""

from collections.abc import Sequence

from slimwright.measure import Manifest
from slimwright.report.charts import Chart
from slimwright.report.headlines import headline, limits, tiles
from slimwright.report.points import role_of
from slimwright.report.rendering import rendered
from slimwright.techniques import TECHNIQUES, Recipe, Technique, sentences


def page(
    manifest: Manifest, recipe: Recipe, charts: Sequence[Chart], techniques: Sequence[Technique] = TECHNIQUES
) -> str:
    """Return a report as HTML. Texts of the manifest are escaped."""
    values = {
        "m": manifest,
        "metric": manifest.task.metric.metric,
        "headline": headline(manifest.summary, manifest.runtime, manifest.task.metric.metric),
        "tiles": tiles(manifest),
        "limits": list(limits(manifest)),
        "steps": sentences(recipe, techniques),
        "recipe": recipe,
        "role_of": role_of,
        "charts": charts,
    }
    return rendered("page.html", values, charts)
