"""ONNX's reductions as ATen calls. None may run over the batch: images must not mix.

Source: the ONNX operator specifications, opsets 7 to 25.
"""

from collections.abc import Callable

from slimwright.errors import UnsupportedOp
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


def reduction(overload: str) -> Callable[[Step], Operand]:
    """A sum, mean, maximum or the like over some axes."""

    def reduced(step: Step) -> Operand:
        x, axes, keep = _over(step)
        return step.call(overload, x, axes, keep) if axes else x

    return reduced


def reduce_norm(order: float) -> Callable[[Step], Operand]:
    """A vector norm over some axes."""

    def reduced(step: Step) -> Operand:
        x, axes, keep = _over(step)
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
    x, axes, keep = _over(step)
    return step.call("sum.dim_IntList", step.call("mul.Tensor", x, x), axes, keep)


def arg_max(step: Step) -> Operand:
    """The place of the largest value along one axis."""
    x = step.operand(0)
    axis = axis_of(step.attr_int("axis", 0), len(x.shape))
    _keeps_batch(x, (axis,))
    if step.attr_int("select_last_index", 0):
        raise UnsupportedOp("its select_last_index is 1; torch takes the first of equal values")
    return step.call("argmax.default", x, axis, step.attr_int("keepdims", 1) == 1)


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
