"""Layers that ONNX exporters take apart, recognised at their last node.

What is recognised has a row of its own in `ops.OPS`: a bias added behind a linear layer or convolution, a scale and
shift behind a normalisation, and SiLU, Mish, Hardswish and GELU written out (normalisations: see `chains.py`). The
nodes that went before lose their reader and vanish. Same function up to float32 rounding.
"""

import math

from slimwright.importers.onnx import chains
from slimwright.importers.onnx.step import Step
from slimwright.importers.onnx.values import Flow, Known, Made, Operand

INTEGER_LAYERS = ("conv1d.default", "conv2d.default", "conv3d.default", "linear.default")
CHANNEL_LAYERS = ("conv1d.default", "conv2d.default", "conv3d.default", "batch_norm.default")


def biased(step: Step, one: Operand, other: Operand) -> Flow | None:
    """`one + other` as the layer of `one` with another bias."""
    if (norm := chains.group_norm(step, one, other)) is not None:
        return norm
    made = _layer(step, one, other)
    if made is None or not isinstance(other, Known):
        return None
    arguments = dict(made.arguments)
    bias = arguments.get("bias")
    if made.overload == "batch_norm.default" and isinstance(bias, Known):
        own = step.trace.derived(bias, f"plus {id(other.at[0])}", lambda: bias.at[0] + other.at[0].reshape(-1))
        return _again(step, made, {"bias": own})
    if bias is not None:
        return None
    shape = made.arguments["normalized_shape"] if made.overload == "layer_norm.default" else (-1,)
    own = step.trace.derived(other, f"as {shape}", lambda: other.at[0].reshape(shape).contiguous())
    return _again(step, made, {"bias": own, **_named_alike(step, made, own)})


def scaled(step: Step, one: Operand, other: Operand) -> Flow | None:
    """`one * other` as the layer of `one` with another weight, or the last factor of a written-out GELU."""
    if (layer := _of_integers(step, one, other)) is not None:
        return layer
    if (number := _number(other)) is not None:
        return _halved(step, one, number) or _sixth(step, one, 1 / number if number else 0.0)
    made = _layer(step, one, other)
    if made is None or not isinstance(other, Known):
        return None
    weight, bias = made.arguments.get("weight"), made.arguments.get("bias")
    factor = other.at[0]
    if made.overload == "layer_norm.default" and weight is None and bias is None:
        return _again(step, made, {"weight": step.trace.derived(other, "whole", factor.contiguous)})
    if made.overload != "batch_norm.default" or not isinstance(weight, Known) or not isinstance(bias, Known):
        return None
    own = {
        role: step.trace.derived(tensor, f"times {id(factor)}", lambda t=tensor: t.at[0] * factor.reshape(-1))  # type: ignore[misc]
        for role, tensor in (("weight", weight), ("bias", bias))
    }
    return _again(step, made, own)


def _of_integers(step: Step, one: Operand, other: Operand) -> Flow | None:
    """A layer whose weight is integers, and the scale that makes it that of the model."""
    made = step.trace.made(one)
    if made is None or not isinstance(one, Flow) or not isinstance(other, Known) or not other.fixed:
        return None
    weight = made.arguments.get("weight")
    if made.overload not in INTEGER_LAYERS or not isinstance(weight, Known) or weight.learned or made.arguments["bias"]:
        return None
    if other.at[0].numel() != 1 and _layer(step, one, other) is None:
        return None
    if not weight.fixed or _read_by(step, one) != [1]:
        return None
    rows = (-1, *(1 for _ in weight.shape[1:]))
    own = step.trace.derived(
        Known(weight.at, weight.wish, learned=True),
        f"times {id(other.at[0])}",
        lambda: weight.at[0] * other.at[0].reshape(rows),
    )
    return _again(step, made, {"weight": own})


def activation(step: Step, x: Operand, gate: Operand) -> Flow | None:
    """`x * gate` as one activation of x."""
    match step.trace.made(gate):
        case Made("sigmoid.default", {"self": Flow() as inner}) if _same(inner, x):
            return step.flow_call("silu.default", inner)
        case Made("hardsigmoid.default", {"self": Flow() as inner}) if _same(inner, x):
            return step.flow_call("hardswish.default", inner)
        case Made("tanh.default", {"self": Flow() as inner}):
            match step.trace.made(inner):
                case Made("softplus.default", {"self": Flow() as source, "beta": 1}) if _same(source, x):
                    return step.flow_call("mish.default", source)
        case Made("mul.Tensor", {"self": Flow() as inner, "other": 0.5}):
            if (erf := _one_plus_erf(step, inner)) is not None and _same(erf, x):
                return step.flow_call("gelu.default", erf)
        case _:
            pass
    match step.trace.made(x):
        case Made("mul.Tensor", {"self": Flow() as half, "other": 0.5}):
            if (erf := _one_plus_erf(step, gate)) is not None and _same(erf, half):
                return step.flow_call("gelu.default", erf)
    return None


