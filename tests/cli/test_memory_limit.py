"""`--memory-limit`: work that is sure to need more does not begin, and what runs elsewhere is held to it."""

import json
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import nn
from typer.testing import CliRunner

from slimwright.cli import app
from slimwright.errors import RequestError
from slimwright.graph import load_net, save_net
from slimwright.importers import capture

DATA = ("--data", "data.safetensors")
COMMANDS = {
    "train": ("train", "resnet8", *DATA, "--epochs", "1", "--batch-size", "32", "--out", "out"),
    "doctor": ("doctor", "net", "--runtime", "onnxruntime", "--json"),
    "inspect": ("inspect", "net", "--measure", "--json"),
    "inspect, untimed": ("inspect", "net", *DATA, "--expect", "0", "--json"),
    "compare": ("compare", "net", "net", *DATA, "--json"),
    "pack": ("pack", "net", *DATA, "--size", "2x", "--expect", "0", "--out", "out.swz", "--json"),
}
REFUSED = {
    "train": "training needs about",
    "doctor": "running the network needs about",
    "inspect": "running the network needs about",
    "inspect, untimed": "scoring the network on 20 test images needs about",
    "compare": "running the network needs about",
    "pack": "scoring the network on 20 test images needs about",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved net of 48 x 10 weights, and 80 images for it."""
    folder = tmp_path_factory.mktemp("home")
    torch.manual_seed(0)
    save_net(capture(nn.Sequential(nn.Flatten(), nn.Linear(48, 10)).eval(), (3, 4, 4)), folder / "net")
    images = {"images": torch.rand(80, 3, 4, 4), "labels": torch.arange(80) % 10}
    safetensors.torch.save_file(images, folder / "data.safetensors")
    return folder


@pytest.fixture
def home(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(folder)
    monkeypatch.setenv("SLIMWRIGHT_CACHE", str(tmp_path / "cache"))
    return folder


def run(*arguments: str) -> tuple[str, str]:
    """Standard output and standard error; errors are raised."""
    done = CliRunner().invoke(app, [*arguments], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout, done.stderr


@pytest.mark.parametrize("command", COMMANDS)
def test_what_is_sure_to_need_more_does_not_begin(command: str, home: Path, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=rf"^{REFUSED[command]} .* and 100.B are there: .* --memory-limit$"):
        run(*COMMANDS[command], "--memory-limit", "100")
    assert not (home / "out").exists() and not (tmp_path / "cache").exists()


@pytest.mark.parametrize("command", ["doctor", "compare", "inspect, untimed"])
def test_with_enough_memory_all_is_done(command: str, home: Path) -> None:
    """Comparing inspects both, timed."""
    said = json.loads(run(*COMMANDS[command], "--memory-limit", "2GB")[0])
    if command == "doctor":
        assert said["well"]
    elif command == "compare":
        assert all(one["measured"]["latency"]["median_ms"] > 0 for one in said["models"])
    else:
        assert said["measured"]["score"] is not None


def test_training_takes_smaller_batches_where_memory_is_short(home: Path) -> None:
    """Weights and copies of them take 1.57 MB, the values of an image of 3x4x4 20 kB; a fifth stays free."""
    words = COMMANDS["train"]
    assert "memory is short: 8 images in a step instead of 32" in run(*words, "--memory-limit", "2.25MB")[1]
    little = load_net(home / "out").digest
    assert "memory" not in run(*words, "--memory-limit", "1GB")[1]
    assert load_net(home / "out").digest != little


def test_a_conversion_may_take_no_more_than_it_is_given(home: Path) -> None:
    found = json.loads(run(*COMMANDS["inspect"], "--memory-limit", "3kB")[0])
    assert "it needed more memory than the" in found["measured"]["missing"]["latency"]
