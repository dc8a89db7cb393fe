"""`--classes`: the outputs of a model by name, of which those are kept that the data shows."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn
from typer.testing import CliRunner

from slimwright.cli import app
from slimwright.errors import DataError, RequestError
from slimwright.graph import save_net
from small_digits import small_digit_net

USER_CODE = """
from slimwright.data import digits, of_classes

def some():
    return of_classes(digits(), [7, 2, 5])
"""
NAMES = ",".join(map(str, range(10)))


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "mydata.py").write_text(USER_CODE)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 4, 3, 4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 10))
    example, shapes = (torch.zeros(2, 1, 32, 32),), ({0: torch.export.Dim.AUTO},)
    torch.export.save(torch.export.export(model.eval(), example, dynamic_shapes=shapes), tmp_path / "model.pt2")
    return tmp_path


def test_inspect_scores_the_classes_of_the_data(home: Path) -> None:
    (home / "names.txt").write_text(NAMES.replace(",", "\n"))
    command = [
        sys.executable,
        "-m",
        "slimwright",
        "inspect",
        "model.pt2",
        "--data",
        "mydata:some",
        "--expect",
        "0",
        "--json",
    ]
    done = subprocess.run(
        [*command, "--classes", "names.txt"], cwd=home, env=os.environ, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)
    assert seen["layers"][-1]["shape"] == [1, 3]


@pytest.mark.parametrize(
    ("arguments", "kind", "said"),
    [
        (
            ["--data", "mydata:some", "--expect", "0", "--classes", "a,b"],
            RequestError,
            "names 2 classes; the model gives scores of 10",
        ),
        (
            ["--data", "mydata:some", "--expect", "0", "--classes", NAMES.replace("7", "seven")],
            DataError,
            "do not name '7'",
        ),
        (["--classes", NAMES], RequestError, "give --data too"),
    ],
)
def test_names_that_do_not_fit_are_refused(
    arguments: list[str], kind: type[Exception], said: str, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(home)
    done = CliRunner().invoke(app, ["inspect", "model.pt2", *arguments])
    assert isinstance(done.exception, kind) and said in str(done.exception)


def test_shrink_makes_a_network_for_some_classes_which_is_verified_with_all_data(home: Path) -> None:
    """From the command line through to the bundle: the head is cut, and images of other classes take no part."""
    wide_enough = small_digit_net(width=4)  # that half of it is faster on a busy machine, too
    save_net(wide_enough, home / "small")
    command = [sys.executable, "-m", "slimwright", "shrink", "small", "--data", "digits", "--only", "7,2,5"]
    command += ["--macs", "0.5x", "--max-drop", "100", "--tune-epochs", "0", "--out", "some", "--json", "--quiet"]
    done = subprocess.run(command, cwd=home, env=os.environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    manifest = json.loads((home / "some" / "manifest.json").read_text())
    assert manifest["data"]["labels"] == ["7", "2", "5"] and manifest["result"]["output_shapes"] == [[1, 3]]
    assert manifest["summary"]["score"] > 90
    verify = [sys.executable, "-m", "slimwright", "verify", "some", "--data", "digits", "--json"]
    checked = subprocess.run(verify, cwd=home, env=os.environ, capture_output=True, text=True, check=False)
    checks = {each["what"]: each["passed"] for each in json.loads(checked.stdout)["checks"]}
    assert checks["outputs agree with the network"] and checks["accuracy, result"], checked.stdout


def test_a_class_that_the_data_does_not_have_is_named_before_anything_is_trained(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLIMWRIGHT_CACHE", str(home / "cache"))
    command = ["shrink", "resnet8-wide", "--data", "digits", "--only", "7,cat", "--macs", "0.5x", "--out", "x"]
    found = CliRunner().invoke(app, command)
    assert isinstance(found.exception, DataError) and "'cat'" in str(found.exception)
    assert not (home / "cache").exists()
