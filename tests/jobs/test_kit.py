"""Kits: the code of each language for real artefacts, run where its tools are installed, else parsed."""

import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
import tree_sitter
import tree_sitter_kotlin
import tree_sitter_swift
from PIL import Image
from sklearn.datasets import load_sample_image
from torch import Tensor, nn

from dense_folders import box_home, mask_home, pair_home, point_table
from kits import bundled, cpp_program, loaded, rendered, replace_card, selftest
from shared_workshop import shared_workshop
from slimwright.cli.sources import load_data
from slimwright.data import (
    PARTS,
    ArrayData,
    Dataset,
    Preprocessing,
    StreamedData,
    image_folder,
    images_of,
    in_a_line,
    split,
    text_lines,
    whole,
)
from slimwright.errors import BundleError, DataError, RequestError
from slimwright.importers import capture
from slimwright.jobs.kit import Language, facts_of, kit
from slimwright.jobs.kit.samples import SAMPLES
from slimwright.measure import Bundle, DataCard, TaskCard
from slimwright.runtimes import Artefact, Workshop
from slimwright.tasks import (
    Classification,
    Ctc,
    Detection,
    Embedding,
    Imitation,
    Keypoints,
    MultiLabel,
    Outputs,
    Restoration,
    Segmentation,
    Task,
    forward_of,
    task_for,
)
from slimwright.tasks.keypoints import peaks

Made = Callable[..., tuple[Bundle, Dataset]]
CROP = Preprocessing(24, 24, crop_share=0.875, interpolation="bicubic")
HOWS = {
    "crop": CROP,
    "letterbox": Preprocessing(16, 32, fit="letterbox", channels="BGR", fill=114, mean=(0.0,), std=(1.0,)),
    "stretch": Preprocessing(24, 20, fit="stretch", channels="grey", mean=(0.4,), std=(0.3,), interpolation="lanczos"),
    "box": Preprocessing(40, 9, interpolation="box", upright=True),
    "hamming": Preprocessing(200, 300, fit="letterbox", interpolation="hamming"),
    "nearest": Preprocessing(33, 21, fit="stretch", interpolation="nearest"),
    "cut": Preprocessing(40, 60, fit="cut", fill=9),
    "line": in_a_line(16, 48),
}


class Small(nn.Module):
    """A convolution, and as many numbers as are wanted for a picture, or for each of its columns."""

    def __init__(self, channels: int, numbers: int, columns: bool) -> None:
        super().__init__()
        self.conv, self.last, self.columns = nn.Conv2d(channels, 6, 3, 2, 1), nn.Conv2d(6, numbers, 1), columns

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.last(self.conv(x).relu())
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
def made(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Made]:
    """A function from a way to place pictures and a runtime to a bundle and its data; each is converted once."""
    with Workshop() as workshop:

        @cache
        def bundle(how: str, runtime: str = "onnxruntime") -> tuple[Bundle, Dataset]:
            torch.manual_seed(0)
            data: Dataset = text_lines(pictures, HOWS[how]) if how == "line" else image_folder(pictures, HOWS[how])
            channels, numbers = data.image_shape[0], 4 if how == "line" else 2
            net = capture(Small(channels, numbers, columns=how == "line").eval(), data.image_shape)
            task: Task = Ctc(data.labels) if how == "line" else Classification(data.labels)
            folder = tmp_path_factory.mktemp(f"{how}-{runtime}")
            artefact = workshop.convert(net, runtime, "fp32", folder / "made").copied(folder, "model")
            return bundled(artefact, data, task), data

        yield bundle


@pytest.mark.parametrize(("how", "runtime"), [("crop", "onnxruntime"), ("letterbox", "ncnn"), ("line", "onnxruntime")])
def test_the_python_kit_gives_what_the_artefact_gave(how: str, runtime: str, made: Made, tmp_path: Path) -> None:
    bundle, data = made(how, runtime)
    kit(bundle, "python", data, tmp_path / "kit")
    done = selftest(tmp_path / "kit")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count(", as expected") == min(SAMPLES, data.size("calibration")) >= 2
    sample = tmp_path / "kit" / "samples" / "1.output0.bin"
    sample.write_bytes((2 * np.fromfile(sample, "<f4")).tobytes())
    spoilt = selftest(tmp_path / "kit")
    assert spoilt.returncode == 1 and spoilt.stdout.count("NOT as expected") == 1