def quotient(step: Step, one: Operand, other: Operand) -> Flow | None:
    """`one / other` as a normalisation, or the last factor of a written-out Hardswish."""
    if (number := _number(other)) is not None:
        return _sixth(step, one, number)
    return chains.layer_norm(step, one, other) or chains.local_response(step, one, other)


def _layer(step: Step, one: Operand, other: Operand) -> Made | None:
    """How `one` was made, if by a layer that nothing else reads, and `other` has a number for each of its channels."""
    made = step.trace.made(one)
    if made is None or not isinstance(one, Flow) or not isinstance(other, Known) or not other.fixed:
        return None
    if _read_by(step, one) != [1]:
        return None
    rank = len(one.shape)
    shape = (1,) * (rank - other.at[0].ndim) + other.shape
    if made.overload in CHANNEL_LAYERS and rank > 1:
        fits = shape == (1, one.shape[1], *(1 for _ in one.shape[2:]))
    elif made.overload == "linear.default":
        fits = shape == (*(1 for _ in one.shape[1:]), one.shape[-1])
    else:
        fits = made.overload == "layer_norm.default" and other.shape == tuple(made.arguments["normalized_shape"])
    return made if fits else None


def _read_by(step: Step, one: Operand) -> list[int]:
    """How many nodes read an operand, for each of the node's inputs that it is."""
    names = [name for name, operand in zip(step.node.inputs, step.operands, strict=True) if operand is one]
    return [step.readers[name] for name in names]


def _again(step: Step, made: Made, changed: dict[str, Known]) -> Flow:
    """The same layer with other tensors."""
    arguments = {**made.arguments, **changed}
    return step.flow_call(made.overload, *arguments.values())


def _named_alike(step: Step, made: Made, bias: Known) -> dict[str, Known]:
    """A weight whose own name was lost takes the name that goes with the bias's."""
    weight, (folder, _, role) = made.arguments.get("weight"), bias.wish.rpartition(".")
    if not isinstance(weight, Known) or "." in weight.wish or not folder or role != "bias":
        return {}
    return {"weight": step.trace.derived(weight, "named", lambda: weight.at[0], wish=f"{folder}.weight")}


def _halved(step: Step, product: Operand, number: float) -> Flow | None:
    """`0.5 * (x * (1 + erf(x / sqrt 2)))`."""
    match step.trace.made(product):
        case Made("mul.Tensor", {"self": Flow() as one, "other": Flow() as other}) if number == 0.5:
            for x, gate in ((one, other), (other, one)):
                if _same(_one_plus_erf(step, gate), x):
                    return step.flow_call("gelu.default", x)
    return None


def _one_plus_erf(step: Step, value: Operand) -> Flow | None:
    """The x of `1 + erf(x / sqrt 2)`."""
    match step.trace.made(value):
        case Made("add.Tensor", {"self": Flow() as error, "other": 1.0}):
            match step.trace.made(error):
                case Made("erf.default", {"self": Flow() as inner}):
                    match step.trace.made(inner):
                        case Made("div.Tensor", {"self": Flow() as x, "other": float(by)}):
                            return x if math.isclose(by, math.sqrt(2), rel_tol=1e-5) else None
                        case Made("mul.Tensor", {"self": Flow() as x, "other": float(by)}):
                            return x if math.isclose(by, math.sqrt(0.5), rel_tol=1e-5) else None
    return None


def _sixth(step: Step, value: Operand, divisor: float) -> Flow | None:
    """A sixth of `relu6(x + 3)`, which is Hardsigmoid, or of `x * relu6(x + 3)`, which is Hardswish."""
    if not math.isclose(divisor, 6, rel_tol=1e-5):
        return None
    if (x := _relu6_of_plus_three(step, value)) is not None:
        return step.flow_call("hardsigmoid.default", x)
    match step.trace.made(value):
        case Made("mul.Tensor", {"self": Flow() as one, "other": Flow() as other}):
            for x, gate in ((one, other), (other, one)):
                if _same(_relu6_of_plus_three(step, gate), x):
                    return step.flow_call("hardswish.default", x)
    return None


def _relu6_of_plus_three(step: Step, value: Operand) -> Flow | None:
    match step.trace.made(value):
        case Made("hardtanh.default", {"self": Flow() as moved, "min_val": 0, "max_val": 6}):
            match step.trace.made(moved):
                case Made("add.Tensor", {"self": Flow() as x, "other": 3.0}):
                    return x
    return None


def _same(one: Operand | None, other: Operand) -> bool:
    return isinstance(one, Flow) and isinstance(other, Flow) and one.name == other.name


def _number(value: Operand) -> float | None:
    if isinstance(value, Known) and value.at[0].numel() == 1 and value.at[0].is_floating_point() and value.fixed:
        return float(value.at[0])
    return None
