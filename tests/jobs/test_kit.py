"""Kits: the code of each language for real artefacts, run where its tools are installed, else parsed."""

import shutil
import subprocess
import sys
from dataclasses import replace
from functools import cache as kept
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_sample_image
from torch import Tensor, nn

from manifest_example import example_manifest, example_recipe
from slimwright.data import ArrayData, Dataset, Preprocessing, image_folder, images_of, text_lines
from slimwright.errors import BundleError, RequestError
from slimwright.importers import capture
from slimwright.jobs.kit import kit
from slimwright.jobs.kit.facts import facts_of
from slimwright.measure import Bundle, DataCard, TaskCard
from slimwright.runtimes import Workshop
from slimwright.tasks import Classification, Ctc, Embedding, Imitation, MultiLabel, Task

CROP = Preprocessing(24, 24, crop_share=0.875, interpolation="bicubic")
HOWS = {
    "crop": CROP,
    "letterbox": Preprocessing(16, 32, fit="letterbox", channels="BGR", fill=114, mean=(0.0,), std=(1.0,)),
    "stretch": Preprocessing(24, 20, fit="stretch", channels="grey", mean=(0.4,), std=(0.3,), interpolation="lanczos"),
    "box": Preprocessing(40, 9, interpolation="box", upright=True),
    "hamming": Preprocessing(200, 300, fit="letterbox", interpolation="hamming"),
    "nearest": Preprocessing(33, 21, fit="stretch", interpolation="nearest"),
    "line": Preprocessing(16, 48),
}


class Small(nn.Module):
    """A convolution, and as many numbers as are wanted for a picture, or for each of its columns."""

    def __init__(self, channels: int, numbers: int, columns: bool) -> None:
        super().__init__()
        self.conv, self.last, self.columns = nn.Conv2d(channels, 6, 3, 2, 1), nn.Conv2d(6, numbers, 1), columns

    def forward(self, x: Tensor) -> Tensor:
        y = self.last(self.conv(x).relu())
        return y.mean(2).transpose(1, 2).softmax(2) if self.columns else y.mean((2, 3))


def photos(home: Path) -> Path:
    """Two classes of cuts of photographs, of many sizes."""
    for name in ("china", "flower"):
        (home / name).mkdir(parents=True)
        photo = Image.fromarray(load_sample_image(f"{name}.jpg"))
        for number, (width, height) in enumerate([(61, 40), (33, 80), (24, 24), (300, 117), (50, 51)] * 2):
            photo.crop((9 * number, 5, 9 * number + width, 5 + height)).save(home / name / f"{number}.png")
    return home


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = photos(tmp_path_factory.mktemp("data") / "photos")
    listed = sorted(path.relative_to(home) for path in home.rglob("*.png"))
    (home / "labels.txt").write_text("".join(f"{path}\t{'ab '[n % 3]}a\n" for n, path in enumerate(listed)))
    (home / "alphabet.txt").write_text("a\nb\n ")
    return home


@pytest.fixture(scope="module")
def made(pictures: Path, tmp_path_factory: pytest.TempPathFactory):  # type: ignore[no-untyped-def]
    """A function from a way to place pictures and a runtime to a bundle and its data."""
    home = tmp_path_factory.mktemp("bundles")

    @kept
    def bundle(how: str, runtime: str = "onnxruntime", precision: str = "fp32") -> tuple[Bundle, Dataset]:
        torch.manual_seed(0)
        line = how == "line"
        data = text_lines(pictures, HOWS[how]) if line else image_folder(pictures, HOWS[how])
        net = capture(Small(data.image_shape[0], 4 if line else 2, line).eval(), data.image_shape)
        task: Task = Ctc(data.labels) if line else Classification(data.labels)
        with Workshop() as workshop:
            artefact = workshop.convert(net, runtime, precision, home / f"{how}-{runtime}-{precision}" / "a")  # type: ignore[arg-type]
        return bundled(artefact.copied(home / f"{how}-{runtime}-{precision}", "model"), data, task), data

    return bundle


def bundled(artefact, data: Dataset, task: Task) -> Bundle:  # type: ignore[no-untyped-def]
    """A bundle of which a kit reads the same as of one that shrink made."""
    manifest = example_manifest()
    side = manifest.result.model_copy(
        update={
            "precision": artefact.precision,
            "files": [path.name for path in artefact.files],
            "input_shapes": [list(shape) for shape in artefact.shapes],
            "output_shapes": [list(shape) for shape in artefact.output_shapes],
        }
    )
    update = {"runtime": artefact.runtime, "task": TaskCard.of(task), "data": DataCard.of(data), "result": side}
    return Bundle(artefact.files[0].parent, manifest.model_copy(update=update), example_recipe())


def selftest(folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "selftest.py"], cwd=folder, capture_output=True, text=True, check=False, env={"PATH": ""}
    )


@pytest.mark.parametrize(
    ("how", "runtime"),
    [("crop", "onnxruntime"), ("letterbox", "ncnn"), ("line", "onnxruntime"), ("box", "mnn"), ("stretch", "openvino")],
)
def test_the_python_kit_gives_what_the_artefact_gave(how: str, runtime: str, made, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    bundle, data = made(how, runtime)
    kit(bundle, "python", data, tmp_path / "kit")
    done = selftest(tmp_path / "kit")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count(", as expected") == data.size("calibration") == 2
    sample = tmp_path / "kit" / "samples" / "1.output0.bin"
    sample.write_bytes((2 * np.fromfile(sample, "<f4")).tobytes())
    spoilt = selftest(tmp_path / "kit")
    assert spoilt.returncode == 1 and spoilt.stdout.count("NOT as expected") == 1
