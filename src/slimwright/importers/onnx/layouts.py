"""Where the outputs of a file have their batch, and the same outputs with the batch first."""

import math
from typing import Any

from slimwright.graph.ends import Layout
from slimwright.importers.onnx.trace import FACTOR, Trace
from slimwright.importers.onnx.values import Flow


def layout_of(output: Flow, batch: int) -> Layout | None:
    """Return where an output has its batch; None where it has none."""
    axis = output.batch_axis
    if axis is None or output.shape[axis] % (batch * output.outer):
        return None
    inner = output.shape[axis] // (batch * output.outer)
    grows = output.at[1].shape[axis] == output.outer * FACTOR * batch * inner
    return Layout(axis, output.outer, inner) if grows else None


def batch_first(trace: Trace, output: Flow, layout: Layout) -> Flow:
    """Return an output [before, outer * N * inner, after] as [N, before, outer * inner, after]."""

    def then(overload: str, *args: Any) -> Flow:
        result = trace.call(overload, *args)
        assert isinstance(result, Flow)
        return result

    axis, shape = layout.axis, output.shape
    before, after, each = shape[:axis], shape[axis + 1 :], layout.outer * layout.inner
    if each > 1:
        output = then("reshape.default", output, (*before, layout.outer, -1, layout.inner, *after))
        axis += 1
    if axis and math.prod(output.shape[:axis]) > 1:
        order = (axis, *(at for at in range(len(output.shape)) if at != axis))
        output = then("permute.default", output, order)
    elif axis:
        output = then("reshape.default", output, (-1, *output.shape[:axis], *output.shape[axis + 1 :]))
    return then("reshape.default", output, (-1, *before, each, *after)) if each > 1 else output
