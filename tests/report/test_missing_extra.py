"""Without what draws charts there is no page, and everything else."""

import subprocess
import sys
from pathlib import Path

import pytest

from manifest_example import example_manifest, example_recipe
from slimwright.errors import MissingExtra
from slimwright.report import missing_page, write_inspection, write_report

WITHOUT = """
import sys
sys.modules |= dict.fromkeys(("altair", "vl_convert", "sklearn"))
sys.argv = ["slimwright", *sys.argv[1:]]
from slimwright.cli.main import main
main()
"""


def test_a_page_names_what_it_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not missing_page()
    monkeypatch.setitem(sys.modules, "altair", None)
    with pytest.raises(MissingExtra, match=r"the page's charts need altair: .* -m pip install 'slimwright\[report\]'"):
        write_report(tmp_path, example_manifest(), example_recipe())
    with pytest.raises(MissingExtra, match="altair"):
        write_inspection(tmp_path / "page.html", [])
    assert not [*tmp_path.iterdir()]
    assert missing_page().startswith("the page was left out: the page's charts need altair")


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["lenet5"], 0, ""),
        (["lenet5", "--html", "page.html"], 2, "a page's charts need altair and vl_convert: python -m pip install"),
        (
            ["lenet5", "--data", "digits"],
            2,
            "the digits are a file of sklearn: python -m pip install 'slimwright[data]'",
        ),
    ],
)
def test_a_network_is_inspected_without_the_extras(
    arguments: list[str], status: int, said: str, tmp_path: Path
) -> None:
    command = [sys.executable, "-c", WITHOUT, "inspect", *arguments]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, said in done.stderr) == (status, True), done.stderr
    assert not [*tmp_path.iterdir()]
