"""Normalisations that ONNX exporters take apart into a chain of operators, recognised at the chain's last node.

Layer normalisation (before opset 17), group normalisation (as an instance normalisation of a reshaped value) and local
response normalisation (as torch computes it: Krizhevsky et al. 2012, section 3.3). Same function up to float32
rounding.
"""

from collections.abc import Mapping
from typing import Any

from slimwright.importers.onnx.step import Step
from slimwright.importers.onnx.values import Flow, Known, Made, Operand


def layer_norm(step: Step, one: Operand, other: Operand) -> Flow | None:
    """`(x - mean) / sqrt(variance + eps)` over the last dimensions; scale and shift follow."""
    match step.trace.made(one), step.trace.made(other):
        case (
            Made("sub.Tensor", {"self": Flow() as x, "other": Flow() as average}),
            Made("sqrt.default", {"self": Flow() as moved}),
        ):
            axes = _mean_of(step, average, x)
            eps = _variance_plus(step, moved, one, axes)
            if axes is not None and eps is not None:
                return step.flow_call("layer_norm.default", x, x.shape[axes[0] :], None, None, eps, False)
    return None


def group_norm(step: Step, one: Operand, shift: Operand) -> Flow | None:
    """`reshape(instance_norm(reshape(x))) * scale + shift`."""
    match step.trace.made(one):
        case Made("mul.Tensor", {"self": Flow() as back, "other": Known() as scale}):
            pass
        case _:
            return None
    norm = _reads(step, back, "reshape.default")
    flat = _reads(step, norm, "instance_norm.default")
    x = _reads(step, flat, "reshape.default")
    made = step.trace.made(norm)
    if x is None or flat is None or made is None or back.shape != x.shape or len(flat.shape) != 3:
        return None
    weight, bias = made.arguments["weight"], made.arguments["bias"]
    plain = bool((weight.at[0] == 1).all()) and not bool(bias.at[0].any())
    own = [_per_channel(step, tensor, x) for tensor in (scale, shift)]
    groups = flat.shape[1]
    if not plain or None in own or x.shape[1] % groups or flat.shape[0] != x.shape[0]:
        return None
    return step.flow_call("group_norm.default", x, groups, *own, made.arguments["eps"], False)


def local_response(step: Step, x: Operand, divisor: Operand) -> Flow | None:
    """`x / (k + alpha * mean of squares over neighbouring channels) ** beta`."""
    power = _made(step, divisor, "pow.Tensor_Scalar")
    moved = _made(step, power.get("self"), "add.Tensor")
    scaled = _made(step, moved.get("self"), "mul.Tensor")
    pooled = _reads(step, scaled.get("self"), "squeeze.dims")
    pool = _made(step, pooled, "avg_pool3d.default")
    pad = _made(step, pool.get("self"), "constant_pad_nd.default")
    raised = pad.get("self")
    squares = _reads(step, raised, "reshape.default") or _reads(step, raised, "unsqueeze.default")
    square = _made(step, squares, "mul.Tensor")
    if not isinstance(x, Flow) or not isinstance(raised, Flow) or len(x.shape) != 4:
        return None
    if not (_same(square.get("self"), x) and _same(square.get("other"), x)):
        return None
    size = pool["kernel_size"][0]
    exact = (
        raised.shape == (x.shape[0], 1, *x.shape[1:])
        and tuple(pool["kernel_size"]) == (size, 1, 1)
        and tuple(pool["stride"]) == (1, 1, 1)
        and not any(pool["padding"])
        and tuple(pad["pad"]) == (0, 0, 0, 0, size // 2, (size - 1) // 2)
        and pad["value"] == 0
    )
    knobs = {"alpha": scaled.get("other"), "beta": power.get("exponent"), "k": moved.get("other")}
    if not exact or not all(isinstance(knob, float) for knob in knobs.values()):
        return None
    return step.trace.layer("lrn", x, {"size": size, **knobs})


def _made(step: Step, value: Any, overload: str) -> Mapping[str, Any]:
    """The arguments of the call that made a value, if it was this one."""
    made = step.trace.made(value) if isinstance(value, Flow) else None
    return made.arguments if made is not None and made.overload == overload else {}


def _reads(step: Step, value: Any, overload: str) -> Flow | None:
    """The first value that was read for this one, if the call was this one."""
    arguments = _made(step, value, overload)
    source = next(iter(arguments.values()), None)
    return source if isinstance(source, Flow) else None


def _per_channel(step: Step, tensor: Operand, x: Flow) -> Known | None:
    if not isinstance(tensor, Known) or not tensor.fixed or tensor.at[0].numel() != x.shape[1]:
        return None
    lined_up = (1,) * (len(x.shape) - tensor.at[0].ndim) + tensor.shape
    if lined_up != (1, x.shape[1], *(1 for _ in x.shape[2:])):
        return None
    return step.trace.derived(tensor, "as (-1,)", lambda: tensor.at[0].reshape(-1).contiguous())


def _mean_of(step: Step, average: Operand, x: Flow) -> tuple[int, ...] | None:
    """The axes of a mean of x, if they are the last ones and stay."""
    match step.trace.made(average):
        case Made("mean.dim", {"self": Flow() as source, "dim": tuple(axes), "keepdim": True}):
            last = tuple(range(len(x.shape) - len(axes), len(x.shape)))
            return last if _same(source, x) and tuple(sorted(axes)) == last else None
    return None


def _variance_plus(step: Step, moved: Flow, centred: Operand, axes: tuple[int, ...] | None) -> float | None:
    """The eps of a mean square plus eps."""
    match step.trace.made(moved):
        case Made("add.Tensor", {"self": Flow() as variance, "other": float(eps)}) if axes is not None:
            match step.trace.made(variance):
                case Made("mean.dim", {"self": Flow() as square}):
                    if _is_square(step, square, centred) and _mean_of(step, variance, square) == axes:
                        return eps
    return None


def _is_square(step: Step, square: Flow, of: Operand) -> bool:
    match step.trace.made(square):
        case Made("pow.Tensor_Scalar", {"self": Flow() as base, "exponent": 2.0}):
            return _same(base, of)
        case Made("mul.Tensor", {"self": Flow() as one, "other": Flow() as other}):
            return _same(one, of) and _same(other, of)
    return False


def _same(one: object, other: object) -> bool:
    return isinstance(one, Flow) and isinstance(other, Flow) and one.name == other.name
