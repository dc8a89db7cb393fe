"""Commands on a disk that is full or that may only be read: one error that names it, and what was there stays."""

import json
from collections.abc import Iterator
from pathlib import Path
from subprocess import CompletedProcess

import pytest
import safetensors.torch
import torch

from forked import forked
from manifest_example import example_bundle
from slimwright.graph import save_net
from slimwright.importers import capture
from slimwright.zoo import build
from small_disk import small_disk, write_protect

TRAIN = ("train", "resnet8", "--data", "data.safetensors", "--epochs", "1", "--batch-size", "64", "--out")
COMMANDS = {
    "train": (*TRAIN, "disk/out"),
    "apply": ("apply", "nothing.json", "model", "--data", "data.safetensors", "--out", "disk/out"),
    "report": ("report", "disk/bundle"),
}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("home")
    save_net(capture(build("resnet8", classes=10, in_channels=1).eval(), (1, 32, 32)), folder / "model")
    images = {"images": torch.rand(200, 1, 32, 32), "labels": torch.arange(200) % 10}
    safetensors.torch.save_file(images, folder / "data.safetensors")
    (folder / "nothing.json").write_text(json.dumps({"original": None, "steps": []}))
    return folder


@pytest.fixture
def disk(home: Path) -> Iterator[Path]:
    """A disk with a bundle and room for little else."""
    with small_disk(home / "disk", 64) as disk:
        example_bundle(disk / "bundle")
        yield disk


def files(disk: Path) -> dict[str, bytes]:
    return {path.relative_to(disk).as_posix(): path.read_bytes() for path in disk.rglob("*") if path.is_file()}


def run(home: Path, command: tuple[str, ...], cache: str = "cache") -> CompletedProcess[str]:
    return forked(home, *command, environment={"SLIMWRIGHT_CACHE": str(home / cache), "NO_COLOR": "1"})


def check_refused(done: CompletedProcess[str], why: str) -> None:
    """One error, in one line, that names the place and says why."""
    said = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(said) == 1 and "disk/" in said[0] and why in said[0], done.stderr
    assert "Traceback" not in done.stderr and done.returncode in (1, 2)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_full_disk_is_told_and_what_was_there_stays(command: str, home: Path, disk: Path) -> None:
    before = files(disk)
    done = run(home, COMMANDS[command])
    check_refused(done, "No space left on device")
    after = files(disk)
    assert before.items() <= after.items() and not [name for name in after if name.endswith(".part")]
    assert not (disk / "out").exists()


@pytest.mark.parametrize("command", COMMANDS)
def test_a_disk_that_may_only_be_read_is_told(command: str, home: Path, disk: Path) -> None:
    write_protect(disk)
    before = files(disk)
    done = run(home, COMMANDS[command])
    check_refused(done, "Read-only file system")
    assert files(disk) == before


def test_a_cache_on_a_full_disk_is_told(home: Path, disk: Path) -> None:
    done = run(home, (*TRAIN, "out"), cache="disk/cache")
    check_refused(done, "No space left on device")
    assert not (home / "out").exists()
