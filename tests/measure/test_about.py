"""What an app must know of a model lies beside it, and inside an ONNX or LiteRT file."""

import json
from dataclasses import replace
from pathlib import Path

import onnx
import pytest
import torch
from onnx import helper

from onnx_files import saved
from shared_workshop import shared_workshop
from slimwright.graph import Net
from slimwright.importers.onnx import read_onnx
from slimwright.measure import ABOUT, About
from slimwright.runtimes import Artefact, Precision
from slimwright.runtimes.known import installed
from slimwright.targets import Effort, Local, measure
from slimwright.tasks import Imitation
from slow import slow

ABOUT_IT = About(("cat", "dog"), {"mean": 0.5}, "classification", "Apache-2.0")


def test_names_labels_preprocessing_task_and_licence_are_written(tmp_path: Path) -> None:
    path = saved(
        tmp_path / "model.onnx", [helper.make_node("Conv", ["x", "w"], ["y"])], ["n", 1, 8, 8],
        {"w": torch.ones(4, 1, 3, 3)},
    )  # fmt: skip
    before = onnx.load(path).graph
    net = read_onnx(path)
    artefact = Artefact("onnxruntime", "fp32", (path,), shapes=((1, 1, 8, 8),), input_names=("x",), output_names=("y",))
    ABOUT_IT.put_into(artefact)
    ABOUT_IT.put_into(artefact)  # again changes nothing
    ABOUT_IT.write(net, artefact, tmp_path)
    model = onnx.load(path)
    assert model.graph == before
    assert {entry.key: entry.value for entry in model.metadata_props} == {
        "slimwright.labels": '["cat", "dog"]', "slimwright.preprocessing": '{"mean": 0.5}',
        "slimwright.task": "classification", "slimwright.license": "Apache-2.0",
    }  # fmt: skip
    assert json.loads((tmp_path / ABOUT).read_text()) == {
        "inputs": [{"name": "x", "shape": [1, 1, 8, 8], "dtype": "float32"}],
        "outputs": [{"name": "y", "shape": [1, 4, 6, 6], "dtype": "float32"}],
        "labels": ["cat", "dog"], "preprocessing": {"mean": 0.5}, "task": "classification", "license": "Apache-2.0",
    }  # fmt: skip


def test_an_input_says_which_of_its_sizes_are_free(tmp_path: Path) -> None:
    path = saved(
        tmp_path / "model.onnx", [helper.make_node("Conv", ["x", "w"], ["y"])], ["n", 1, "h", 8],
        {"w": torch.ones(4, 1, 3, 3)},
    )  # fmt: skip
    net = read_onnx(path, sizes=[(1, 8, 8)])
    fixed = Artefact("onnxruntime", "fp32", (path,), ((1, 1, 8, 8),), input_names=("x",), output_names=("y",))
    for free in ((), (("h", 8),)):
        ABOUT_IT.write(net, replace(fixed, free_sizes=free), tmp_path)
        (end,) = json.loads((tmp_path / ABOUT).read_text())["inputs"]
        said = {"free": [{"dimension": 2, "step": 1}]} if free else {}
        assert end == {"name": "x", "shape": [1, 1, 8, 8], "dtype": "float32", **said}


@pytest.mark.skipif(not installed("litert"), reason="LiteRT or its converter is not installed")
@pytest.mark.parametrize("precision", ["fp32", slow("fp16"), slow("int8")])
def test_a_tflite_file_holds_the_same_and_computes_as_before(
    residual: Net, tmp_path: Path, precision: Precision
) -> None:
    from slimwright.measure.tflite import held_in

    images = torch.randn(4, *residual.input.shape[1:])
    made = shared_workshop().convert(residual, "litert", precision, tmp_path / "made", calibration=[images])
    plain = made.copied(tmp_path, "plain")
    before = held_in(plain.files[0])
    ABOUT_IT.put_into(made)
    written = made.files[0].read_bytes()
    ABOUT_IT.put_into(made)
    assert made.files[0].read_bytes() == written  # again changes nothing
    assert held_in(made.files[0]) == before | {
        "slimwright.labels": b'["cat", "dog"]', "slimwright.preprocessing": b'{"mean": 0.5}',
        "slimwright.task": b"classification", "slimwright.license": b"Apache-2.0",
    }  # fmt: skip
    replace(ABOUT_IT, labels=("cat",)).put_into(made)
    assert held_in(made.files[0]) == held_in(plain.files[0]) | {
        "slimwright.labels": b'["cat"]', "slimwright.preprocessing": b'{"mean": 0.5}',
        "slimwright.task": b"classification", "slimwright.license": b"Apache-2.0",
    }  # fmt: skip
    assert 0 < made.size_bytes - plain.size_bytes < 4096
    assert all(start % 16 == 0 for start in weights_at(made.files[0]))
    effort = Effort(runs=1, warm_up=0, profile_runs=2)
    seen = measure(Local(), {"plain": plain, "made": made}, effort, inputs=[images])
    assert seen["plain"].outputs is not None and seen["made"].outputs is not None
    for mine, its in zip(seen["made"].outputs, seen["plain"].outputs, strict=True):
        assert torch.equal(mine, its)
    assert operators_of(made.files[0]) == operators_of(plain.files[0])  # XNNPACK takes the same of them


def weights_at(path: Path) -> list[int]:
    """Where a file holds the bytes of each buffer."""
    from ai_edge_litert.schema_py_generated import Model

    model = Model.GetRootAs(path.read_bytes(), 0)
    buffers = [model.Buffers(k) for k in range(model.BuffersLength())]
    return [buffer._tab.Vector(buffer._tab.Offset(4)) for buffer in buffers if buffer.DataLength()]


def operators_of(path: Path) -> list[str]:
    """What LiteRT runs, and what of it in the delegate."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(path), num_threads=1)
    interpreter.allocate_tensors()
    return [step["op_name"] for step in interpreter._get_ops_details()]


def test_what_is_not_known_is_left_out() -> None:
    assert About.of(None, Imitation((1.0,)), "") == About(task="imitation")