@pytest.mark.parametrize("how", sorted(HOWS))
def test_the_python_kit_preprocesses_as_the_data_set_did(how: str, pictures: Path, tmp_path: Path) -> None:
    """Up to float32 rounding; on every picture, with any fit and filter."""
    line = how == "line"
    data = text_lines(pictures, HOWS[how]) if line else image_folder(pictures, HOWS[how])
    code = rendered(replace_card(shell(data), data), "python")["predictor.py"]
    (tmp_path / "predictor.py").write_text(code)
    preprocessed = loaded(tmp_path)["preprocessed"]
    share = data.shares["train"]
    assert share.pictures is not None
    (inputs, _) = whole(data, "train")
    for image, number in zip(images_of(inputs), share.numbers, strict=True):
        assert np.allclose(preprocessed(pictures / share.pictures[1][number])[0], image.numpy(), atol=1e-5)


READER = """
#include <cstdio>

#include "predictor.hpp"

int main(int count, char** words) {
    for (int k = 1; k < count; ++k) {
        const auto picture = slimwright::read_ppm(words[k]);
        for (float value : slimwright::preprocessed(picture)) std::printf("%.9g\\n", value);
    }
}
"""


@pytest.mark.parametrize("how", sorted(HOWS))
def test_the_cpp_kit_preprocesses_as_the_data_set_did(how: str, pictures: Path, tmp_path: Path) -> None:
    """Up to float32 rounding; with any fit and filter."""
    line = how == "line"
    data = text_lines(pictures, HOWS[how]) if line else image_folder(pictures, HOWS[how])
    main = cpp_program(tmp_path, rendered(replace_card(shell(data), data), "cpp"), READER)
    for number, (_, path) in enumerate(data.pictures("train", 5)):
        with Image.open(path) as image:
            image.convert("RGB").save(tmp_path / f"{number}.ppm")
    names = [f"{number}.ppm" for number in range(5)]
    done = subprocess.run([str(main), *names], cwd=tmp_path, capture_output=True, text=True, check=True)
    found = np.array(done.stdout.split(), np.float64).reshape(5, *data.image_shape)
    inputs, _ = next(data.batches("train", 5))
    assert np.allclose(found, images_of(inputs).numpy(), atol=1e-5)


def shell(data: Dataset) -> Bundle:
    """A bundle that names an artefact which is not there."""
    shape = (1, *data.image_shape)
    return bundled(Artefact("onnxruntime", "fp32", (Path("model.onnx"),), (shape,), ((1, 2),)), data, Imitation((1.0,)))


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The command that builds with CMake and ncnn; skips where they are not installed."""
    home = tmp_path_factory.mktemp("probe")
    (home / "CMakeLists.txt").write_text(
        "cmake_minimum_required(VERSION 3.16)\nproject(a CXX)\nfind_package(ncnn REQUIRED)"
    )
    if shutil.which("cmake") is None:
        pytest.skip("cmake is not installed")
    if subprocess.run(["cmake", "-B", "b", "."], cwd=home, capture_output=True, check=False).returncode:
        pytest.skip("CMake finds no compiler or no ncnn (Debian's libncnn-dev)")
    return ["sh", "-c", "cmake -B build . && cmake --build build && build/selftest ."]


@pytest.fixture(scope="module")
def installed_onnxruntime(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The command that builds with CMake and the library of Python's package; skips without the header of its C API."""
    home = tmp_path_factory.mktemp("onnxruntime")
    probe = "cmake_minimum_required(VERSION 3.18)\nproject(a CXX)\n"
    probe += "find_path(HEADERS onnxruntime_c_api.h PATH_SUFFIXES onnxruntime REQUIRED)"
    (home / "CMakeLists.txt").write_text(probe)
    if shutil.which("cmake") is None:
        pytest.skip("cmake is not installed")
    if subprocess.run(["cmake", "-B", "b", "."], cwd=home, capture_output=True, check=False).returncode:
        pytest.skip("CMake finds no compiler or no onnxruntime_c_api.h (of ONNX Runtime's release for C)")
    libraries = sorted((Path(onnxruntime.__file__).parent / "capi").glob("libonnxruntime.so.*"))
    if not libraries:
        pytest.skip("the package onnxruntime holds no library of its own")
    (home / "lib").mkdir()
    for name in ("libonnxruntime.so", "libonnxruntime.so.1"):
        (home / "lib" / name).symlink_to(libraries[0])
    return ["sh", "-c", f"cmake -B build -DONNXRUNTIME={home} . && cmake --build build && build/selftest ."]


