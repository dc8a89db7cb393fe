"""However a file stores its weights, the net is the same."""

from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.transformers.float16 import convert_float_to_float16
from torch import Tensor, nn
from torch.nn import functional as F

from example_nets import SHAPE, hand_made, lively
from onnx_files import apart, exported, exported_by_torchscript, in_onnxruntime, saved
from slimwright.cost import count
from slimwright.coupling import couple
from slimwright.errors import ModelError, UnsupportedOp
from slimwright.importers import capture, read_file, read_onnx
from slimwright.measure import expected_of, original_file


def with_constant_nodes(path: Path, to: Path) -> Path:
    """The same model, its initializers in Constant nodes, as PaddlePaddle's exporter writes them."""
    model = onnx.load(path)
    nodes = [helper.make_node("Constant", [], [tensor.name], value=tensor) for tensor in model.graph.initializer]
    nodes += list(model.graph.node)
    del model.graph.initializer[:], model.graph.node[:]
    model.graph.node.extend(nodes)
    onnx.save(model, to)
    return to


@pytest.mark.parametrize("name", ["Residual", "Concat"])
def test_weights_in_constant_nodes_are_weights(name: str, tmp_path: Path) -> None:
    path = exported(hand_made(name), tmp_path / "model.onnx", SHAPE, dynamic=True)
    net, other = read_onnx(path), read_onnx(with_constant_nodes(path, tmp_path / "constants.onnx"))
    assert other.digest == net.digest
    assert count(other).params == count(net).params
    trained = [sum(p.numel() for p in n.to_module().parameters() if p.requires_grad) for n in (net, other)]
    assert trained[0] == trained[1] > 0


def test_one_number_in_a_constant_node_is_no_weight(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Constant", [], ["half"], value=numpy_helper.from_array(torch.tensor(0.5).numpy())),
        helper.make_node("Mul", ["x", "half"], ["y"]),
    ]
    net = read_onnx(saved(tmp_path / "model.onnx", nodes, ["n", 3]))
    assert not list(net.to_module().parameters())


@pytest.mark.parametrize(("opset", "outputs"), [(7, 5), (9, 5), (9, 3), (12, 2), (13, 5), (14, 3), (15, 3)])
def test_a_batch_norm_that_trains_is_refused_in_every_opset(opset: int, outputs: int, tmp_path: Path) -> None:
    """Before opset 14 the number of outputs alone says so, whether or not anything reads them."""
    made = ["y", "mean", "variance", "seen mean", "seen variance"][:outputs]
    options: dict[str, Any] = {"training_mode": 1} if opset >= 14 else {}
    node = helper.make_node("BatchNormalization", ["x", "g", "b", "m", "v"], made, **options)
    weights = dict.fromkeys("gbmv", torch.rand(4))
    with pytest.raises(UnsupportedOp, match="it takes its statistics from the batch"):
        read_onnx(saved(tmp_path / "model.onnx", [node], ["n", 4, 5, 5], weights, opset=opset))


def test_a_batch_norm_with_one_output_is_read(tmp_path: Path) -> None:
    node = helper.make_node("BatchNormalization", ["x", "g", "b", "m", "v"], ["y"])
    path = saved(tmp_path / "model.onnx", [node], ["n", 4, 5, 5], dict.fromkeys("gbmv", torch.rand(4)), opset=9)
    x = torch.randn(2, 4, 5, 5)
    assert apart(read_onnx(path).run(x)[0], in_onnxruntime(path, x)) <= 1e-5


def test_a_file_that_computes_in_float16_is_read_as_float32(tmp_path: Path) -> None:
    """To 1e-6 of what the float32 net gives whose weights are rounded to float16; its ends are float32."""
    model = lively(hand_made("Residual"))
    path = exported(model, tmp_path / "model.onnx", SHAPE, dynamic=True)
    halved = tmp_path / "half.onnx"
    onnx.save(convert_float_to_float16(onnx.load(path), keep_io_types=True), halved)
    net, images = read_onnx(halved), torch.randn(3, *SHAPE)
    assert read_file(halved).in_half and not read_file(path).in_half
    assert {t.dtype for t in net.tensors.values() if t.is_floating_point()} == {torch.float32}
    rounded = model.half().float()
    assert apart(net.run(images)[0], rounded(images)) <= 1e-4
    original = original_file(halved)
    assert original.net.digest == net.digest and original.tolerance > 1e-3
    assert apart(original.forward(images)[0], rounded(images)) <= 0.02
    assert torch.equal(expected_of(original, images)[0], net.run(images)[0])  # what a float32 artefact must give
    whole = original_file(path)
    assert torch.equal(expected_of(whole, images)[0], whole.forward(images)[0])


