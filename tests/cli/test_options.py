"""What people expect of any command line: its version, completion, quiet, and outputs that are there already."""

import json
import platform
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from slimwright.cli import app
from slimwright.cli.schedules import schedule_of
from slimwright.errors import RequestError
from slimwright.graph import Net, load_net, save_net
from slimwright.importers import capture
from slimwright.train import Schedule
from slimwright.zoo import build

NOTHING = json.dumps({"original": None, "steps": []})


@pytest.fixture
def net() -> Net:
    return capture(build("resnet8", classes=10, in_channels=1).eval(), (1, 32, 32))


@pytest.fixture
def home(tmp_path: Path, net: Net, monkeypatch: pytest.MonkeyPatch) -> Path:
    save_net(net, tmp_path / "model")
    (tmp_path / "nothing.json").write_text(NOTHING)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SLIMWRIGHT_CACHE", str(tmp_path / "cache"))
    return tmp_path


def run(*arguments: str) -> str:
    """What a command prints to standard output, in this process; errors are raised."""
    done = CliRunner().invoke(app, [*arguments], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


def applied(*arguments: str) -> str:
    return run("apply", "nothing.json", "model", "--data", "digits", *arguments)


def test_the_version_names_what_it_runs_on_without_loading_torch() -> None:
    probe = "import sys; sys.argv = ['slimwright', '--version']; from slimwright.cli import main\n"
    probe += "try: main()\nfinally: assert 'torch' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    said = dict(line.split(" ", 1) for line in done.stdout.splitlines())
    assert said["slimwright"] == version("slimwright") and said["Python"] == platform.python_version()
    assert said["torch"] == torch.__version__ and said["onnxruntime"] == version("onnxruntime")


def test_a_shell_can_complete_commands_and_options() -> None:
    for words, wanted in (("slimwright sh", "shrink"), ("slimwright shrink --max", "--max-drop")):
        asked = {"_SLIMWRIGHT_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))}
        done = CliRunner().invoke(app, [], env=asked, prog_name="slimwright")
        assert wanted in done.stdout.split()
    assert "--show-completion" in run("--help")


def test_quiet_shows_no_progress(home: Path) -> None:
    for quiet, wanted in (((), True), (("-q",), False), (("--quiet",), False)):
        done = CliRunner().invoke(app, ["devices", "model", "--device", "pi4", *quiet], catch_exceptions=False)
        assert ("load: 1/1" in done.stderr) is wanted and done.stdout


def test_a_net_that_was_saved_before_is_replaced(home: Path, net: Net) -> None:
    applied("--out", "out")
    (home / "out" / "net.json").write_text("{}")
    applied("--out", "out")
    assert load_net(home / "out").digest == net.digest
    assert {path.name for path in (home / "out").iterdir()} == {"net.json", "net.safetensors"}


def test_what_was_not_written_by_the_command_is_replaced_only_with_force(home: Path, net: Net) -> None:
    applied("--out", "out")
    (home / "out" / "notes.txt").write_text("years of work")
    with pytest.raises(RequestError, match=r"out holds notes\.txt, which this command did not write; .*--force"):
        applied("--out", "out")
    assert (home / "out" / "notes.txt").read_text() == "years of work"
    applied("--out", "out", "--force")
    assert {path.name for path in (home / "out").iterdir()} == {"net.json", "net.safetensors"}


def test_force_does_not_replace_where_one_works(home: Path) -> None:
    for out in (".", "..", str(home)):
        with pytest.raises(RequestError, match="holds the working directory, which --force does not replace"):
            applied("--out", out, "--force")
    assert (home / "nothing.json").read_text() == NOTHING


def test_training_takes_its_schedule_from_the_command_line(home: Path) -> None:
    """The run is as long as asked for, and the same command does not train again."""
    how = ("--epochs", "1", "--rate", "0.05", "--batch-size", "64", "--schedule", "momentum=0.5")
    for number in (1, 2):
        done = CliRunner().invoke(
            app, ["train", "resnet8", "--data", "digits", *how, "--out", f"net{number}"], catch_exceptions=False
        )
        assert done.exit_code == 0, done.output
        assert ("train: 1/1" in done.stderr) is (number == 1)
    assert load_net(home / "net1").digest == load_net(home / "net2").digest


def test_what_a_schedule_does_not_know_is_said() -> None:
    assert schedule_of(3, None, 8, ["patience=2", "weight_decay=1e-4"]) == Schedule(
        epochs=3, batch_size=8, patience=2, weight_decay=1e-4
    )
    for text, said in (("colour=1", "momentum"), ("patience=soon", "'soon' is not a number"), ("minutes=0", "0 min")):
        with pytest.raises(RequestError, match=said):
            schedule_of(None, None, None, [text])


def test_a_front_takes_no_limits(home: Path) -> None:
    with pytest.raises(RequestError, match="leave out --latency and --minimise"):
        run("shrink", "model", "--data", "digits", "--pareto", "--latency", "0.5x", "--minimise", "size", "--out", "f")
    assert not (home / "f").exists()
