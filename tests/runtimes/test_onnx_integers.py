"""ONNX Runtime computes with the integers that a net stands on."""

from pathlib import Path

import onnx
import onnxruntime as ort
import pytest
import torch
from torch import Tensor

from example_nets import SHAPE, hand_made
from proofs import skip_if_saturating
from shared_workshop import shared_workshop
from slimwright.data import calibration_inputs, labelled, whole
from slimwright.graph import Net
from slimwright.graph.levels import LEVELS, Levels
from slimwright.importers import capture
from slimwright.techniques import fold_batch_norm
from slimwright.techniques.quantize import quantized
from small_digits import few_digits, small_digit_net


@pytest.fixture(scope="module")
def images() -> Tensor:
    return labelled(whole(few_digits(), "validation"))[0]


def made(net: Net, folder: Path) -> Path:
    calibration = [torch.zeros(1, *node.shape[1:]) for node in net.inputs]
    return shared_workshop().convert(net, "onnxruntime", net.precision, folder, calibration=calibration).files[0]


def session(path: Path, optimized: Path | None = None) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.log_severity_level = 3
    if optimized is not None:
        options.optimized_model_filepath = str(optimized)
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def outputs(path: Path, images: Tensor) -> Tensor:
    opened = session(path)
    name = opened.get_inputs()[0].name
    return torch.cat([torch.from_numpy(opened.run(None, {name: image[None].numpy()})[0]) for image in images])


def test_layers_compute_with_integers(tmp_path: Path) -> None:
    net = quantized(fold_batch_norm(small_digit_net()), calibration_inputs(few_digits(), 100))
    session(made(net, tmp_path), tmp_path / "optimized.onnx")
    kinds = [node.op_type for node in onnx.load(tmp_path / "optimized.onnx").graph.node]
    assert kinds.count("QLinearConv") == 2 and kinds.count("QGemm") == 1
    assert not {"Conv", "Gemm", "MaxPool"} & set(kinds)


@pytest.mark.parametrize("name", ["digits", "Residual", "Separable"])
def test_its_outputs_are_the_nets_own_within_a_few_steps(name: str, images: Tensor, tmp_path: Path) -> None:
    """Where a sum lies between two levels, float32 and integers may take either: one step of what the last layer reads.

    Its outputs move by its weights times that step, at few of the places.
    """
    skip_if_saturating("onnxruntime", "int8")
    if name == "digits":
        net, seen = fold_batch_norm(small_digit_net()), images
    else:
        net = fold_batch_norm(capture(hand_made(name), SHAPE))
        seen = torch.randn(40, *SHAPE, generator=torch.Generator().manual_seed(0))
    small = quantized(net, seen)
    found, expected = outputs(made(small, tmp_path), seen), small.run(seen)[0]
    last = [*small.weighted()][-1]
    step = Levels.of(small[last.source]).scale
    weight = small.tensors[last.tensors["weight"]].flatten(1)
    assert small[last.source].op == LEVELS
    assert ((found - expected).abs().amax(0) <= 3 * step * weight.abs().amax(1) + 1e-5).all()
    assert (found - expected).abs().median() <= step * float(weight.abs().max())


@pytest.mark.parametrize(("bits", "kind"), [(2, "int2"), (3, "int4"), (4, "int4"), (8, "int8")])
def test_weights_alone_in_few_bits_are_exact_and_stored_in_these(
    bits: int, kind: str, images: Tensor, tmp_path: Path
) -> None:
    net = fold_batch_norm(small_digit_net())
    small = quantized(net, calibration_inputs(few_digits(), 100), weight_bits=bits, activation_bits=None)
    path = made(small, tmp_path)
    torch.testing.assert_close(outputs(path, images), small.run(images)[0], rtol=1e-5, atol=1e-5)
    weights = [tensor for tensor in onnx.load(path).graph.initializer if tensor.name.endswith("_whole")]
    values = [onnx.numpy_helper.to_array(tensor) for tensor in weights]
    assert len(values) == 3 and all(v.dtype.name == kind for v in values)
    counts = [v.size for v in values]
    stored = sum(len(tensor.raw_data) for tensor in weights)
    assert stored == sum(-(-count * int(kind[3:]) // 8) for count in counts)


def test_weights_alone_are_floats_once_the_file_is_loaded(tmp_path: Path) -> None:
    """What dequantizes in each run would make a net slower than in float."""
    net = fold_batch_norm(small_digit_net())
    small = quantized(net, calibration_inputs(few_digits(), 100), weight_bits=4, activation_bits=None)
    session(made(small, tmp_path), tmp_path / "optimized.onnx")
    kinds = {node.op_type for node in onnx.load(tmp_path / "optimized.onnx").graph.node}
    assert not kinds & {"DequantizeLinear", "Cast", "Mul"} and "Gemm" in kinds


def test_each_layer_has_bits_of_its_own(images: Tensor, tmp_path: Path) -> None:
    net = fold_batch_norm(small_digit_net())
    first, second, _ = (node.name for node in net.weighted())
    bits = {first: 8, second: 2}
    small = quantized(net, calibration_inputs(few_digits(), 100), weight_bits=bits, activation_bits=None)
    path = made(small, tmp_path)
    torch.testing.assert_close(outputs(path, images), small.run(images)[0], rtol=1e-5, atol=1e-5)
    whole = [tensor for tensor in onnx.load(path).graph.initializer if tensor.name.endswith("_whole")]
    assert [onnx.numpy_helper.to_array(tensor).dtype.name for tensor in whole] == ["int8", "int2"]


def test_a_layer_that_stays_in_float_does(images: Tensor, tmp_path: Path) -> None:
    net = fold_batch_norm(small_digit_net())
    last = [*net.weighted()][-1].name
    small = quantized(net, calibration_inputs(few_digits(), 100), keep_float=(last,))
    session(made(small, tmp_path), tmp_path / "optimized.onnx")
    kinds = [node.op_type for node in onnx.load(tmp_path / "optimized.onnx").graph.node]
    assert kinds.count("QLinearConv") == 2 and "Gemm" in kinds and "QGemm" not in kinds
