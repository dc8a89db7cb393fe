"""Operators that compute with integers, taken apart: dequantize what they read, compute in float, quantize the result.

What a quantizer writes as one operator (QLinearConv) is then what another writes as several (DequantizeLinear, Conv,
QuantizeLinear), and one reading serves both: see `quantized.py`. The same function, but that ONNX Runtime rounds some
results the other way where they lie half-way between two steps.
Source: the ONNX operator specifications of QLinearConv and QLinearMatMul, and ONNX Runtime's contrib operators
(docs/ContribOperators.md).
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from slimwright.errors import UnsupportedOp
from slimwright.importers.onnx.file import Attribute, OnnxNode

MICROSOFT = "com.microsoft."


@dataclass(frozen=True)
class Form:
    """Where an operator on integers has what: places of its inputs."""

    op: str  # the float operator
    reads: tuple[tuple[int, int, int], ...]  # of each integer tensor: values, scale, zero point
    gives: tuple[int, int] | None  # scale and zero point of the result; None where it is float
    bias: int | None = None  # float, or integers whose scale is the product of the first two
    axis: int = 0  # of a weight (the second tensor) along which scales differ, counted from the last if negative
    before: tuple[int, ...] = ()  # inputs that are passed on as they are, in front of the others


TWO = ((0, 1, 2), (3, 4, 5))
ONE = ((0, 1, 2),)
FORMS: Mapping[str, Form] = {
    "QLinearConv": Form("Conv", TWO, (6, 7), bias=8),
    "QLinearMatMul": Form("MatMul", TWO, (6, 7), axis=-1),
    f"{MICROSOFT}QGemm": Form("Gemm", TWO, (7, 8), bias=6),
    f"{MICROSOFT}QLinearAdd": Form("Add", TWO, (6, 7)),
    f"{MICROSOFT}QLinearAveragePool": Form("AveragePool", ONE, (3, 4)),
    f"{MICROSOFT}QLinearGlobalAveragePool": Form("GlobalAveragePool", ONE, (3, 4)),
    f"{MICROSOFT}QLinearLeakyRelu": Form("LeakyRelu", ONE, (3, 4)),
    f"{MICROSOFT}QLinearMul": Form("Mul", TWO, (6, 7)),
    f"{MICROSOFT}QLinearReduceMean": Form("ReduceMean", ONE, (3, 4)),
    f"{MICROSOFT}QLinearSigmoid": Form("Sigmoid", ONE, (3, 4)),
    f"{MICROSOFT}QLinearSoftmax": Form("Softmax", ONE, (3, 4)),
    f"{MICROSOFT}QLinearWhere": Form("Where", ((1, 2, 3), (4, 5, 6)), (7, 8), before=(0,)),
    f"{MICROSOFT}MatMulIntegerToFloat": Form("MatMul", ((0, 2, 4), (1, 3, 5)), None, bias=6, axis=-1),
    f"{MICROSOFT}DynamicQuantizeMatMul": Form("MatMul", ((1, 2, 3),), None, bias=4, axis=-1, before=(0,)),
}
CONCAT = f"{MICROSOFT}QLinearConcat"
SAME = {f"{MICROSOFT}{op}": op for op in ("QuantizeLinear", "DequantizeLinear")}
READ = (*FORMS, CONCAT, *SAME)


def taken_apart(nodes: Sequence[OnnxNode]) -> tuple[OnnxNode, ...]:
    """Return nodes that compute the same, in which only QuantizeLinear makes integers of what comes from the images.

    Raises UnsupportedOp, naming the node, for a layout of channels that the float operator does not have.
    """
    if not any(node.op in READ for node in nodes):
        return tuple(nodes)
    named = _Fresh(name for node in nodes for name in (*node.inputs, *node.outputs))
    return tuple(part for node in nodes for part in _parts(node, named))


class _Fresh:
    """Names of values, none of which is taken."""

    def __init__(self, taken: Iterable[str]) -> None:
        self._taken = set(taken)

    def __call__(self, wish: str) -> str:
        while wish in self._taken:
            wish += "_"
        self._taken.add(wish)
        return wish


def _parts(node: OnnxNode, named: Callable[[str], str]) -> list[OnnxNode]:
    if node.op in SAME:
        return [replace(node, op=SAME[node.op])]
    if node.attributes.get("channels_last"):
        raise UnsupportedOp(f"{node.label} has its channels last; give the float model that it was made from")
    if node.op == CONCAT:
        reads = tuple((at, at + 1, at + 2) for at in range(2, len(node.inputs), 3))
        return _spelled(node, Form("Concat", reads, (0, 1)), named)
    return _spelled(node, FORMS[node.op], named) if node.op in FORMS else [node]


def _spelled(node: OnnxNode, form: Form, named: Callable[[str], str]) -> list[OnnxNode]:
    parts: list[OnnxNode] = []

    def made(op: str, *inputs: str, wish: str, attributes: Mapping[str, Attribute] | None = None) -> str:
        name = named(wish)
        parts.append(OnnxNode(name, op, inputs, (name,), attributes or {}))
        return name

    def at(place: int) -> str:
        return node.inputs[place] if place < len(node.inputs) else ""

    axis = _axis(node, form)
    values = [
        made("DequantizeLinear", at(x), at(scale), at(zero), wish=f"{at(x)}.float", attributes={"axis": axis})
        for x, scale, zero in form.reads
    ]
    reads = [*(at(place) for place in form.before), *values]
    bias = at(form.bias) if form.bias is not None else ""
    if bias and form.gives is not None:  # integers
        scale = made("Mul", at(form.reads[0][1]), at(form.reads[1][1]), wish=f"{bias}.scale")
        bias = made("DequantizeLinear", bias, scale, wish=f"{bias}.float", attributes={"axis": 0})
    last = node.outputs[0]
    added = bool(bias) and form.op == "MatMul"
    result = named(f"{last}.float") if form.gives is not None or added else last
    inputs = (*reads, bias) if bias and not added else tuple(reads)
    parts.append(OnnxNode(node.name, form.op, inputs, (result,), node.attributes))
    if added:
        parts.append(OnnxNode("", "Add", (result, bias), (last,), {}))
    if form.gives is not None:
        scale, zero = (at(place) for place in form.gives)
        quantized = scale or form.op != "Gemm"  # QGemm without a scale gives float
        kind, inputs = ("QuantizeLinear", (result, scale, zero)) if quantized else ("Identity", (result,))
        parts.append(OnnxNode("", kind, inputs, node.outputs, {}))
    return parts


def _axis(node: OnnxNode, form: Form) -> int:
    """The axis along which the scales of a weight differ: its outputs."""
    return 1 if form.op == "Gemm" and not node.attributes.get("transB") else form.axis
