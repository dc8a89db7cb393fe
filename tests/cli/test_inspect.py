"""`slimwright inspect` as a user runs it: a real subprocess, its output and its exit status."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import nn
from typer.testing import CliRunner

from slimwright.cli import app
from slimwright.errors import RequestError

USER_CODE = """
import torch
from torch import nn
from slimwright.zoo import build

def small():
    return build("resnet8", classes=10, in_channels=1)

class Bessel(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(1024, 10)

    def forward(self, x):
        return self.fc(torch.special.bessel_j0(x).flatten(1))

def unexportable():
    return Bessel()

def two():
    return build("resnet8", classes=2, in_channels=1)
"""


@pytest.fixture(scope="module")
def home(trained: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the user's code and a network that knows the digits, as weights and as .pt2."""
    folder = tmp_path_factory.mktemp("home")
    (folder / "mynets.py").write_text(USER_CODE)
    safetensors.torch.save_file(trained.state_dict(), folder / "weights.safetensors")
    program = torch.export.export(
        trained, (torch.zeros(2, 1, 32, 32),), dynamic_shapes=({0: torch.export.Dim.AUTO},), strict=False
    )
    torch.export.save(program, folder / "model.pt2")
    return folder


def inspect(home: Path, *arguments: str, columns: int = 140) -> subprocess.CompletedProcess[str]:
    """Run the command as a user does."""
    environment = os.environ | {"COLUMNS": str(columns), "NO_COLOR": "1"}
    command = [sys.executable, "-m", "slimwright", "inspect", *arguments]
    return subprocess.run(command, cwd=home, env=environment, capture_output=True, text=True, timeout=300, check=False)


@pytest.fixture
def said(home: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, Any]]:
    """What the command says as JSON, in this process, which is quicker; errors are raised."""
    monkeypatch.chdir(home)

    def run(*arguments: str) -> dict[str, Any]:
        done = CliRunner().invoke(app, ["inspect", *arguments, "--json"], catch_exceptions=False)
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    return run


def test_the_table_has_every_layer_and_the_exact_totals_and_the_page_too(home: Path) -> None:
    done = inspect(home, "resnet20", "--html", "pages/resnet20.html")
    assert done.returncode == 0, done.stderr
    (conv1,) = (" ".join(line.split()) for line in done.stdout.splitlines() if "blocks.0.conv1 " in line)
    assert conv1 == "blocks.0.conv1 conv2d 16x32x32 2.36 M 5.8% 2.30 k 140 kB 33.6 131 kB yes"
    totals = {line.split("  ")[0]: line.split() for line in done.stdout.splitlines() if "  " in line}
    stem, stages, shortcuts, fc = 442_368, 16 * 2_359_296 + 2 * 1_179_648, 2 * 131_072, 640
    assert totals["MACs"][1] == f"{stem + stages + shortcuts + fc:,}" == "40,813,184"
    assert totals["parameters"][1] == "272,474"
    assert "22 tensor, 50 non-tensor (69%)" in done.stdout
    assert "latency" not in done.stdout
    assert "--depth 2" in done.stdout
    page = (home / "pages" / "resnet20.html").read_text()
    assert 'title="40,813,184"' in page and "blocks.8.conv2" in page


@pytest.mark.slow
def test_several_models_are_compared_and_what_is_missing_is_explained(home: Path) -> None:
    models = ("model.pt2", "resnet8", "mynets:unexportable")
    done = inspect(home, *models, "--data", "digits", "--expect", "0", "--html", "compared.html", columns=80)
    assert done.returncode == 0, done.stderr
    assert max(map(len, done.stdout.splitlines())) <= 80
    rows = {line.split()[0]: line.split() for line in done.stdout.splitlines() if line.strip()}
    assert float(rows["model.pt2"][1]) > 85 and rows["model.pt2"][2] == "%"
    assert rows["resnet8"][1] == "—" and rows["resnet8"][-1] != "—"
    assert rows["model.pt2"][3:7] == rows["resnet8"][2:6] == ["77.8", "k", "12.2", "M"]
    assert rows["mynets:unexportable"][-3:] == ["—", "—", "—"]
    text = " ".join(done.stdout.split())
    assert "resnet8: its weights are not trained" in text
    assert "mynets:unexportable: ONNX Runtime (.onnx), fp32: " in text
    assert "runs in turn, one image, one thread" in text
    assert (home / "compared.html").read_text().count('data-testid="layers-') == 3


