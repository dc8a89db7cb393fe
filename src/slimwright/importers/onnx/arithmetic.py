"""ONNX's arithmetic, element by element, as ATen calls.

Source: the ONNX operator specifications, opsets 7 to 25.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from slimwright.errors import UnsupportedOp
from slimwright.importers.onnx import fuse
from slimwright.importers.onnx.step import Step
from slimwright.importers.onnx.tensors import DTYPES
from slimwright.importers.onnx.values import Flow, Known, Operand

UNARY = {
    "Abs": "abs.default", "Acos": "acos.default", "Acosh": "acosh.default", "Asin": "asin.default",
    "Asinh": "asinh.default", "Atan": "atan.default", "Atanh": "atanh.default", "Ceil": "ceil.default",
    "Cos": "cos.default", "Cosh": "cosh.default", "Erf": "erf.default", "Exp": "exp.default",
    "Floor": "floor.default", "HardSwish": "hardswish.default", "IsNaN": "isnan.default", "Log": "log.default",
    "Mish": "mish.default", "Neg": "neg.default", "Not": "logical_not.default", "Reciprocal": "reciprocal.default",
    "Relu": "relu.default", "Round": "round.default", "Sigmoid": "sigmoid.default", "Sign": "sign.default",
    "Sin": "sin.default", "Sinh": "sinh.default", "Softplus": "softplus.default", "Sqrt": "sqrt.default",
    "Tan": "tan.default", "Tanh": "tanh.default",
}  # fmt: skip
BINARY = {
    "And": "logical_and.default", "Equal": "eq.Tensor", "Greater": "gt.Tensor", "GreaterOrEqual": "ge.Tensor",
    "Less": "lt.Tensor", "LessOrEqual": "le.Tensor", "Or": "logical_or.default", "Xor": "logical_xor.default",
}  # fmt: skip
WITH_NUMBER = {"eq.Tensor": "eq.Scalar", "gt.Tensor": "gt.Scalar", "ge.Tensor": "ge.Scalar", "lt.Tensor": "lt.Scalar",
               "le.Tensor": "le.Scalar"}  # fmt: skip


def unary(step: Step) -> Operand:
    """An operator on one value, without knobs."""
    return step.call(UNARY[step.node.op], step.operand(0))


def binary(step: Step) -> Operand:
    """A comparison or a logical operator."""
    overload = BINARY[step.node.op]
    one, other = step.operand(0), step.operand(1)
    number = plain_number(other, one)
    if number is not None and overload in WITH_NUMBER:
        return step.call(WITH_NUMBER[overload], one, number)
    return step.call(overload, one, other)


def identity(step: Step) -> Operand:
    """The value itself."""
    return step.operand(0)


def constant_(step: Step) -> Operand:
    """A tensor stored in the node."""
    for name, kind in (("value_float", torch.float32), ("value_floats", torch.float32), ("value_int", torch.int64),
                       ("value_ints", torch.int64)):  # fmt: skip
        if name in step.node.attributes:
            return Known((tensor := torch.tensor(step.node.attributes[name], dtype=kind), tensor), step.trace.about)
    value = step.node.attributes.get("value")
    if not isinstance(value, Tensor):
        raise UnsupportedOp(f"it holds {', '.join(step.node.attributes) or 'nothing'}; only tensors are supported")
    return Known((value, value), step.trace.about)


# arithmetic


def add(step: Step) -> Operand:
    """A sum; a constant added to a layer becomes its bias."""
    one, other = _in_turn(step)
    return fuse.biased(step, one, other) or _with(step, "add.Tensor", one, other)


def sub(step: Step) -> Operand:
    """A difference."""
    one, other = step.operand(0), step.operand(1)
    number = plain_number(one, other)
    if number is not None:
        return step.call("rsub.Scalar", other, number)
    return _with(step, "sub.Tensor", one, other)


def mul(step: Step) -> Operand:
    """A product; some are part of an activation that the exporter took apart."""
    one, other = _in_turn(step)
    return (
        fuse.activation(step, one, other)
        or fuse.activation(step, other, one)
        or fuse.scaled(step, one, other)
        or _with(step, "mul.Tensor", one, other)
    )


def div(step: Step) -> Operand:
    """A quotient; of integers, towards zero."""
    one, other = step.operand(0), step.operand(1)
    if isinstance(one.at[0], Tensor) and not one.at[0].is_floating_point():
        return step.call("div.Tensor_mode", one, other, keywords={"rounding_mode": "trunc"})
    if (found := fuse.quotient(step, one, other)) is not None:
        return found
    number = plain_number(one, other)
    if number is not None:
        inverse = step.call("reciprocal.default", other)
        return inverse if number == 1 else step.call("mul.Tensor", inverse, number)
    return _with(step, "div.Tensor", one, other)


def pow_(step: Step) -> Operand:
    """A power."""
    base, exponent = step.operand(0), step.operand(1)
    if (number := plain_number(exponent, base)) is not None:
        return step.call("sqrt.default", base) if number == 0.5 else step.call("pow.Tensor_Scalar", base, number)
    if (number := plain_number(base, exponent)) is not None:
        return step.call("pow.Scalar", number, exponent)
    return step.call("pow.Tensor_Tensor", base, exponent)


def mod(step: Step) -> Operand:
    """The rest of a division: with the sign of the divisor, or with `fmod` that of the number."""
    overload = "fmod.Tensor" if step.attr_int("fmod", 0) else "remainder.Tensor"
    return step.call(overload, step.operand(0), step.operand(1))


def variadic(overload: str) -> Callable[[Step], Operand]:
    """An operator that goes on from value to value."""

    def folded(step: Step) -> Operand:
        result = step.operand(0)
        for place in range(1, len(step.node.inputs)):
            other = step.operand(place)
            if (number := plain_number(other, result)) is not None and overload in CLAMPS:
                result = step.call("clamp.default", result, *CLAMPS[overload](number))
            elif (number := plain_number(result, other)) is not None and overload in CLAMPS:
                result = step.call("clamp.default", other, *CLAMPS[overload](number))
            else:
                result = step.call(overload, result, other)
        return result

    return folded


CLAMPS: dict[str, Callable[[float], tuple[float | None, float | None]]] = {
    "maximum.default": lambda number: (number, None),
    "minimum.default": lambda number: (None, number),
}


def mean(step: Step) -> Operand:
    """The mean of several values."""
    return step.call("mul.Tensor", variadic("add.Tensor")(step), 1 / len(step.node.inputs))


def where(step: Step) -> Operand:
    """One value or another, element by element."""
    return step.call("where.self", step.operand(0), step.operand(1), step.operand(2))


def _in_turn(step: Step) -> tuple[Operand, Operand]:
    """The two operands of an operator in which their order does not matter, the one from the images first."""
    one, other = step.operand(0), step.operand(1)
    return (other, one) if isinstance(one, Known) and isinstance(other, Flow) else (one, other)


def _with(step: Step, overload: str, one: Operand, other: Operand) -> Operand:
    number = plain_number(other, one)
    return step.call(overload, one, other if number is None else number)


def plain_number(value: Operand, beside: Operand) -> float | None:
    """A constant of one element as a plain number, where it does not change the other value's shape."""
    if not isinstance(value, Known) or not isinstance(beside, Flow) or value.at[0].numel() != 1 or not value.fixed:
        return None
    return value.at[0].item() if value.at[0].ndim <= len(beside.shape) else None


def cast(step: Step) -> Operand:
    """Another kind of number."""
    x = step.operand(0)
    dtype = step.operand(1).at[0].dtype if step.node.op == "CastLike" else DTYPES.get(step.attr_int("to"))
    if dtype is None:
        raise UnsupportedOp(f"it makes numbers of data type {step.attr_int('to')}, which is not supported")
    if x.at[0].dtype == dtype:
        return x
    return step.call("_to_copy.default", x, keywords={"dtype": str(dtype)})
