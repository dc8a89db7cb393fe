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
