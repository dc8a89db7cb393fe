"""How a command ends that is stopped, that cannot write, or that is given names made to steer a terminal."""

import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from slimwright.cli.sources import read_original
from slimwright.errors import ModelError
from slimwright.graph import save_net
from slimwright.importers import capture
from slimwright.zoo import build

SLOW = """
import time
from pathlib import Path

def data():
    Path("begun").touch()
    time.sleep(100)
"""


@pytest.fixture
def home(tmp_path: Path) -> Path:
    home = tmp_path / "home"
    save_net(capture(build("resnet8", classes=10, in_channels=1).eval(), (1, 32, 32)), home / "model")
    (home / "nothing.json").write_text(json.dumps({"original": None, "steps": []}))
    (home / "slow.py").write_text(SLOW)
    (tmp_path / "scratch").mkdir()
    return home


def begun(home: Path, *arguments: str, **how: object) -> "subprocess.Popen[str]":
    surroundings = dict(os.environ, SLIMWRIGHT_CACHE=str(home / "cache"), TMPDIR=str(home.parent / "scratch"))
    command = [sys.executable, "-m", "slimwright", *arguments]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, cwd=home, env=surroundings, stdout=pipe, stderr=pipe, text=True, **how)  # type: ignore[call-overload,no-any-return]


def said(home: Path, *arguments: str, **how: object) -> tuple[int, str]:
    """Exit status and standard error."""
    child = begun(home, *arguments, **how)
    _, error = child.communicate(timeout=100)
    return child.returncode, error


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_command_that_is_stopped_leaves_nothing_and_says_so(number: signal.Signals, home: Path) -> None:
    before = {path.name for path in home.iterdir()}
    child = begun(home, "apply", "nothing.json", "model", "--data", "slow:data", "--out", "out")
    for _ in range(1000):
        if (home / "begun").exists():
            break
        time.sleep(0.1)
    child.send_signal(number)
    _, error = child.communicate(timeout=60)
    assert child.returncode == 128 + number, error
    assert "stopped; the same command goes on" in error and "Traceback" not in error
    assert {path.name for path in home.iterdir()} - {"__pycache__", "cache"} == before | {"begun"}
    assert not list((home.parent / "scratch").iterdir())


def test_a_disk_that_takes_no_more_is_told(home: Path) -> None:
    def little() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # a write beyond the limit fails, as on a full disk
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))

    status, error = said(home, "apply", "nothing.json", "model", "--data", "digits", "--out", "out", preexec_fn=little)
    assert status in (1, 2) and "Traceback" not in error, error
    assert "error:" in error and ("File too large" in error or "No space" in error), error
    assert not (home / "out").exists()
    assert not [path.name for path in home.iterdir() if path.name.endswith(".part")]


def test_names_are_shown_as_they_are_and_steer_nothing(home: Path) -> None:
    status, error = said(home, "inspect", "\\[/foo][bold]a[/]\x1b]0;owned\x07\u202egnp.onnx")
    assert status == 2 and "Traceback" not in error and "there is no model '\\[/foo][bold]a[/]" in error
    assert not {"\x1b", "\x07", "\u202e"} & set(error)


def test_a_pipe_is_no_model(home: Path) -> None:
    os.mkfifo(home / "pipe.onnx")
    os.mkfifo(home / "weights.pth")
    (home / "zero.pt2").symlink_to("/dev/zero")
    for name in ("pipe.onnx", "zero.pt2"):
        with pytest.raises(ModelError, match="is a pipe or a device and is not opened"):
            read_original(home / name)
    status, error = said(home, "export", "resnet8", "--data", "digits", "--weights", "weights.pth", "--out", "out")
    assert status == 2 and "is a pipe or a device and is not opened" in error, error
