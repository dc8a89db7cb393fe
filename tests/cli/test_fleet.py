"""`slimwright fleet` in a process of its own: what it prints, leaves and refuses."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from forked import forked
from slimwright.graph import save_net
from slimwright.measure import Fleet
from small_digits import small_digit_net

PLAN = """
model: net
data: mydata:some
budgets:
  half: {macs: 0.5x, max_drop: 100}
subsets:
  low: [0, 1, 2, 3, 4]
"""
USER_CODE = """
from slimwright.data import ArrayData, digits

def some():
    every = digits(seed=0)
    parts = {part: (images[:100], labels[:100]) for part, (images, labels) in every.parts.items()}
    return ArrayData("some digits", every.labels, parts, every.preprocessing)
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fleet")
    save_net(small_digit_net(width=4), folder / "net")
    (folder / "mydata.py").write_text(USER_CODE)
    (folder / "plan.yaml").write_text(PLAN)
    return folder


def run(home: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    return forked(home, "fleet", *arguments, environment={"SLIMWRIGHT_CACHE": str(home / "cache")})


def test_a_fleet_is_planned_then_built_and_found_again(home: Path) -> None:
    plans = run(home, "plan.yaml", "--dry-run", "--json", "--workers", "0")
    assert plans.returncode == 0, plans.stderr
    planned = json.loads(plans.stdout)
    assert list(planned) == ["low/half"] and planned["low/half"]["feasible"]
    assert not (home / "fleet").exists()
    done = run(home, "plan.yaml", "--out", "fleet", "--workers", "0", "--json")
    assert done.returncode == 0, done.stderr
    found = Fleet.model_validate_json(done.stdout)
    assert found == Fleet.model_validate_json((home / "fleet" / "fleet.json").read_bytes())
    (one,) = found.deployed
    assert one.within_budget and one.classes == ["0", "1", "2", "3", "4"]
    assert one.model.result.macs <= 0.5 * one.model.original.macs
    again = run(home, "plan.yaml", "--out", "fleet", "--workers", "0")
    assert again.returncode == 0, again.stderr
    assert "1 of 1 within their budgets" in again.stdout and "deploy: 0/1" not in again.stderr
    assert one.model.key in (home / "fleet" / "index.html").read_text()


def test_what_is_wrong_is_refused_by_name(home: Path) -> None:
    (home / "bad.yaml").write_text(PLAN.replace("0.5x", "half"))
    (home / "pets.yaml").write_text(PLAN.replace("[0, 1, 2, 3, 4]", "[cat, dog]"))
    for arguments, said in (
        (("plan.yaml",), "name it with --out"),
        (("none.yaml", "--out", "o"), "none.yaml"),
        (("bad.yaml", "--out", "o"), "budget 'half': macs is 'half'"),
        (("pets.yaml", "--out", "o", "--workers", "0"), "'cat'"),
    ):
        done = run(home, *arguments)
        assert done.returncode == 2 and said in done.stderr, done.stderr
        assert not (home / "o").exists()


def test_the_help_has_examples() -> None:
    command = [sys.executable, "-m", "slimwright", "fleet", "--help"]
    done = subprocess.run(command, env=os.environ, capture_output=True, text=True, check=True)
    assert "slimwright fleet plan.yaml --out fleet/ --workers 8" in " ".join(done.stdout.split())
