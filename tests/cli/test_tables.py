"""What the command line prints of a bundle."""

import io
from pathlib import Path

import pytest

from manifest_example import example_bundle, example_manifest
from slimwright.cli.tables import summary
from slimwright.measure import MANIFEST, as_json, load_bundle
from slimwright.terminal import Terminal


def printed(folder: Path) -> list[str]:
    out = io.StringIO()
    Terminal(file=out, width=120).print(summary(load_bundle(folder)))
    return out.getvalue().splitlines()


@pytest.mark.parametrize("count", ["size_bytes", "peak_activation_bytes", "peak_rss_bytes", "macs"])
def test_a_count_of_none_has_no_share_and_the_others_do(count: str, tmp_path: Path) -> None:
    folder = example_bundle(tmp_path / "bundle")
    whole = load_bundle(folder).manifest
    original = whole.original.model_copy(update={count: 0})
    (folder / MANIFEST).write_text(as_json(whole.model_copy(update={"original": original})))
    assert sum("x │" in line for line in printed(folder)) == 4


def test_each_cost_stands_beside_its_share(tmp_path: Path) -> None:
    folder = example_bundle(tmp_path / "bundle")
    before, after = example_manifest().original, example_manifest().result
    (line,) = (line for line in printed(folder) if "MACs" in line)
    assert line.split()[-2] == f"{after.macs / before.macs:.2f}x"
