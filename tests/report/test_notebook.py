"""A bundle in a notebook."""

from pathlib import Path
from xml.etree import ElementTree

from manifest_example import example_manifest, example_recipe
from slimwright.measure import Bundle
from slimwright.report.page import page


def test_a_bundle_shows_both_sides() -> None:
    html = Bundle(Path("b"), example_manifest(), example_recipe())._repr_html_()
    table = ElementTree.fromstring(html)
    rows = [[cell.text for cell in row] for row in table.findall("tbody/tr")]
    assert rows[0] == ["accuracy (test)", "98.61 %", "98.33 %", "−0.28\N{NO-BREAK SPACE}points"]
    assert rows[1][1:] == ["0.512\N{NO-BREAK SPACE}ms", "0.244\N{NO-BREAK SPACE}ms", "−52\N{NO-BREAK SPACE}%"]
    assert table.findtext("caption") == "resnet8 on onnxruntime, INT8: within budget"


def test_texts_of_a_bundle_are_escaped() -> None:
    nasty = "<script>alert('&')</script>"
    manifest = example_manifest()
    summary = manifest.summary.model_copy(update={"within_budget": False, "misses": [nasty]})
    manifest = manifest.model_copy(update={"model": nasty, "summary": summary})
    html = Bundle(Path("b"), manifest, example_recipe())._repr_html_()
    assert "<script" not in html
    said = ElementTree.fromstring(html).findtext("caption")
    assert said == f"{nasty} on onnxruntime, INT8: budget missed: {nasty}"


def test_texts_of_a_bundle_steer_no_terminal() -> None:
    """Pages and tables are printed, too: a letter that cannot be seen is shown as one."""
    manifest = example_manifest()
    metric = manifest.task.metric.model_copy(update={"step": "\x1b[2J", "unit": "\x1b[2J"})
    task = manifest.task.model_copy(update={"metric": metric})
    manifest = manifest.model_copy(update={"model": "\x1b[2J", "task": task})
    for html in (Bundle(Path("b"), manifest, example_recipe())._repr_html_(), page(manifest, example_recipe(), [])):
        assert "[2J" in html and "\x1b" not in html
