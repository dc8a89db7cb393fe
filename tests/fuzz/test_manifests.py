"""A bundle that somebody else wrote: what is read of it can be shown, or it is refused."""

import io
import json
from pathlib import Path
from typing import Any

import pytest

from manifest_example import example_bundle
from mutating import as_text, numbered, with_changes
from slimwright.cli import tables
from slimwright.errors import BundleError
from slimwright.measure import Bundle, Manifest, load_bundle
from slimwright.report.charts import charts
from slimwright.report.page import page
from slimwright.terminal import Terminal

CASES = 500


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle whose hashes fit."""
    return example_bundle(tmp_path_factory.mktemp("home") / "bundle")


def shown(bundle: Bundle, *, drawn: bool = True) -> tuple[str, str]:
    """Everything that people are shown of it, in a terminal and as HTML, its charts `drawn` or left out."""
    out = io.StringIO()
    Terminal(file=out, width=120).print(tables.summary(bundle), soft_wrap=True)
    pictures = charts(bundle.manifest) if drawn else []
    return out.getvalue(), page(bundle.manifest, bundle.recipe, pictures) + bundle._repr_html_()


def test_the_bundle_is_read_and_shown(bundle: Path) -> None:
    assert all("resnet" in text for text in shown(load_bundle(bundle)))


def test_a_manifest_that_was_changed_is_shown_or_refused(bundle: Path) -> None:
    """No other error, no markup of the file's own, and no number that is none."""
    whole: dict[str, Any] = json.loads((bundle / "manifest.json").read_text())
    read = 0
    for chance in numbered(CASES):
        (bundle / "manifest.json").write_bytes(as_text(with_changes(whole, chance), chance))
        try:
            found = load_bundle(bundle)
        except BundleError as error:
            assert str(bundle) in str(error)
            continue
        printed, html = shown(found, drawn=read % 5 == 0)  # which takes most of the time
        assert "<script>alert" not in html and "\x1b" not in printed + html
        assert isinstance(found.manifest, Manifest)
        read += 1
    assert read > CASES / 50  # some changes are harmless, or this would test the first check alone
    (bundle / "manifest.json").write_text(json.dumps(whole))
