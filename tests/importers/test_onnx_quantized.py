"""Quantized `.onnx` files are read as the float models that they stand for, and compared with rounding and without."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import NodeProto, TensorProto, helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_dynamic, quantize_static
from torch import Tensor, nn

from onnx_files import apart, exported_by_torchscript
from slimwright.errors import ModelError
from slimwright.importers.onnx import net_of_file, read_file, read_onnx
from slimwright.importers.onnx.qlinear import READ

SHAPE = (3, 12, 12)
A_STEP = 0.02  # of the largest value: results that ONNX Runtime rounds the other way
FORMATS: dict[str, dict[str, Any]] = {
    "QDQ": {"quant_format": QuantFormat.QDQ, "per_channel": True},
    "weights in float, rounded by nodes": {
        "quant_format": QuantFormat.QDQ, "activation_type": QuantType.QInt8,
        "extra_options": {"AddQDQPairToWeight": True, "ActivationSymmetric": True},
    },
    "QOperator": {"quant_format": QuantFormat.QOperator},
    "QOperator by channel, int8": {
        "quant_format": QuantFormat.QOperator, "activation_type": QuantType.QInt8, "per_channel": True,
    },
    "16 bits": {"quant_format": QuantFormat.QDQ, "activation_type": QuantType.QUInt16},
}  # fmt: skip


class Small(nn.Module):
    """What quantizers have an operator for: sums, ReLUs, a pooling, a concatenation, a sigmoid, a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.grouped = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1, groups=2)
        self.down, self.last = nn.Conv2d(8, 16, 3, stride=2, padding=1), nn.Linear(32, 5)

    def forward(self, x: Tensor) -> Tensor:
        y = nn.functional.relu6(3 * self.first(x))
        y = nn.functional.max_pool2d(torch.relu(y + self.grouped(y)), 2)
        y = nn.functional.leaky_relu(self.down(y), 0.1)
        return self.last(torch.cat([y, torch.sigmoid(y)], 1).mean((2, 3)))  # type: ignore[no-any-return]


class Images(CalibrationDataReader):  # type: ignore[misc]
    """Sixteen images of noise between 0 and 1, one at a time."""

    def __init__(self) -> None:
        self._rest = iter(np.random.default_rng(0).random((16, 1, *SHAPE), dtype=np.float32))

    def get_next(self) -> dict[str, Any] | None:
        image = next(self._rest, None)
        return None if image is None else {"x": image}


@pytest.fixture(scope="session")
def float_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("quantized") / "float.onnx"
    return exported_by_torchscript(Small().eval(), path, SHAPE, dynamic=True)


@pytest.fixture(scope="session")
def static_files(float_file: Path) -> dict[str, Path]:
    paths = {name: float_file.with_name(f"{number}.onnx") for number, name in enumerate(FORMATS)}
    for name, path in paths.items():
        quantize_static(str(float_file), str(path), Images(), **{"weight_type": QuantType.QInt8, **FORMATS[name]})
    return paths


def exactly(path: Path, images: Tensor) -> Tensor:
    """What ONNX Runtime makes of each image, with sums of products that do not saturate."""
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 4
    try:
        options.add_session_config_entry("session.x64quantprecision", "1")
        session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except ort.capi.onnxruntime_pybind11_state.NotImplemented:  # of int8 by int8, which does not saturate
        session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return torch.from_numpy(np.concatenate([session.run(None, {"x": image[None]})[0] for image in images.numpy()]))


