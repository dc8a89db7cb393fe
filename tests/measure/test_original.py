"""The original is the model as the user gave it: what was read wrongly is an error."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from example_nets import SHAPE, hand_made
from slimwright.data import Inputs, tensors_of
from slimwright.errors import ModelError
from slimwright.graph import random_inputs
from slimwright.importers import capture
from slimwright.measure.original import QUANTIZED_TOLERANCE, compared, expected_of, original_file, original_of


def test_a_module_is_compared_with_itself_and_run_in_torch() -> None:
    module = hand_made("Residual").eval()
    original = original_of(module, [SHAPE])
    images = torch.randn(5, *SHAPE, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        assert torch.equal(original.forward(images)[0], module(images))
    assert original.framework == "torch" and original.output_shapes == [(1, 3)]


def test_a_net_that_differs_from_the_model_is_refused_with_the_output_named() -> None:
    original = original_of(hand_made("Residual"), [SHAPE])
    (name,) = original.net.outputs
    layer = next(original.net.weighted())
    weight = layer.tensors["weight"]
    wrong = original.net.edited(tensors={weight: original.net.tensors[weight] * 1.01})
    with pytest.raises(ModelError, match=rf"output '{name}' differs from torch's by 0\.0\d+ of its largest value"):
        compared(replace(original, net=wrong))
    barely = original.net.edited(tensors={weight: original.net.tensors[weight] * (1 + 1e-7)})
    assert compared(replace(original, net=barely)).net is barely


def test_values_that_are_not_numbers_are_a_difference() -> None:
    original = original_of(hand_made("Residual"), [SHAPE])

    def broken(inputs: Inputs) -> tuple[Tensor, ...]:
        return tuple(torch.full_like(output, torch.nan) for output in original.net.run(tensors_of(inputs)))

    with pytest.raises(ModelError, match="was not read rightly"):
        compared(replace(original, forward=broken))


def test_a_model_that_returns_another_number_of_outputs_is_refused() -> None:
    original = original_of(hand_made("Residual"), [SHAPE])
    with pytest.raises(ModelError, match="returns 2 outputs, as it was read 1"):
        compared(replace(original, forward=lambda inputs: original.net.run(tensors_of(inputs)) * 2))


def one_layer(path: Path) -> Path:
    """An ONNX file of a convolution and a ReLU."""
    weight = numpy_helper.from_array(torch.randn(4, 1, 3, 3).numpy(), "w")
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], kernel_shape=[3, 3]),
        helper.make_node("Relu", ["c"], ["y"]),
    ]
    ends = [
        helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in (("x", [1, 1, 6, 6]), ("y", [1, 4, 4, 4]))
    ]
    graph = helper.make_graph(nodes, "one", ends[:1], ends[1:], [weight])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    return path


def test_an_onnx_file_is_run_in_onnx_runtime(tmp_path: Path) -> None:
    original = original_file(one_layer(tmp_path / "m.onnx"))
    assert original.framework == "ONNX Runtime"
    images = torch.randn(3, 1, 6, 6, generator=torch.Generator().manual_seed(1))
    (found,), (expected,) = original.forward(images), original.net.run(images)
    assert found.shape == (3, 4, 4, 4) and torch.allclose(found, expected, atol=1e-5)


def quantized_layer(path: Path, scale: float) -> Path:
    """The same layer with a weight of bytes, and steps of `scale` behind it that end at zero."""
    model = onnx.load(one_layer(path))
    held: dict[str, Any] = {"s": np.float32(scale), "z": np.uint8(0), "ws": np.float32(0.01), "wz": np.int8(3)}
    held["q"] = np.random.default_rng(0).integers(-127, 127, (4, 1, 3, 3), dtype=np.int8)
    del model.graph.node[:], model.graph.initializer[:]
    model.graph.initializer.extend(numpy_helper.from_array(np.asarray(value), name) for name, value in held.items())
    model.graph.node.extend([
        helper.make_node("DequantizeLinear", ["q", "ws", "wz"], ["w"]),
        helper.make_node("Conv", ["x", "w"], ["c"]),
        helper.make_node("QuantizeLinear", ["c", "s", "z"], ["i"]),
        helper.make_node("DequantizeLinear", ["i", "s", "z"], ["y"]),
    ])  # fmt: skip
    onnx.save(model, path)
    return path


def test_a_quantized_file_is_compared_with_its_rounding_and_used_without(tmp_path: Path) -> None:
    original = original_file(quantized_layer(tmp_path / "m.onnx", 0.02))
    images = torch.rand(3, 1, 6, 6, generator=torch.Generator().manual_seed(1))
    assert original.on_grid is not None and original.tolerance == QUANTIZED_TOLERANCE
    (its,), (rounded,), (mine,) = original.forward(images), original.on_grid.run(images), original.net.run(images)
    assert float((its - rounded).abs().max()) <= 0.0201  # one step, where it lies half-way between two
    assert 0 < float((its - mine).abs().max()) <= 0.0201 and float(mine.min()) == 0  # the ReLU that its zero point is
    assert [node.op for node in original.net.nodes] == ["input", "conv2d", "relu"]
    assert torch.equal(expected_of(original, images)[0], mine)


def test_a_file_that_is_quantized_too_coarsely_for_the_images_is_refused_for_them(tmp_path: Path) -> None:
    original = original_file(quantized_layer(tmp_path / "m.onnx", 0.001))  # nothing beyond 0.255
    images = torch.rand(3, 1, 6, 6, generator=torch.Generator().manual_seed(1))
    with pytest.raises(ModelError, match=r"output '\w+' differs .* more than 0\.5: .*give the float model"):
        compared(original, images)
    assert torch.equal(expected_of(original, images, random=True)[0], original.net.run(images)[0])


def test_integers_are_outputs_of_a_file_too(tmp_path: Path) -> None:
    model = onnx.load(one_layer(tmp_path / "m.onnx"))
    model.graph.node.append(helper.make_node("ArgMax", ["r"], ["y"], axis=1, keepdims=0))
    model.graph.node[1].output[0] = "r"
    model.graph.output[0].CopyFrom(helper.make_tensor_value_info("y", TensorProto.INT64, [1, 4, 4]))
    onnx.save(model, tmp_path / "m.onnx")
    original = original_file(tmp_path / "m.onnx")
    images = torch.randn(2, 1, 6, 6)
    assert torch.equal(original.forward(images)[0], original.net.run(images)[0])


def test_a_sigmoid_whose_chances_are_all_next_to_nothing_is_not_a_reading_error(tmp_path: Path) -> None:
    model = onnx.load(one_layer(tmp_path / "m.onnx"))
    shift = numpy_helper.from_array(np.full((1, 4, 1, 1), -19, np.float32), "shift")
    model.graph.initializer.append(shift)
    model.graph.node[1].CopyFrom(helper.make_node("Add", ["c", "shift"], ["a"]))
    model.graph.node.append(helper.make_node("Sigmoid", ["a"], ["y"]))
    onnx.save(model, tmp_path / "m.onnx")
    assert original_file(tmp_path / "m.onnx").framework == "ONNX Runtime"


def test_a_saved_net_is_its_own_original() -> None:
    net = capture(nn.Sequential(nn.Flatten(), nn.Linear(36, 3)).eval(), SHAPE)
    original = original_of(net, [])
    (images,) = random_inputs(net, 4, seed=0)
    assert torch.equal(original.forward(images)[0], net.run(images)[0])
