"""Weights of an ONNX file as the whole numbers that they stand on, so that the runtime computes just these.

A layer whose weights are whole multiples of a scale for each output gets them as INT8 with a DequantizeLinear; where
what it reads is dequantized, too, its bias becomes INT32 in steps of the two scales' product. Where nothing computes
with integers, a Cast and a Mul stand in its place, which ONNX Runtime computes once, when it loads the file; few levels
are stored in 4 or 2 bits then, which needs a newer opset. Weights that stand on no such numbers are left as they are.
"""

from collections.abc import Sequence

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper, version_converter

from slimwright.runtimes.own_levels import on_whole_numbers

LAYERS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
OPSETS = {2: 25, 4: 21}  # the oldest with numbers of so many bits
TYPES = {
    bits: helper.tensor_dtype_to_np_dtype(kind)
    for bits, kind in ((2, onnx.TensorProto.INT2), (4, onnx.TensorProto.INT4), (8, onnx.TensorProto.INT8))
}
IR_VERSION = 13  # of files in the newest of these opsets
Array = NDArray[np.float32]


def with_integer_weights(model: onnx.ModelProto, *, bits: int = 8) -> onnx.ModelProto:
    """Return the model with the weights of its layers in whole numbers, and biases where integers are read.

    Numbers of fewer `bits` than 8 take 4 or 2, if the model can be converted to an opset that has such types.
    """
    model, stored = _for_bits(model, bits)
    graph = model.graph
    values = {tensor.name: tensor for tensor in graph.initializer}
    scales = {
        node.output[0]: numpy_helper.to_array(values[node.input[1]])
        for node in graph.node
        if node.op_type == "DequantizeLinear" and node.input[1] in values
    }
    made: dict[str, tuple[str, Array]] = {}  # by name and axis of a weight: what stands in its place, its scales
    nodes: list[onnx.NodeProto] = []
    for node in graph.node:
        weight = values.get(node.input[1]) if node.op_type in LAYERS else None
        found = None
        if weight is not None and weight.data_type == onnx.TensorProto.FLOAT:
            key = f"{weight.name}_{_axis(node)}"
            found = made.get(key) or _added(graph, nodes, weight, _axis(node), key, stored, alone=not scales)
        if found is not None:
            made[key] = found
            node.input[1] = found[0]
            bias = values.get(node.input[2]) if len(node.input) > 2 else None
            if bias is not None and node.input[0] in scales:
                node.input[2] = _whole_bias(graph, nodes, bias, scales[node.input[0]] * found[1], node.output[0])
        nodes.append(node)
    del graph.node[:]
    graph.node.extend(nodes)
    _drop_unread(graph)
    return model


def _for_bits(model: onnx.ModelProto, bits: int) -> tuple[onnx.ModelProto, Sequence[int]]:
    """The model in an opset that has types of so many bits, and all sizes of numbers that it has: the least first."""
    for least in (size for size in OPSETS if size >= bits):
        opset = next(each.version for each in model.opset_import if not each.domain)
        if opset < OPSETS[least]:
            try:
                converted = version_converter.convert_version(model, OPSETS[least])
            except Exception:  # noqa: S112 - the converter's errors share no base class
                continue
            converted.ir_version = max(converted.ir_version, IR_VERSION)
            model = converted
        return model, (*(size for size in OPSETS if size >= least), 8)
    return model, (8,)


def _axis(node: onnx.NodeProto) -> int:
    """The dimension of a layer's weight that its outputs lie along."""
    if node.op_type == "Gemm":
        return 0 if any(each.name == "transB" and each.i for each in node.attribute) else 1
    return {"Conv": 0, "ConvTranspose": 1, "MatMul": 1}[node.op_type]


def _added(
    graph: onnx.GraphProto,
    nodes: list[onnx.NodeProto],
    weight: onnx.TensorProto,
    axis: int,
    key: str,
    stored: Sequence[int],
    *,
    alone: bool,
) -> tuple[str, Array] | None:
    """The dequantized weight, added, and its scales [O]; None where it stands on no whole numbers.

    Numbers are stored in the first of the sizes `stored` that holds them. Where they are `alone`, nothing computes with
    integers.
    """
    values = numpy_helper.to_array(weight)
    if values.ndim < 2:
        return None
    found = on_whole_numbers(values, axis)
    if found is None:
        return None
    whole, scales = found
    most = int(np.abs(whole).max(initial=0))
    kind = next(TYPES[size] for size in stored if most < 2 ** (size - 1))
    numbers = np.ascontiguousarray(whole, np.int8).astype(kind)
    (_multiplied if alone else _dequantized)(graph, nodes, key, numbers, scales, axis)
    return key, scales


def _whole_bias(
    graph: onnx.GraphProto, nodes: list[onnx.NodeProto], bias: onnx.TensorProto, steps: Array, output: str
) -> str:
    """The name of the bias of a layer as whole steps [O], dequantized."""
    name = f"{output}_bias"
    steps = np.maximum(steps.astype(np.float32), np.finfo(np.float32).tiny)
    whole = np.rint(numpy_helper.to_array(bias).astype(np.float64) / steps)
    limit = np.iinfo(np.int32)
    _dequantized(graph, nodes, name, np.clip(whole, limit.min, limit.max).astype(np.int32), steps, 0)
    return name


def _dequantized(
    graph: onnx.GraphProto, nodes: list[onnx.NodeProto], name: str, whole: NDArray[np.generic], steps: Array, axis: int
) -> None:
    zeros = np.zeros(steps.shape, whole.dtype)
    parts = {f"{name}_whole": whole, f"{name}_scale": steps, f"{name}_zero": zeros}
    graph.initializer.extend(numpy_helper.from_array(value, each) for each, value in parts.items())
    nodes.append(helper.make_node("DequantizeLinear", [*parts], [name], name=f"{name}_dequantized", axis=axis))


def _multiplied(
    graph: onnx.GraphProto, nodes: list[onnx.NodeProto], name: str, whole: NDArray[np.generic], steps: Array, axis: int
) -> None:
    along = [1] * whole.ndim
    along[axis] = len(steps)
    parts = {f"{name}_whole": whole, f"{name}_scale": steps.reshape(along)}
    graph.initializer.extend(numpy_helper.from_array(value, each) for each, value in parts.items())
    nodes += [
        helper.make_node("Cast", [f"{name}_whole"], [f"{name}_float"], to=onnx.TensorProto.FLOAT),
        helper.make_node("Mul", [f"{name}_float", f"{name}_scale"], [name], name=f"{name}_multiplied"),
    ]


def _drop_unread(graph: onnx.GraphProto) -> None:
    read = {name for node in graph.node for name in node.input} | {value.name for value in graph.output}
    kept = [tensor for tensor in graph.initializer if tensor.name in read]
    del graph.initializer[:]
    graph.initializer.extend(kept)
