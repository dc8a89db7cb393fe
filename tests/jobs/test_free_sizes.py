"""Artefacts of a model whose file leaves its height and width free."""

import json
from pathlib import Path

import onnxruntime as ort
import pytest
import torch
from onnx import helper
from torch import Tensor

from onnx_files import apart, saved
from proofs import skip_if_saturating
from scripted_target import Scripted
from shared_workshop import shared_workshop
from slimwright import Budget, Settings, shrink
from slimwright.data import ArrayData
from slimwright.graph import load_net
from slimwright.importers.onnx import read_onnx
from slimwright.jobs.export import Export, Request, Wanted, export
from slimwright.measure import original_file
from slimwright.targets import Effort
from slimwright.tasks import Imitation

SHORT = Effort(runs=2, warm_up=1)
WANTED: tuple[Wanted, ...] = (
    ("onnxruntime", "fp32"),
    ("onnxruntime", "fp16"),
    ("onnxruntime", "int8"),
    ("ort", "fp32"),
)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Down, up by two straight lines, and beside what was before; a head of the whole picture gates it."""
    torch.manual_seed(1)
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("MaxPool", ["b"], ["c"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Conv", ["c", "v"], ["d"], pads=[1, 1, 1, 1]),
        helper.make_node("Resize", ["d", "", "s"], ["e"], mode="linear", coordinate_transformation_mode="half_pixel"),
        helper.make_node("Concat", ["b", "e"], ["f"], axis=1),
        helper.make_node("GlobalAveragePool", ["f"], ["g"]),
        helper.make_node("Sigmoid", ["g"], ["h"]),
        helper.make_node("Mul", ["f", "h"], ["i"]),
        helper.make_node("Conv", ["i", "u"], ["y"], pads=[1, 1, 1, 1]),
    ]
    weights = {
        "w": torch.randn(8, 3, 3, 3) / 5, "v": torch.randn(8, 8, 3, 3) / 9, "u": torch.randn(2, 16, 3, 3) / 12,
        "s": torch.tensor([1.0, 1.0, 2.0, 2.0]),
    }  # fmt: skip
    return saved(tmp_path_factory.mktemp("free") / "m.onnx", nodes, ["n", 3, "h", "w"], weights)


def pictures(count: int) -> ArrayData:
    parts: dict[str, tuple[Tensor, Tensor]] = {
        part: (torch.randn(count, 3, 16, 16, generator=torch.Generator().manual_seed(k)), torch.zeros(count).long())
        for k, part in enumerate(("train", "calibration", "validation", "test"))
    }
    return ArrayData("made up", ("only",), parts)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def found(path: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Export, Path]:
    out, original, data = tmp_path_factory.mktemp("free") / "out", original_file(path, [(3, 16, 16)]), pictures(6)
    request = Request((*WANTED, ("mnn", "fp32")), effort=SHORT, rounds=1, workshop=shared_workshop())
    return export(original, request, data=data, out=out, task=Imitation((1.0,))), out


@pytest.mark.parametrize("wanted", WANTED)
def test_an_artefact_takes_other_sizes(found: tuple[Export, Path], path: Path, wanted: tuple[str, str]) -> None:
    (one,) = [each for each in found[0].artefacts if (each.runtime, each.precision) == wanted]
    sizes = [note for note in one.notes if "takes others in steps of 2 too" in note]
    varies = [note for note in one.notes if "another export gives other bytes" in note]
    assert one.passed and len(sizes) == 2 and len(varies) == (wanted[0] == "ort") == len(one.notes) - 2
    folder = found[1] / "-".join(wanted)
    about = json.loads((folder / "about.json").read_text())
    assert about["inputs"][0]["free"] == [{"dimension": 2, "step": 2}, {"dimension": 3, "step": 2}]
    skip_if_saturating(*wanted)
    net = read_onnx(path, sizes=[(3, 16, 16)])
    session = ort.InferenceSession(str(next(folder.glob("model.*"))), providers=["CPUExecutionProvider"])
    for size in ((16, 16), (10, 24), (32, 18)):
        images = torch.randn(1, 3, *size)
        with torch.no_grad():
            expected = net.to_module()(images)
        made = torch.from_numpy(session.run(None, {"x": images.numpy()})[0])
        assert apart(made, expected) < {"fp32": 1e-5, "fp16": 1e-2, "int8": 0.3}[wanted[1]]


def test_what_other_runtimes_fix_is_told(found: tuple[Export, Path]) -> None:
    (one,) = [each for each in found[0].artefacts if each.runtime == "mnn"]
    if not one.passed:
        pytest.skip(one.why)
    assert one.notes == [
        f"free size '{n}': it is 16 in the artefact: those of MNN (.mnn) have fixed sizes" for n in "hw"
    ]
    assert "free" not in json.loads((found[1] / "mnn-fp32" / "about.json").read_text())["inputs"][0]


def test_a_smaller_model_takes_other_sizes_and_the_report_says_so(path: Path, cache: Path, tmp_path: Path) -> None:
    board = Scripted(whole_ms=lambda turn, _: sum(layer.weights for layer in turn.model.layers) / 1000)
    settings = Settings(tune_epochs=0, cache=cache, workshop=shared_workshop(), target=board)
    budget = Budget(macs="0.7x", max_drop=100)
    original, task = original_file(path, [(3, 16, 16)]), Imitation((1.0,))
    bundle = shrink(original, data=pictures(64), budget=budget, out=tmp_path / "b", task=task, settings=settings)
    decisions = {one.what: one for one in bundle.manifest.decisions}
    assert [decisions[f"free size '{name}'"].outcome for name in "hw"] == ["kept", "kept"]
    net = load_net(bundle.path / "net")
    assert bundle.manifest.result.macs < bundle.manifest.original.macs and net.ends is not None
    assert [(size.name, size.step) for size in net.ends.free] == [("h", 2), ("w", 2)]
    session = ort.InferenceSession(str(bundle.path / "model.onnx"), providers=["CPUExecutionProvider"])
    for size in ((16, 16), (10, 24), (32, 18)):
        images = torch.randn(3, 3, *size)
        with torch.no_grad():
            expected = net.to_module()(images)
        limit = 1e-5 if bundle.manifest.result.precision == "fp32" else 0.3
        assert apart(torch.from_numpy(session.run(None, {"x": images.numpy()})[0]), expected) < limit