def test_a_wrong_request_ends_with_status_2_and_one_clear_error(home: Path) -> None:
    done = inspect(home, "resnet8", "--image", "32x32")
    assert done.returncode == 2, done.stdout + done.stderr
    assert done.stderr.count("error:") == 1
    assert "3x224x224" in done.stderr
    assert "Traceback" not in done.stderr


def test_help_says_what_is_measured_and_gives_examples(home: Path) -> None:
    done = inspect(home, "--help")
    assert "only where several are" in " ".join(done.stdout.split())
    assert "slimwright inspect model.pt2 --measure --html model.html" in done.stdout


def test_json_is_exact(said: Callable[..., dict[str, Any]]) -> None:
    found = said("resnet20")
    assert found["inputs"] == [[3, 32, 32]] and found["outputs"] == [[10]]
    assert found["total"]["params"] == 272_474
    for cost in ("macs", "elementwise_ops", "moved_bytes"):
        assert sum(layer[cost] for layer in found["layers"]) == found["total"][cost]
    assert found["total"]["arena_bytes"] == found["total"]["peak_activation_bytes"] == 3 * 4 * 16 * 32 * 32
    assert found["measured"]["latency"] is None


def test_layers_are_shown_by_module(said: Callable[..., dict[str, Any]]) -> None:
    found = said("resnet20", "--depth", "1")
    assert [layer["path"] for layer in found["layers"]] == ["x", "stem", "blocks", "fc"]
    assert sum(layer["macs"] for layer in found["layers"]) == found["total"]["macs"]


def test_images_of_another_size_change_the_work_and_not_the_weights(said: Callable[..., dict[str, Any]]) -> None:
    small, large = said("model.pt2"), said("model.pt2", "--image", "1x64x64")
    assert (small["inputs"], large["inputs"]) == ([[1, 32, 32]], [[1, 64, 64]])
    assert small["total"]["params"] == large["total"]["params"] == 77_754
    assert large["total"]["macs"] - 640 == 4 * (small["total"]["macs"] - 640)  # all but the linear layer
    assert said("mynets:small", "--image", "1x64x64")["total"] == large["total"]


def test_several_models_without_measuring(said: Callable[..., dict[str, Any]]) -> None:
    found = said("model.pt2", "resnet8", "--no-measure", "--data", "digits")["models"]
    assert [model["measured"]["latency"] for model in found] == [None, None]
    assert found[0]["measured"]["score"] > 85
    assert found[0]["total"] == found[1]["total"]


def test_one_model_is_measured_when_asked_for(said: Callable[..., dict[str, Any]]) -> None:
    found = said("resnet8", "--weights", "weights.safetensors", "--data", "digits", "--measure")["measured"]
    assert found["score"] > 85
    assert 0 < found["latency"]["p10_ms"] <= found["latency"]["median_ms"]
    assert found["size_bytes"] > 4 * 77_754
    assert found["missing"] == {}


WRONG = {
    "an image too small": (("lenet5", "--image", "1x4x4"), r"\[1, 4, 4\]"),
    "a function without an image": (("mynets:small",), "--image"),
    "weights for several": (("resnet8", "resnet20", "--weights", "weights.safetensors"), "one model"),
    "weights for a file": (("model.pt2", "--weights", "weights.safetensors"), "its own"),
    "data of another size": (("model.pt2", "--data", "digits", "--image", "1x64x64"), "1x32x32"),
    "a model for other images": (("model.pt2", "--image", "3x32x32"), "model.pt2 takes images of 1x32x32"),
    "a model for other classes": (("mynets:two", "--data", "digits"), "10 classes"),
    "no such model": (("resnet8", "nowhere.pt2"), "nowhere.pt2"),
    "a page in the place of a file": (("resnet8", "--html", "mynets.py"), "mynets.py exists and was not written by"),
    "a page that cannot be written": (("resnet8", "--html", "mynets.py/page.html"), "mynets.py/page.html"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_is_said(said: Callable[..., dict[str, Any]], case: str) -> None:
    arguments, named = WRONG[case]
    with pytest.raises(RequestError, match=named):
        said(*arguments)