def assert_cpp_passes(bundle: Bundle, data: Dataset, command: list[str], home: Path) -> None:
    """The kit is built and tests itself by a command, every sample within rounding."""
    kit(bundle, "cpp", data, home)
    done = subprocess.run(command, cwd=home, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    errors = [float(found) for found in re.findall(r"error (\S+), as expected", done.stdout)]
    assert len(errors) == min(SAMPLES, data.size("calibration")) and max(errors) < 1e-5


@pytest.mark.parametrize("how", ["letterbox", "line"])
def test_the_cpp_kit_runs_with_onnxruntime(
    how: str, made: Made, installed_onnxruntime: list[str], tmp_path: Path
) -> None:
    assert_cpp_passes(*made(how, "onnxruntime"), installed_onnxruntime, tmp_path / "kit")


@pytest.mark.parametrize("how", ["letterbox", "crop", "line"])
def test_the_cpp_kit_gives_what_the_artefact_gave(how: str, made: Made, installed: list[str], tmp_path: Path) -> None:
    assert_cpp_passes(*made(how, "ncnn"), installed, tmp_path / "kit")


@pytest.mark.parametrize(
    ("language", "runtime", "grammar"),
    [
        ("android", "onnxruntime", tree_sitter_kotlin),
        ("android", "litert", tree_sitter_kotlin),
        ("android", "executorch", tree_sitter_kotlin),
        ("ios", "onnxruntime", tree_sitter_swift),
        ("ios", "executorch", tree_sitter_swift),
    ],
)
def test_kotlin_and_swift_are_what_their_parsers_read(
    language: Language, runtime: str, grammar: Any, pictures: Path
) -> None:
    parser = tree_sitter.Parser(tree_sitter.Language(grammar.language()))
    tasks: list[Task] = [Classification(("a", "b")), MultiLabel(("a", "b")), Embedding(Imitation((1.0,))), Ctc(("a",))]
    for how, task in [*((how, tasks[0]) for how in sorted(HOWS)), *(("crop", task) for task in tasks)]:
        data = text_lines(pictures, HOWS[how]) if how == "line" else image_folder(pictures, HOWS[how])
        found = replace_card(shell(data), data, runtime=runtime, task=TaskCard.of(task))
        for name, code in rendered(found, language).items():
            if not name.endswith(".md"):
                assert not parser.parse(code.encode()).root_node.has_error, f"{name}, {how}, {task.name}"


@pytest.mark.parametrize(
    ("task", "outputs", "answer"),
    [
        (Classification(("a", "b", "c")), np.array([[1.0, 3.0, 3.0]]), [("b", 3.0), ("c", 3.0), ("a", 1.0)]),
        (MultiLabel(("a", "b", "c")), np.array([[1.0, -3.0, 0.1]]), ["a", "c"]),
        (Ctc(("a", "b")), np.eye(3)[[1, 1, 0, 1, 2, 2]][None], "aab"),
        (Embedding(Imitation((1.0,))), np.array([[3.0, 4.0]]), [0.6, 0.8]),
    ],
)
def test_the_answer_is_what_the_task_means(task: Task, outputs: Any, answer: object, tmp_path: Path) -> None:
    labels = getattr(task, "alphabet", getattr(task, "labels", getattr(task, "classes", ())))
    images = torch.zeros(20, 3, 8, 8)
    targets = torch.zeros(20, dtype=torch.int64)
    data = ArrayData("things", labels, split(images, targets, seed=0), {"layout": "NCHW"})
    found = bundled(
        Artefact("onnxruntime", "fp32", (Path("model.onnx"),), ((1, 3, 8, 8),), (outputs.shape,)), data, task
    )
    (tmp_path / "predictor.py").write_text(rendered(found, "python")["predictor.py"])
    predictor = loaded(tmp_path)["Predictor"]
    net = predictor.__new__(predictor)
    net.labels = list(labels)
    said = net.answer([outputs])
    assert said == pytest.approx(answer) if isinstance(said, np.ndarray) else said == answer
    assert "def predict" not in (tmp_path / "predictor.py").read_text()  # it does not know how a picture is read


class Detector(nn.Module):
    """Two classes and a box for each cell of four pixels, as an exported YOLO gives them: [N, 4 + K, A]."""

    def __init__(self, height: int, width: int) -> None:
        super().__init__()
        self.body, self.head = nn.Sequential(nn.Conv2d(3, 12, 7, 4, 3), nn.ReLU()), nn.Conv2d(12, 6, 1)
        line, column = torch.meshgrid(torch.arange(height // 4), torch.arange(width // 4), indexing="ij")
        self.register_buffer("grid", torch.stack([column, line]).float()[None])

    def forward(self, x: Tensor) -> Tensor:
        grid = self.get_buffer("grid")
        shares = (self.head(self.body(x)) + 1e-3 * (grid[:, :1] + 20 * grid[:, 1:])).sigmoid()  # no two are equal
        centre = 4 * (grid + shares[:, :2])
        return torch.cat([centre, 4 + 12 * shares[:, 2:4], shares[:, 4:]], 1).flatten(2)


def dense(stride: int, *last: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 12, 3, stride, 1), nn.ReLU(), *last)


REAL: dict[str, tuple[Callable[[Path], str], Callable[[], nn.Module]]] = {  # data, and a net for it
    "segmentation": (lambda home: f"masks:{mask_home(home)}@24x36", lambda: dense(2, nn.Conv2d(12, 3, 1))),
    "restoration": (
        lambda home: f"pairs:{pair_home(home)}@16x20",
        lambda: dense(1, nn.Conv2d(12, 12, 3, 1, 1), nn.PixelShuffle(2)),
    ),
    "keypoints": (lambda home: f"points:{point_table(home)}@24x36", lambda: dense(2, nn.Conv2d(12, 2, 1))),
    "detection": (lambda home: f"yolo:{box_home(home)}@32x48", lambda: Detector(32, 48)),
}


@pytest.mark.parametrize("kind", REAL)
def test_the_answer_for_a_picture_is_what_the_task_makes_of_it(kind: str, tmp_path: Path) -> None:
    described, net = REAL[kind][0](tmp_path / "data"), REAL[kind][1]().eval()
    data = load_data(described)
    assert isinstance(data, StreamedData)
    forward = forward_of(net)
    task = task_for(data, [tuple(output.shape) for output in forward(torch.zeros(1, *data.image_shape))], forward)
    captured = capture(net, data.image_shape)
    artefact = shared_workshop().convert(captured, "onnxruntime", "fp32", tmp_path / "made")
    (tmp_path / "b").mkdir()
    kit(bundled(artefact.copied(tmp_path / "b", "model"), data, task), "python", data, tmp_path / "kit")
    assert (tmp_path / "kit" / "samples" / "0.png").exists() and selftest(tmp_path / "kit").returncode == 0
    module = loaded(tmp_path / "kit")
    predictor = module["Predictor"]()
    inputs, _ = next(data.batches("calibration", SAMPLES))
    for number, (_, path) in enumerate(data.pictures("calibration", SAMPLES)):
        outputs = tuple(torch.from_numpy(output) for output in predictor.run(module["preprocessed"](path)))
        assert torch.allclose(outputs[0], forward(images_of(inputs)[number : number + 1])[0], atol=1e-4)
        assert_answers(task, outputs, predictor.predict(path), described, path)
        assert_answers(task, outputs, predictor.predict(Image.open(path)), described, path)


def assert_answers(task: Task, outputs: Outputs, found: Any, described: str, path: Path) -> None:
    """That an answer is the task's, up to float32 rounding, in pixels of the picture."""
    height, width = map(int, described.rpartition("@")[2].split("x"))
    with Image.open(path) as image:
        size = image.size
    if isinstance(task, Segmentation):
        assert found.shape == (height, width) and task.score(outputs, torch.from_numpy(found)[None]) > 99.9
    elif isinstance(task, Restoration):
        assert found.shape == (2 * height, 2 * width, 3)
        wanted = torch.from_numpy(found).permute(2, 0, 1)[None] / 255
        assert task.score(outputs, wanted) > 54  # rounded to whole levels, and nothing else
    elif isinstance(task, Keypoints):
        where = Preprocessing(height, width).placement(*size)
        points = where.moved(np.array([point[1:3] for point in found]))
        assert task.score(outputs, torch.from_numpy(np.insert(points, 2, 1, 1))[None]) == 100
        assert np.allclose(points, peaks(outputs[0])[0].numpy() * [width / 18, height / 12], atol=1e-3)
    else:
        assert isinstance(task, Detection) and task.said == "read as: YOLO anchor-free, 2 classes, in pixels"
        (rows,) = task.form.decode(outputs)
        rows = rows[rows[:, 4] > 0.25]
        where = Preprocessing(height, width, fit="letterbox").placement(*size)
        assert len(rows) > 5 and [row[0] for row in found] == [("grey", "red")[int(kind)] for kind in rows[:, 5]]
        assert [row[1] for row in found] == pytest.approx(rows[:, 4].tolist(), abs=1e-5)
        corners = where.moved(np.array([row[2] for row in found]).reshape(-1, 2, 2))
        assert np.allclose(corners.reshape(-1, 4), rows[:, :4].numpy(), atol=1e-3)


def test_data_without_pictures_gives_samples_of_what_the_network_reads(made: Made, tmp_path: Path) -> None:
    bundle, data = made("crop")
    parts = {part: whole(data, part) for part in PARTS}
    plain = ArrayData(data.name, data.labels, parts, data.preprocessing)
    kit(bundle, "python", plain, tmp_path / "kit")
    assert (tmp_path / "kit" / "samples" / "0.input.bin").stat().st_size == 4 * 3 * 24 * 24
    assert selftest(tmp_path / "kit").returncode == 0


def test_what_cannot_be_made_is_told(made: Made, tmp_path: Path) -> None:
    bundle, data = made("crop")
    with pytest.raises(RequestError, match=r"no kit in Swift for LiteRT .*; there is for ONNX Runtime"):
        facts_of(replace_card(bundle, data, runtime="litert"), "ios")
    side = bundle.manifest.result
    bad = side.model_copy(update={"files": ['model.x");evil("']})
    with pytest.raises(BundleError, match="is not a name that slimwright gives"):
        facts_of(replace_card(bundle, data, result=bad), "python")
    with pytest.raises(RequestError, match="a kit is made for nets that read one picture"):
        facts_of(replace_card(bundle, data, result=side.model_copy(update={"input_shapes": [[1, 3], [1, 3]]})), "cpp")
    card = DataCard.of(data).model_copy(update={"preprocessing": {**data.preprocessing, "mean": ["1;evil"]}})
    with pytest.raises(DataError, match=r"the record: mean\.0 is"):
        facts_of(replace_card(bundle, data, data=card), "python")
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "README.md").write_text("mine")
    with pytest.raises(RequestError):
        kit(bundle, "python", data, tmp_path / "notes")
    assert (tmp_path / "notes" / "README.md").read_text() == "mine"
