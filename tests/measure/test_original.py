"""The original is the model as the user gave it: what was read wrongly is an error."""

from dataclasses import replace
from pathlib import Path

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
from slimwright.measure.original import compared, original_file, original_of


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


def test_a_saved_net_is_its_own_original() -> None:
    net = capture(nn.Sequential(nn.Flatten(), nn.Linear(36, 3)).eval(), SHAPE)
    original = original_of(net, [])
    (images,) = random_inputs(net, 4, seed=0)
    assert torch.equal(original.forward(images)[0], net.run(images)[0])
