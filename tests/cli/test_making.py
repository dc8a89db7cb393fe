"""The command that writes a kit, as a user starts it: a bundle made by hand, its pictures in a folder."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from dense_folders import save
from forked import forked
from kits import bundled, selftest, written
from shared_workshop import shared_workshop
from slimwright.data import Preprocessing, image_folder
from slimwright.importers import capture
from slimwright.tasks import Classification

QUIET = {"COLUMNS": "120", "NO_COLOR": "1"}
KIT = ("kit", "b", "--for", "python", "--data", "folder:photos@24", "--out")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with pictures of two classes and the bundle of a net for them."""
    folder = tmp_path_factory.mktemp("home")
    rng = np.random.default_rng(0)
    for name in ("dark", "light"):
        for number in range(20):
            save(folder / "photos" / name / f"{number}.png", rng.integers(0, 256, (30, 40, 3), dtype=np.uint8))
    torch.manual_seed(0)
    layers = nn.Conv2d(3, 6, 3, 2, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 2)
    data = image_folder(folder / "photos", Preprocessing(24, 24))
    net = capture(nn.Sequential(*layers).eval(), data.image_shape)
    net = net.edited(tensors={name: (8 * values).round() / 8 + 0.0 for name, values in net.tensors.items()})
    (folder / "b").mkdir()
    made = shared_workshop().convert(net, "onnxruntime", "fp32", folder / "made").copied(folder / "b", "model")
    written(bundled(made, data, Classification(data.labels)), net)
    return folder


def test_kit_writes_code_that_runs(home: Path) -> None:
    command = [sys.executable, "-m", "slimwright", *KIT, "kit"]
    done = subprocess.run(
        command, cwd=home, env=os.environ | QUIET, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "Python code for onnxruntime in kit; README.md says how to build and test it" in done.stdout
    names = {path.relative_to(home / "kit").as_posix() for path in (home / "kit").rglob("*") if path.is_file()}
    code = {"predictor.py", "selftest.py", "README.md", "labels.txt", "kit.json", "model.onnx"}
    assert names == code | {f"samples/{k}.{what}" for k in range(3) for what in ("png", "output0.bin")}
    assert (home / "kit" / "labels.txt").read_text() == "dark\nlight\n"
    assert selftest(home / "kit").returncode == 0


def test_a_packed_kit_says_what_it_takes(home: Path) -> None:
    done = forked(home, *KIT, "packed", "--packed", environment=QUIET)
    assert done.returncode == 0, done.stderr
    there = home / "packed" / "packed"
    after = sum((there / name).stat().st_size for name in ("weights.swz", "model.onnx.skeleton")) / 1e3
    before = (home / "packed" / "model.onnx").stat().st_size / 1e3
    assert f"packed, the model takes {after:.4g} kB in place of {before:.4g} kB" in done.stdout
    assert {"unpack.py", "swz"} < {path.name for path in there.iterdir()}


@pytest.mark.parametrize(
    ("language", "runtime", "said"),
    [
        ("cobol", "onnxruntime", "there is no kit for 'cobol'; there is for python, cpp, android, ios"),
        ("ios", "litert", "there is no kit in Swift for LiteRT"),
    ],
)
def test_what_there_is_no_kit_for_ends_with_status_2(home: Path, language: str, runtime: str, said: str) -> None:
    bundle = home / f"for-{runtime}"
    shutil.copytree(home / "b", bundle, dirs_exist_ok=True)
    manifest = json.loads((bundle / "manifest.json").read_text())
    (bundle / "manifest.json").write_text(json.dumps({**manifest, "runtime": runtime}))
    words = ("kit", bundle.name, "--for", language, "--data", "folder:photos@24", "--out", "never")
    done = forked(home, *words, environment=QUIET)
    assert done.returncode == 2 and said in " ".join(done.stderr.split())
    assert done.stderr.count("error:") == 1 and "Traceback" not in done.stderr
    assert not (home / "never").exists()


def test_a_folder_that_it_did_not_write_is_replaced_by_force_alone(home: Path) -> None:
    (home / "mine").mkdir()
    (home / "mine" / "notes.txt").write_text("mine")
    done = forked(home, *KIT, "mine", environment=QUIET)
    assert done.returncode == 2 and "--force" in done.stderr
    assert [path.name for path in (home / "mine").iterdir()] == ["notes.txt"]
    done = forked(home, *KIT, "mine", "--force", environment=QUIET)
    assert done.returncode == 0, done.stderr
    assert (home / "mine" / "predictor.py").exists() and not (home / "mine" / "notes.txt").exists()
    again = forked(home, *KIT, "mine", environment=QUIET)  # it is a kit now
    assert again.returncode == 0, again.stderr
