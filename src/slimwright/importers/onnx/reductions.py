"""ONNX's reductions as ATen calls. None may run over the batch: images must not mix.

Source: the ONNX operator specifications, opsets 7 to 25.
"""

from collections.abc import Callable

import torch

from slimwright.errors import ModelError, UnsupportedOp
from slimwright.importers.onnx.step import Step, axis_of
from slimwright.importers.onnx.values import Flow, Operand


def _over(step: Step) -> tuple[Operand, tuple[int, ...], bool]:
    """The value, the axes to reduce, and whether they stay as dimensions of one."""
    x, given = step.operand(0), step.axes(1)
    rank = len(x.shape)
    axes = tuple(axis_of(axis, rank) for axis in given or ())
    if not axes and not step.attr_int("noop_with_empty_axes", 0):
        axes = tuple(range(rank))
    _keeps_batch(x, axes)
    return x, axes, step.attr_int("keepdims", 1) == 1


def _keeps_batch(x: Operand, axes: tuple[int, ...]) -> None:
    if isinstance(x, Flow) and x.batch_axis in axes:
        raise UnsupportedOp(f"it reduces axis {x.batch_axis}, which is the batch: images must not mix")


def _over_some(step: Step) -> tuple[Operand, tuple[int, ...], bool]:
    """The same, for an operator that changes a value even where it reduces nothing."""
    x, axes, keep = _over(step)
    if not axes:
        raise UnsupportedOp("it reduces no axis (noop_with_empty_axes), and would change each value; give it axes")
    return x, axes, keep


def reduction(overload: str) -> Callable[[Step], Operand]:
    """A sum, mean, maximum or the like over some axes."""

    def reduced(step: Step) -> Operand:
        x, axes, keep = _over(step)
        return step.call(overload, x, axes, keep) if axes else x

    return reduced


def reduce_norm(order: float) -> Callable[[Step], Operand]:
    """A vector norm over some axes."""

    def reduced(step: Step) -> Operand:
        x, axes, keep = _over_some(step)
        return step.call("linalg_vector_norm.default", x, order, axes, keep)

    return reduced


def reduce_prod(step: Step) -> Operand:
    """A product over some axes."""
    x, axes, keep = _over(step)
    for axis in sorted(axes, reverse=True):
        x = step.call("prod.dim_int", x, axis, keep)
    return x


def reduce_sum_square(step: Step) -> Operand:
    """A sum of squares over some axes."""
    x, axes, keep = _over_some(step)
    return step.call("sum.dim_IntList", step.call("mul.Tensor", x, x), axes, keep)


def reduce_log_sum(step: Step) -> Operand:
    """The logarithm of a sum over some axes."""
    x, axes, keep = _over_some(step)
    return step.call("log.default", step.call("sum.dim_IntList", x, axes, keep))


def lp_normalize(step: Step) -> Operand:
    """A value over its norm along one axis; zeros stay zeros."""
    x = step.operand(0)
    axis = axis_of(step.attr_int("axis", -1), len(x.shape))
    _keeps_batch(x, (axis,))
    norm = step.call("linalg_vector_norm.default", x, float(step.attr_int("p", 2)), (axis,), True)
    return step.call("div.Tensor", x, step.call("clamp.default", norm, torch.finfo(torch.float32).tiny, None))


def place_of(overload: str) -> Callable[[Step], Operand]:
    """The place of the largest or the smallest value along one axis."""

    def placed(step: Step) -> Operand:
        x = step.operand(0)
        axis = axis_of(step.attr_int("axis", 0), len(x.shape))
        _keeps_batch(x, (axis,))
        if step.attr_int("select_last_index", 0):
            raise UnsupportedOp("its select_last_index is 1; torch takes the first of equal values")
        return step.call(overload, x, axis, step.attr_int("keepdims", 1) == 1)

    return placed


def top_k(step: Step) -> tuple[Operand, ...]:
    """The largest or the smallest values along one axis, and their places; equal ones may come in another order."""
    x = step.flow()
    axis = axis_of(step.attr_int("axis", -1), len(x.shape))
    _keeps_batch(x, (axis,))
    count = step.attr_int("k") if step.opset < 10 else step.number(1, "k")
    if count is None or not 0 < count <= x.shape[axis]:
        raise ModelError(f"its k is {count}, and there are {x.shape[axis]} values along axis {axis}")
    largest, in_order = bool(step.attr_int("largest", 1)), bool(step.attr_int("sorted", 1))
    both = step.flow_call("topk.default", x, int(count), axis, largest, in_order)
    return step.trace.part(both, 0), step.trace.part(both, 1)


def cum_sum(step: Step) -> Operand:
    """Running sums along one axis."""
    x, axis = step.operand(0), step.number(1, "axis")
    if axis is None or step.attr_int("exclusive", 0) or step.attr_int("reverse", 0):
        raise UnsupportedOp("it is exclusive or runs backwards; that is not supported")
    return step.call("cumsum.default", x, axis_of(int(axis), len(x.shape)))


def trilu(step: Step) -> Operand:
    """The upper or lower triangle."""
    diagonal = int(step.number(1, "k") or 0)
    return step.call("triu.default" if step.attr_int("upper", 1) else "tril.default", step.operand(0), diagonal)
