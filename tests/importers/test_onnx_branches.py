"""An If whose condition no image has a say in, as torch.onnx writes a squeeze: against ONNX Runtime."""

from collections.abc import Sequence
from pathlib import Path

import onnx
import pytest
import torch
from onnx import GraphProto, TensorProto, helper, numpy_helper
from torch import Tensor, nn

from onnx_files import apart, exported_by_torchscript, in_onnxruntime, saved
from slimwright.errors import ModelError, UnsupportedOp
from slimwright.importers.onnx import read_onnx
from slimwright.importers.onnx.file import read_file

CLOSE = 1e-5
WEIGHT = torch.randn(4, 3, 3, 3, generator=torch.Generator().manual_seed(0))


def branch(nodes: Sequence[onnx.NodeProto], output: str, weights: dict[str, Tensor] | None = None) -> GraphProto:
    stored = [numpy_helper.from_array(tensor.numpy(), name) for name, tensor in (weights or {}).items()]
    value = helper.make_tensor_value_info(output, TensorProto.FLOAT, None)
    return helper.make_graph(list(nodes), output, [], [value], stored)


def chosen(condition: str) -> onnx.NodeProto:
    """A convolution whose weights stand in the branch, or one whose weights stand around it."""
    inner = branch([helper.make_node("Conv", ["x", "own"], ["a"])], "a", {"own": WEIGHT * 2})
    outer = branch([helper.make_node("Relu", ["x"], ["r"]), helper.make_node("Conv", ["r", "w"], ["b"])], "b")
    return helper.make_node("If", [condition], ["y"], then_branch=inner, else_branch=outer)


class Squeezed(nn.Module):
    """What torch.onnx cannot know to be one without its size becomes an If."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.fc = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        pooled = self.conv(x).amax((2, 3), keepdim=True)
        result: Tensor = self.fc(pooled.squeeze(3).squeeze(2))
        return result


@pytest.mark.parametrize("says", [True, False])
def test_the_branch_that_a_stored_condition_chooses_is_read(says: bool, tmp_path: Path) -> None:
    weights = {"w": WEIGHT, "c": torch.tensor(says)}
    path = saved(tmp_path / "model.onnx", [chosen("c")], ["n", 3, 8, 8], weights)
    net, images = read_onnx(path), torch.randn(3, 3, 8, 8)
    assert apart(net.to_module()(images), in_onnxruntime(path, images)) <= CLOSE
    assert [node.op for node in net.nodes] == (["input", "conv2d"] if says else ["input", "relu", "conv2d"])


def test_a_condition_on_a_size_is_worked_out(tmp_path: Path) -> None:
    weights = {"w": WEIGHT, "at": torch.tensor(2), "eight": torch.tensor(8)}
    nodes = [
        helper.make_node("Shape", ["x"], ["s"]),
        helper.make_node("Gather", ["s", "at"], ["height"]),
        helper.make_node("Equal", ["height", "eight"], ["c"]),
        chosen("c"),
    ]
    path = saved(tmp_path / "model.onnx", nodes, ["n", 3, 8, 8], weights)
    net, images = read_onnx(path), torch.randn(2, 3, 8, 8)
    assert apart(net.to_module()(images), in_onnxruntime(path, images)) <= CLOSE


def test_a_squeeze_by_the_older_exporter_is_read(tmp_path: Path) -> None:
    path = exported_by_torchscript(Squeezed().eval(), tmp_path / "model.onnx", (3, 8, 8), dynamic=True, opset=11)
    images = torch.randn(2, 3, 8, 8)
    assert apart(read_onnx(path).to_module()(images), in_onnxruntime(path, images)) <= CLOSE


def test_names_of_a_branch_end_with_it(tmp_path: Path) -> None:
    again = branch([helper.make_node("Neg", ["x"], ["t"]), helper.make_node("Relu", ["t"], ["a"])], "a")
    one = helper.make_node("If", ["c"], ["p"], then_branch=again, else_branch=again)
    two = helper.make_node("If", ["c"], ["q"], then_branch=again, else_branch=again)
    nodes = [one, two, helper.make_node("Sub", ["p", "q"], ["d"]), helper.make_node("Add", ["d", "p"], ["y"])]
    path = saved(tmp_path / "model.onnx", nodes, ["n", 3], {"c": torch.tensor(True)})
    images = torch.randn(2, 3)
    assert torch.equal(read_onnx(path).to_module()(images), (-images).relu())


def test_a_condition_on_the_images_or_their_number_is_refused(tmp_path: Path) -> None:
    weights = {"w": WEIGHT, "at": torch.tensor(0), "one": torch.tensor(1)}
    count = [
        helper.make_node("Shape", ["x"], ["s"]),
        helper.make_node("Gather", ["s", "at"], ["n"]),
        helper.make_node("Equal", ["n", "one"], ["c"]),
        chosen("c"),
    ]
    with pytest.raises(UnsupportedOp, match=r"which way node 'y' \(If\) .* goes depends on the images"):
        read_onnx(saved(tmp_path / "model.onnx", count, ["n", 3, 8, 8], weights))
    looked = [helper.make_node("Cast", ["x"], ["c"], to=TensorProto.BOOL), chosen("c")]
    with pytest.raises(UnsupportedOp, match="which way"):
        read_onnx(saved(tmp_path / "looked.onnx", looked, ["n", 3, 8, 8], weights))


def test_an_if_that_lacks_something_is_refused(tmp_path: Path) -> None:
    whole = branch([helper.make_node("Neg", ["x"], ["a"])], "a")
    weights = {"c": torch.tensor(False)}
    with pytest.raises(ModelError, match="lacks a branch"):
        read_onnx(
            saved(tmp_path / "one.onnx", [helper.make_node("If", ["c"], ["y"], then_branch=whole)], ["n", 3], weights)
        )
    unknown = branch([helper.make_node("Neg", ["nowhere"], ["b"])], "b")
    node = helper.make_node("If", ["c"], ["y"], then_branch=whole, else_branch=unknown)
    with pytest.raises(ModelError, match="reads 'nowhere', which is no input"):
        read_onnx(saved(tmp_path / "two.onnx", [node], ["n", 3], weights))


def test_a_branch_in_float16_is_read_as_float32(tmp_path: Path) -> None:
    half = WEIGHT.half()
    inner = branch(
        [helper.make_node("Cast", ["x"], ["h"], to=TensorProto.FLOAT16), helper.make_node("Conv", ["h", "own"], ["a"]),
         helper.make_node("Cast", ["a"], ["f"], to=TensorProto.FLOAT)], "f", {"own": half},
    )  # fmt: skip
    node = helper.make_node("If", ["c"], ["y"], then_branch=inner, else_branch=inner)
    path = saved(tmp_path / "model.onnx", [node], ["n", 3, 8, 8], {"c": torch.tensor(True)})
    images = torch.randn(2, 3, 8, 8)
    assert read_file(path).in_half
    assert apart(read_onnx(path).to_module()(images), in_onnxruntime(path, images)) <= 5e-3  # float16's own rounding
