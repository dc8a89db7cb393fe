"""`pack` and `unpack` as a user runs them: files, tables, refusals."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn
from typer.testing import CliRunner

from example_nets import SHAPE, net_of
from slimwright.cli import app
from slimwright.errors import ModelError, RequestError
from slimwright.graph import Net, load_net, save_net


def run(*words: str) -> str:
    done = CliRunner().invoke(app, words)
    if done.exception and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done.stdout


@pytest.fixture
def net(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Net:
    monkeypatch.chdir(tmp_path)
    made = net_of(nn.Flatten(), nn.Linear(36, 60), nn.ReLU(), nn.Linear(60, 4), shape=SHAPE)
    made = made.edited(tensors={k: (8 * values).round() / 8 for k, values in made.tensors.items()})
    save_net(made, Path("net"))
    return made


def test_a_net_is_packed_and_unpacked(net: Net) -> None:
    command = [sys.executable, "-m", "slimwright", "pack", "net", "--out", "net.swz"]
    done = subprocess.run(
        command, env=os.environ | {"COLUMNS": "100", "NO_COLOR": "1"}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "bits a value" in done.stdout and "smaller than at 4 bytes a number" in done.stdout
    assert f"{Path('net.swz').stat().st_size:,}" in done.stdout
    run("unpack", "net.swz", "--out", "again")
    assert load_net(Path("again")).digest == net.digest


def test_what_is_packed_is_a_model(net: Net) -> None:
    said = json.loads(run("pack", "net", "--out", "net.swz", "--json"))
    assert said["bytes"] == Path("net.swz").stat().st_size
    assert said["values"] == sum(values.numel() for values in net.tensors.values())
    assert said["ratio"] == 4 * said["values"] / said["bytes"]
    found, whole = (json.loads(run("inspect", name, "--json")) for name in ("net.swz", "net"))
    assert found["layers"] == whole["layers"]


def test_an_update_is_unpacked_on_its_base(net: Net) -> None:
    name = next(iter(net.tensors))
    tuned = net.edited(tensors={name: net.tensors[name] + 0.125})
    save_net(tuned, Path("tuned"))
    said = json.loads(run("pack", "tuned", "--base", "net", "--out", "update.swz", "--json"))
    assert [one["name"] for one in said["tensors"] if one["form"] != "same"] == [name]
    run("unpack", "update.swz", "--base", "net", "--out", "again")
    assert load_net(Path("again")).digest == tuned.digest
    with pytest.raises(ModelError, match=r"slimwright unpack update\.swz --base"):
        run("inspect", "update.swz")
    with pytest.raises(ModelError, match="another base"):
        run("unpack", "update.swz", "--base", "tuned", "--out", "never")
    assert not Path("never").exists()


def test_a_file_of_others_is_left_alone(net: Net) -> None:
    Path("mine.swz").write_text("mine")
    with pytest.raises(RequestError, match="--force"):
        run("pack", "net", "--out", "mine.swz")
    assert Path("mine.swz").read_text() == "mine"
    run("pack", "net", "--out", "mine.swz", "--force")
    run("pack", "net", "--out", "mine.swz")
    with pytest.raises(RequestError, match=r"ends in \.swz"):
        run("pack", "net", "--out", "net.bin")
    assert torch.equal(load_net(Path("net")).tensors["1.weight"], net.tensors["1.weight"])
