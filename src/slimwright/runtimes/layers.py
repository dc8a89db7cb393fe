"""Single layers as artefacts, made without a converter: what the latency of a layer shape is measured on.

Each has an activation behind it if its shape says so, fused where the runtime fuses it, and a ReLU before it: inside a
network, a layer is given values in the runtime's own layout, and finds them in a cache.
"""

import re
import struct
from pathlib import Path

import numpy as np

from slimwright.cost.latency import LayerShape
from slimwright.errors import RequestError
from slimwright.runner.machine import loaded_by
from slimwright.runtimes.artefact import Artefact

TIMED = ("onnxruntime", "openvino", "mnn", "ncnn")  # runtimes that tell of their kernels
STANDING_IN = "onnxruntime"  # for those that do not: a first guess, which measuring whole networks corrects
# What multiplies by weights, as the runtimes call it, or a part of that: FusedConv, QLinearMatMul. "Convert" and
# "ConvertTensor" change a layout or a precision.
TENSOR_KERNEL = re.compile("Conv(?!ert)|Gemm|MatMul|FullyConnected|InnerProduct|Attention|Einsum")
# What a runtime holds of a 3x3 layer of stride 1, in terms of its weights: Winograd's F(4x4, 3x3) has 36 values for 9,
# F(6x6, 3x3) has 64 (Lavin and Gray 2016, CVPR). As the resident memory of more and more layers shows.
TRANSFORMED = {"ncnn": 36 / 9, "mnn": 64 / 9}
NCNN_ACTIVATIONS = {"none": "", "relu": " 9=1", "relu6": " 9=3 -23310=2,0.0,6.0"}


def layer_artefact(shape: LayerShape, runtime: str, folder: Path) -> Artefact:
    """Write one layer for a runtime into `folder`. Raises RequestError for a runtime whose layers cannot be timed."""
    if runtime not in TIMED:
        raise RequestError(f"single layers cannot be timed in {runtime}; they can in {', '.join(TIMED)}")
    folder.mkdir(parents=True)
    size = (1, shape.in_channels) if shape.op == "linear" else (1, shape.in_channels, *shape.input_size)
    if runtime == "ncnn":
        files = _ncnn(shape, folder)
    else:
        files = [folder / "layer.onnx"]
        _write_onnx(shape, size, files[0])
        if runtime == "openvino":
            from slimwright.runtimes import openvino

            files = openvino.converted(files[0], folder)
        elif runtime == "mnn":
            from slimwright.runtimes import mnn

            files = [mnn.converted(files[0], folder)]
    return Artefact(runtime, "fp32", tuple(files), (size,))


def timed_by(runtime: str) -> str:
    """Return the runtime whose layers are timed to plan for another: its own, or the one that stands in for it."""
    runtime = loaded_by(runtime)
    return runtime if runtime in TIMED else STANDING_IN


def is_tensor_kernel(kind: str) -> bool:
    """True for a kind of kernel that multiplies by weights, in any runtime, alone or fused with what follows."""
    return TENSOR_KERNEL.search(kind) is not None


def _weight(shape: LayerShape) -> np.ndarray:
    per_group = shape.in_channels // shape.groups
    size = (shape.out_channels, per_group) if shape.op == "linear" else (shape.out_channels, per_group, *shape.kernel)
    return np.random.default_rng(0).standard_normal(size, dtype=np.float32) * np.float32(0.1)


def _write_onnx(shape: LayerShape, size: tuple[int, ...], path: Path) -> None:
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    if shape.op == "linear":
        nodes = [helper.make_node("Gemm", ["r", "w", "b"], ["y"], transB=1)]
    else:
        layer = helper.make_node(
            "Conv", ["r", "w", "b"], ["y"], kernel_shape=list(shape.kernel), strides=list(shape.stride),
            pads=[*shape.padding, *shape.padding], dilations=list(shape.dilation), group=shape.groups,
        )  # fmt: skip
        nodes = [layer]
    nodes.insert(0, helper.make_node("Relu", ["x"], ["r"]))
    constants = {"w": _weight(shape), "b": np.zeros(shape.out_channels, np.float32)}
    if shape.activation == "relu":
        nodes.append(helper.make_node("Relu", ["y"], ["z"]))
    elif shape.activation == "relu6":
        nodes.append(helper.make_node("Clip", ["y", "least", "most"], ["z"]))
        constants |= {"least": np.float32(0), "most": np.float32(6)}  # type: ignore[dict-item]
    graph = helper.make_graph(
        nodes, "layer",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, size)],
        [helper.make_tensor_value_info("y" if shape.activation == "none" else "z", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )  # fmt: skip
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), str(path))


def _ncnn(shape: LayerShape, folder: Path) -> list[Path]:
    weight, act = _weight(shape), NCNN_ACTIVATIONS[shape.activation]
    if shape.op == "linear":
        line = f"InnerProduct layer 1 1 a out0 0={shape.out_channels} 1=1 2={weight.size}{act}"
    else:
        (height, width), (down, across) = shape.kernel, shape.stride
        kind = "ConvolutionDepthWise" if shape.groups > 1 else "Convolution"
        groups = f" 7={shape.groups}" if shape.groups > 1 else ""
        line = (
            f"{kind} layer 1 1 a out0 0={shape.out_channels} 1={width} 11={height} 2={shape.dilation[1]} "
            f"12={shape.dilation[0]} 3={across} 13={down} 4={shape.padding[1]} 14={shape.padding[0]} 5=1 "
            f"6={weight.size}{groups}{act}"
        )
    param, weights = folder / "layer.param", folder / "layer.bin"
    param.write_text(f"7767517\n3 3\nInput in0 0 1 in0\nReLU before 1 1 in0 a\n{line}\n")
    weights.write_bytes(struct.pack("<I", 0) + weight.tobytes() + bytes(4 * shape.out_channels))
    return [param, weights]
