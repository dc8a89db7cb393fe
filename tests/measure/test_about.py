"""What an app must know of a model lies beside it, and inside an ONNX file."""

import json
from pathlib import Path

import onnx
import torch
from onnx import helper

from onnx_files import saved
from slimwright.importers.onnx import read_onnx
from slimwright.measure import ABOUT, About
from slimwright.runtimes import Artefact
from slimwright.tasks import Imitation

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


def test_what_is_not_known_is_left_out() -> None:
    assert About.of(None, Imitation((1.0,)), "") == About(task="imitation")