def noise(count: int, *, seed: int = 1) -> Tensor:
    return torch.rand(count, *SHAPE, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("form", FORMATS)
def test_a_file_of_the_static_quantizer_is_its_float_model(
    float_file: Path, static_files: dict[str, Path], form: str
) -> None:
    file, images = read_file(static_files[form]), noise(4)
    assert file.quantized and not read_file(float_file).quantized
    net, original = net_of_file(file), read_onnx(float_file)
    assert apart(net.run(images)[0], original.run(images)[0]) < 0.02  # weights of 8 bits, and nothing else
    rounded = net_of_file(file, keeps_grids=True)
    assert apart(rounded.run(images)[0], exactly(static_files[form], images)) < A_STEP
    assert apart(rounded.run(4 * images - 2)[0], exactly(static_files[form], 4 * images - 2)) < A_STEP  # cut off
    ops = [node.op for node in net.nodes]
    assert [*map(alike, ops)] == [alike(node.op) for node in original.nodes]
    assert [tuple(w.shape) for w in weights(net)] == [tuple(w.shape) for w in weights(original)]


def alike(op: str) -> str:
    """ReLU6 of values that calibration never saw beyond 6 is a ReLU."""
    return "relu" if op == "hardtanh" else op


def weights(net: object) -> list[Tensor]:
    return [net.tensors[node.tensors["weight"]] for node in net.weighted()]  # type: ignore[attr-defined]


@pytest.mark.parametrize("kind", ["QInt8", "QUInt8"])
def test_a_file_of_the_dynamic_quantizer_is_its_float_model(float_file: Path, kind: str) -> None:
    path = float_file.with_name(f"dynamic-{kind}.onnx")
    quantize_dynamic(str(float_file), str(path), weight_type=QuantType[kind])
    images, net, original = noise(4), read_onnx(path), read_onnx(float_file)
    assert apart(net.run(images)[0], original.run(images)[0]) < 0.02
    assert apart(net.run(images)[0], exactly(path, images)) < A_STEP
    assert [node.op for node in net.nodes] == [node.op for node in original.nodes]  # scales are in the weights
    assert all(node.tensors.keys() == {"weight", "bias"} for node in net.weighted())


# by hand


def written(path: Path, nodes: Sequence[NodeProto], tensors: Mapping[str, Any], *, opset: int = 21) -> Path:
    """A file that takes "x" [1, 3, 12, 12] and returns "y"."""
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in (("x", (1, *SHAPE)),)]
    graph = helper.make_graph(
        list(nodes), "by hand", ends, [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.asarray(tensor), name) for name, tensor in tensors.items()],
    )  # fmt: skip
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid("com.microsoft", 1)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=10), path)
    return path


def node(op: str, inputs: str, outputs: str, domain: str = "", **attributes: Any) -> NodeProto:
    name = f"{op.lower()}-{outputs}"
    return helper.make_node(op, inputs.split(" "), outputs.split(" "), name, domain=domain, **attributes)


RNG = np.random.default_rng(5)
GRIDS: dict[str, Any] = {
    "xs": np.float32(1 / 50), "xz": np.uint8(100), "bs": np.float32(1 / 40), "bz": np.uint8(90),
    "ys": np.float32(1 / 30), "yz": np.uint8(60), "small": np.float32(1 / 250), "zero": np.uint8(0),
    "w": RNG.integers(-127, 127, (4, 3, 3, 3), dtype=np.int8), "bias": RNG.integers(-900, 900, 4, dtype=np.int32),
    "ws": RNG.uniform(0.001, 0.01, 4).astype(np.float32), "wz": np.zeros(4, np.int8), "axes": np.array([2, 3]),
    "m": RNG.integers(0, 255, (12, 7), dtype=np.uint8), "ms": np.float32(0.004), "mz": np.uint8(120),
    "yes": RNG.random((1, 3, 12, 12)) > 0.5, "pads": np.array([0, 0, 1, 2, 0, 0, 2, 1]), "fill": np.uint8(100),
}  # fmt: skip
TWO, ONE = "q xs xz p bs bz ys yz", "q xs xz ys yz"
ON_INTEGERS: dict[str, list[NodeProto]] = {
    "QLinearConv": [node("QLinearConv", "q xs xz w ws wz ys yz bias", "r", pads=[1, 1, 1, 1], kernel_shape=[3, 3])],
    "QLinearMatMul": [node("QLinearMatMul", "q xs xz m ms mz ys yz", "r")],
    "QLinearAdd": [node("QLinearAdd", TWO, "r", "com.microsoft")],
    "QLinearMul": [node("QLinearMul", TWO, "r", "com.microsoft")],
    "QLinearSigmoid": [node("QLinearSigmoid", ONE, "r", "com.microsoft")],
    "QLinearLeakyRelu": [node("QLinearLeakyRelu", ONE, "r", "com.microsoft", alpha=0.2)],
    "QLinearGlobalAveragePool": [node("QLinearGlobalAveragePool", ONE, "r", "com.microsoft")],
    "QLinearAveragePool": [node("QLinearAveragePool", ONE, "r", "com.microsoft", kernel_shape=[2, 2], strides=[2, 2])],
    "QLinearSoftmax": [
        node("QLinearSoftmax", "q xs xz small zero", "s", "com.microsoft", axis=1, opset=13),
        node("DequantizeLinear", "s small zero", "t"),
        node("QuantizeLinear", "t ys yz", "r"),
    ],
    "QLinearConcat": [node("QLinearConcat", "ys yz q xs xz p bs bz", "r", "com.microsoft", axis=1)],
    "QLinearWhere": [node("QLinearWhere", "yes q xs xz p bs bz ys yz", "r", "com.microsoft")],
    "what moves integers": [
        node("MaxPool", "q", "a", kernel_shape=[3, 3], strides=[2, 2]),
        node("Pad", "a pads fill", "b"),
        node("Transpose", "b", "c", perm=[0, 1, 3, 2]),
        node("DequantizeLinear", "c xs xz", "d"),
        node("QuantizeLinear", "d ys yz", "r"),
    ],
}


