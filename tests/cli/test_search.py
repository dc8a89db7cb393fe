"""`slimwright search` in a process of its own: what it prints, leaves, goes on from and refuses."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from forked import forked
from slimwright import load_bundle
from slimwright.graph import save_net
from slimwright.search import load_parameters
from small_digits import small_digit_net

USER_CODE = """
from slimwright.data import ArrayData, digits

def some():
    every = digits(seed=0)
    parts = {part: (images[:100], labels[:100]) for part, (images, labels) in every.parts.items()}
    return ArrayData("some digits", every.labels, parts, every.preprocessing)
"""
MACS = ("--data", "mydata:some", "--macs", "0.6x", "--max-drop", "100", "--tune-epochs", "0")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("search")
    save_net(small_digit_net(), folder / "net")
    (folder / "mydata.py").write_text(USER_CODE)
    return folder


def search(home: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    return forked(home, "search", "net", *arguments, environment={"SLIMWRIGHT_CACHE": str(home / "cache")})


def test_a_search_shows_every_evaluation_and_goes_on_from_its_journal(home: Path) -> None:
    asked = (*MACS, "--policy", "ddpg", "--evaluations", "2", "--save-policy", "learned/p.safetensors", "--out")
    done = search(home, *asked, "b", "--json")
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert summary["within_budget"]
    tries = [line for line in done.stderr.splitlines() if line.startswith("search: ")]
    assert len(tries) == 2 and tries[0].startswith("search: 1/2 ddpg 1: 0.") and "x of the macs, accuracy" in tries[0]
    bundle = load_bundle(home / "b")
    names = {candidate.name for candidate in bundle.manifest.candidates}
    assert {"original", "ddpg 1", "ddpg 2"} <= names
    assert load_parameters(home / "learned" / "p.safetensors", "ddpg").tensors
    (home / "learned" / "p.safetensors").unlink()
    again = search(home, *asked, "again")  # the search has ended: its result is proven again
    assert again.returncode == 0, again.stderr
    assert "search: " not in again.stderr and "MACs" in again.stdout
    assert load_parameters(home / "learned" / "p.safetensors", "ddpg").tensors


def test_what_does_not_go_together_is_refused(home: Path) -> None:
    (home / "bad").write_bytes(b"no tensors")
    for more, said in (
        (("--policy", "luck"), "there is no policy 'luck'"),
        (("--policy", "tpe", "--save-policy", "p"), "--save-policy is for policies that learn: reinforce and ddpg"),
        (("--policy", "ddpg", "--policy-weights", "bad"), "bad"),
    ):
        done = search(home, *MACS, *more, "--out", "r")
        assert done.returncode == 2 and said in done.stderr, done.stderr
        assert not (home / "r").exists()


def test_the_help_has_examples() -> None:
    command = [sys.executable, "-m", "slimwright", "search", "--help"]
    done = subprocess.run(command, env=os.environ, capture_output=True, text=True, check=True)
    assert "--policy-weights learned.safetensors" in " ".join(done.stdout.split())