def test_weights_in_float16_that_are_cast_are_read(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Cast", ["w"], ["wide"], to=TensorProto.FLOAT),
        helper.make_node("MatMul", ["x", "wide"], ["y"]),
    ]
    weight = torch.randn(4, 3).half()
    path = saved(tmp_path / "model.onnx", nodes, ["n", 4], {"w": weight})
    x = torch.randn(2, 4)
    assert apart(read_onnx(path).run(x)[0], x @ weight.float()) <= 1e-6


def test_a_float16_input_is_refused_with_what_to_do(tmp_path: Path) -> None:
    path = exported(hand_made("Residual"), tmp_path / "model.onnx", SHAPE, dynamic=True)
    onnx.save(convert_float_to_float16(onnx.load(path)), path)
    with pytest.raises(ModelError, match=r"is float16.*export the float32 model"):
        read_onnx(path)


class Blurred(nn.Module):
    """Two blurs by equal kernels, which exporters store once."""

    first: Tensor
    second: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.last = nn.Conv2d(1, 8, 3, padding=1), nn.Conv2d(8, 8, 3), nn.Conv2d(8, 4, 1)
        line = torch.tensor([1.0, 2.0, 1.0]) / 4
        self.register_buffer("first", (line[:, None] * line).repeat(8, 1, 1, 1))
        self.register_buffer("second", self.first.clone())

    def forward(self, x: Tensor) -> Tensor:
        for conv, kernel in ((self.one, self.first), (self.two, self.second)):
            x = F.conv2d(F.relu(conv(x)), kernel, padding=1, groups=8)
        return self.last(x).mean((2, 3))  # type: ignore[no-any-return]


@pytest.mark.parametrize("export", [exported, exported_by_torchscript])
def test_a_kernel_that_is_the_same_for_every_channel_ties_no_layers(export: object, tmp_path: Path) -> None:
    assert callable(export)
    model = lively(Blurred())
    net = read_onnx(export(model, tmp_path / "model.onnx", (1, 12, 12), dynamic=True))
    assert len(couple(net).groups) == len(couple(capture(model, (1, 12, 12))).groups) == 2
    images = torch.randn(2, 1, 12, 12)
    assert apart(net.run(images)[0], model(images)) <= 1e-5


def test_a_layer_that_is_called_twice_stays_one(tmp_path: Path) -> None:
    net = read_onnx(exported(hand_made("Twice"), tmp_path / "model.onnx", SHAPE, dynamic=True))
    owned = [net.key(node, "weight") for node in net.weighted()]
    assert len(set(owned)) < len(owned)


def test_nodes_in_any_order_are_sorted(tmp_path: Path) -> None:
    """Some converters append what they add, and ONNX Runtime does not mind."""
    path = exported(hand_made("Residual"), tmp_path / "model.onnx", SHAPE, dynamic=True)
    model, net = onnx.load(path), read_onnx(path)
    nodes = list(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend(nodes[::-1])
    onnx.save(model, path)
    images = torch.randn(2, *SHAPE)
    assert torch.equal(read_onnx(path).run(images)[0], net.run(images)[0])


@pytest.mark.parametrize("location", ["model.onnx.data", "weights.bin"])
def test_weights_in_a_file_of_their_own_are_compared_and_run(location: str, tmp_path: Path) -> None:
    model = lively(hand_made("Residual"))
    path = exported(model, tmp_path / "whole.onnx", SHAPE, dynamic=True)
    apart_from_it = tmp_path / "model.onnx"
    onnx.save(onnx.load(path), apart_from_it, save_as_external_data=True, location=location, size_threshold=0)
    original, images = original_file(apart_from_it), torch.randn(2, *SHAPE)
    assert original.net.digest == read_onnx(path).digest
    assert apart(original.forward(images)[0], model(images)) <= 1e-5


def test_an_input_that_nothing_reads_is_not_asked_for(tmp_path: Path) -> None:
    path = exported(lively(hand_made("Residual")), tmp_path / "whole.onnx", SHAPE, dynamic=True)
    model = onnx.load(path)
    model.graph.input.append(helper.make_tensor_value_info("sizes", TensorProto.FLOAT, ["n", 2]))
    model.graph.node.append(helper.make_node("Relu", ["sizes"], ["to nowhere"]))
    with_it = tmp_path / "model.onnx"
    onnx.save(model, with_it)
    original, images = original_file(with_it), torch.randn(2, *SHAPE)
    assert len(original.net.inputs) == 1
    assert torch.equal(original.forward(images)[0], original_file(path).forward(images)[0])