@pytest.mark.parametrize("op", ON_INTEGERS)
def test_an_operator_on_integers_computes_what_onnx_runtime_does(tmp_path: Path, op: str) -> None:
    nodes = [
        node("QuantizeLinear", "x xs xz", "q"),
        node("Sin", "x", "other"),
        node("QuantizeLinear", "other bs bz", "p"),
        *ON_INTEGERS[op],
        node("DequantizeLinear", "r ys yz", "y"),
    ]
    path = written(tmp_path / "m.onnx", nodes, GRIDS)
    images = torch.randn(3, *SHAPE, generator=torch.Generator().manual_seed(2))
    expected = exactly(path, images)
    rounded = net_of_file(read_file(path), keeps_grids=True).run(images)[0]
    assert float((rounded - expected).abs().max()) <= 1.01 * GRIDS["ys"]  # one step
    ends = [float(GRIDS["ys"]) * (q - int(GRIDS["yz"])) for q in (0, 255)]
    inside = read_onnx(path).run(images)[0].clamp(*ends)
    assert float((inside - expected).abs().mean()) < 2 * GRIDS["ys"]


def test_every_operator_that_is_taken_apart_is_tested() -> None:
    tested = {*ON_INTEGERS, "QGemm"}  # QGemm by the quantizer's own files
    untested = {"QLinearReduceMean", "MatMulIntegerToFloat", "DynamicQuantizeMatMul"}  # below, by their forms
    same = {"QuantizeLinear", "DequantizeLinear"}
    assert {op.removeprefix("com.microsoft.") for op in READ} <= tested | untested | same


@given(
    integers=st.lists(st.integers(-128, 127), min_size=24, max_size=24),
    scales=st.lists(st.floats(2**-12, 2, width=32), min_size=4, max_size=4),
    zeros=st.lists(st.integers(-128, 127), min_size=4, max_size=4),
    axis=st.sampled_from([0, -4]),
)
@settings(max_examples=25, deadline=None)
def test_a_weight_is_its_scale_times_what_lies_over_its_zero_point(
    tmp_path_factory: pytest.TempPathFactory, integers: list[int], scales: list[float], zeros: list[int], axis: int
) -> None:
    held: dict[str, Any] = {
        "q": np.array(integers, np.int8).reshape(4, 3, 1, 2), "s": np.array(scales, np.float32),
        "z": np.array(zeros, np.int8),
    }  # fmt: skip
    nodes = [node("DequantizeLinear", "q s z", "w", axis=axis), node("Conv", "x w", "y")]
    net = read_onnx(written(tmp_path_factory.mktemp("weights") / "m.onnx", nodes, held))
    (weight,) = weights(net)
    wanted = (held["q"].astype(np.float64) - held["z"].reshape(4, 1, 1, 1)) * held["s"].reshape(4, 1, 1, 1)
    assert torch.allclose(weight, torch.from_numpy(wanted).float(), rtol=1e-6)
    assert next(net.weighted()).fixed == ()  # it is learned: it may be cut and trained


def conv_on_grid(path: Path, scale: float, zero_point: int, first: str = "Conv") -> Path:
    held = {"s": np.float32(scale), "z": np.uint8(zero_point), "w": RNG.normal(size=(4, 3, 3, 3)).astype(np.float32)}
    nodes = [
        node("Conv", "x w", "c"), *([node(first, "c", "a")] if first != "Conv" else []),
        node("QuantizeLinear", f"{'c' if first == 'Conv' else 'a'} s z", "q"), node("DequantizeLinear", "q s z", "y"),
    ]  # fmt: skip
    return written(path, nodes, held)


