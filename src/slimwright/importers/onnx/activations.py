"""ONNX's activations as ATen calls.

Source: the ONNX operator specifications, opsets 7 to 25.
"""

import math

import torch

from slimwright.errors import UnsupportedOp
from slimwright.importers.onnx.step import Step, axis_of
from slimwright.importers.onnx.values import Known, Operand


def leaky_relu(step: Step) -> Operand:
    """A small slope below zero."""
    return step.call("leaky_relu.default", step.operand(0), step.attr_float("alpha", 0.01))


def elu(step: Step) -> Operand:
    """An exponential below zero."""
    return step.call("elu.default", step.operand(0), step.attr_float("alpha", 1.0), 1.0, 1.0)


def selu(step: Step) -> Operand:
    """A scaled ELU; the defaults are those of Klambauer et al. 2017 (arXiv 1706.02515)."""
    alpha = step.attr_float("alpha", 1.6732632423543772)
    return step.call("elu.default", step.operand(0), alpha, step.attr_float("gamma", 1.0507009873554805), 1.0)


def celu(step: Step) -> Operand:
    """A continuously differentiable ELU."""
    return step.call("celu.default", step.operand(0), step.attr_float("alpha", 1.0))


def softsign(step: Step) -> Operand:
    """X / (1 + |x|)."""
    x = step.operand(0)
    return step.call("div.Tensor", x, step.call("add.Tensor", step.call("abs.default", x), 1.0))


def thresholded_relu(step: Step) -> Operand:
    """Zero up to a threshold."""
    return step.call("threshold.default", step.operand(0), step.attr_float("alpha", 1.0), 0.0)


def gelu(step: Step) -> Operand:
    """The Gaussian error linear unit."""
    return step.call(
        "gelu.default", step.operand(0), keywords={"approximate": step.choice("approximate", ("none", "tanh"))}
    )


def swish(step: Step) -> Operand:
    """X * sigmoid(alpha x)."""
    x, alpha = step.operand(0), step.attr_float("alpha", 1.0)
    if alpha == 1:
        return step.call("silu.default", x)
    return step.call("mul.Tensor", x, step.call("sigmoid.default", step.call("mul.Tensor", x, alpha)))


def hard_sigmoid(step: Step) -> Operand:
    """Alpha x + beta between 0 and 1; torch has it with a slope of 1/6."""
    x, alpha, beta = step.operand(0), step.attr_float("alpha", 0.2), step.attr_float("beta", 0.5)
    if math.isclose(alpha, 1 / 6, rel_tol=1e-6) and beta == 0.5:
        return step.call("hardsigmoid.default", x)
    line = step.call("add.Tensor", step.call("mul.Tensor", x, alpha), beta)
    return step.call("hardtanh.default", line, 0.0, 1.0)


def clip(step: Step) -> Operand:
    """Between two limits, either of which may be left out."""
    x = step.operand(0)
    if step.opset < 11:
        least, most = step.attr_float("min", -math.inf), step.attr_float("max", math.inf)
    else:
        below, above = step.number(1, "min"), step.number(2, "max")
        least, most = -math.inf if below is None else below, math.inf if above is None else above
    extreme = torch.finfo(torch.float32).max
    low, high = (None if abs(limit) >= extreme else limit for limit in (least, most))
    if low is None and high is None:
        return x
    if isinstance(x, Known) or low is None or high is None or low >= high:
        return step.call("relu.default", x) if (low, high) == (0, None) else step.call("clamp.default", x, low, high)
    return step.call("hardtanh.default", x, low, high)


def softmax(step: Step) -> Operand:
    """Positive numbers with a sum of one; before opset 13 over all dimensions from `axis` on."""
    overload = "softmax.int" if step.node.op == "Softmax" else "log_softmax.int"
    x = step.flow()
    rank = len(x.shape)
    axis = axis_of(step.attr_int("axis", -1 if step.opset >= 13 else 1), rank)
    if step.opset >= 13 or math.prod(x.shape[axis + 1 :]) == 1:
        return step.call(overload, x, axis)
    flat = step.flow_call("flatten.using_ints", x, axis, -1)
    sizes = tuple(-1 if at == x.batch_axis else n for at, n in enumerate(x.shape))
    return step.call("reshape.default", step.call(overload, flat, axis), sizes)


def dropout(step: Step) -> Operand:
    """Nothing, at inference; kept for training."""
    ratio = step.attr_float("ratio", 0.5) if step.opset < 12 else step.number(1, "ratio")
    if step.number(2, "training_mode"):
        raise UnsupportedOp("it drops at inference too (training_mode); export the model in eval mode")
    x = step.operand(0)
    return x if isinstance(x, Known) else step.call("dropout.default", x, 0.5 if ratio is None else ratio, False)