def test_a_zero_point_at_the_end_of_the_integers_is_an_activation(tmp_path: Path) -> None:
    def ops(scale: float, zero_point: int, first: str = "Conv") -> list[str]:
        return [n.op for n in read_onnx(conv_on_grid(tmp_path / "m.onnx", scale, zero_point, first)).nodes[1:]]

    assert ops(0.1, 0) == ["conv2d", "relu"]
    assert ops(6 / 255, 0) == ["conv2d", "hardtanh"]
    assert ops(0.1, 128) == ["conv2d"]
    assert ops(0.1, 255) == ["conv2d", "aten.clamp.default"]
    assert ops(0.1, 0, "Relu") == ["conv2d", "relu"]  # it is one already
    assert ops(0.1, 0, "Sigmoid") == ["conv2d", "aten.sigmoid.default"] or ops(0.1, 0, "Sigmoid")[1:] == ["sigmoid"]
    assert ops(6 / 255, 0, "Relu") == ["conv2d", "relu", "hardtanh"]


def test_images_are_not_cut_off(tmp_path: Path) -> None:
    nodes = [
        node("QuantizeLinear", "x s z", "q"), node("DequantizeLinear", "q s z", "d"), node("Conv", "d w", "y"),
    ]  # fmt: skip
    held = {"s": np.float32(1 / 255), "z": np.uint8(0), "w": RNG.normal(size=(4, 3, 3, 3)).astype(np.float32)}
    assert [n.op for n in read_onnx(written(tmp_path / "m.onnx", nodes, held)).nodes] == ["input", "conv2d"]


Q = {"s": np.float32(0.1), "z": np.uint8(3), "other": np.float32(0.2), "w": np.ones((12, 4), np.int8)}
REFUSED: dict[str, tuple[list[NodeProto], str]] = {
    "a scale from the images": (
        [node("Sigmoid", "x", "m"), node("QuantizeLinear", "x m z", "q"),
         node("DequantizeLinear", "q m z", "y")], "node 'quantizelinear-q'.*scale 'm' is not stored",
    ),
    "two scales": (
        [node("QuantizeLinear", "x s z", "q"), node("DequantizeLinear", "q other z", "y")],
        "node 'dequantizelinear-y'.*scale or zero point is another",
    ),
    "scales of blocks": (
        [node("DequantizeLinear", "w blocks", "d", axis=0, block_size=4), node("MatMul", "x d", "y")],
        r"node 'dequantizelinear-d'.*blocks \(4 values each\)",
    ),
    "arithmetic on integers": (
        [node("QuantizeLinear", "x s z", "q"), node("Add", "q q", "a"), node("DequantizeLinear", "a s z", "y")],
        r"node 'add-a' \(Add\).*computes with quantized integers",
    ),
    "integers as outputs": ([node("QuantizeLinear", "x s z", "y")], "output 'y'.*holds quantized integers"),
    "weights of four bits": (
        [node("MatMulNBits", "x w s", "y", "com.microsoft", K=12, N=4, bits=4, block_size=16)],
        "node 'matmulnbits-y'.*computes with integers and is not read",
    ),
    "products of integers without a scale": (
        [node("Cast", "x", "i", to=TensorProto.UINT8), node("MatMulInteger", "i w", "a"),
         node("Cast", "a", "y", to=TensorProto.FLOAT)], "node 'matmulinteger-a'.*scale and zero point are not known",
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", REFUSED)
def test_what_scales_do_not_tell_is_refused_with_the_node_and_the_way_out(tmp_path: Path, what: str) -> None:
    nodes, message = REFUSED[what]
    held = Q | {"blocks": np.ones((3, 4), np.float32)}
    with pytest.raises(ModelError, match=f"{message}.*; give the float model that it was made from"):
        read_onnx(written(tmp_path / "m.onnx", nodes, held))


def test_weights_of_four_bits_are_refused_by_name(tmp_path: Path) -> None:
    path = written(tmp_path / "m.onnx", [node("DequantizeLinear", "w s", "d"), node("MatMul", "x d", "y")], Q)
    model = onnx.load(path)
    (weight,) = [tensor for tensor in model.graph.initializer if tensor.name == "w"]
    weight.CopyFrom(helper.make_tensor("w", TensorProto.INT4, [12, 4], [1] * 48))
    onnx.save(model, path)
    with pytest.raises(ModelError, match=r"initializer 'w'.*2, 4 or 8 bits.*give the float model"):
        read_onnx(path)
