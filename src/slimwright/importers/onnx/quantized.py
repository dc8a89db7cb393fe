"""Quantized models, read as the float models that they stand for.

An integer q stands for scale * (q - zero_point). Weights are worked out as float. What comes from the images is not
rounded: a value that the file holds as integers is followed as the float value, with the `Grid` on which the file
rounds it. Outside of the grid a value is cut off, and that is a part of the model where a quantizer has expressed an
activation by it: a ReLU by a zero point at the least integer, ReLU6 by a largest value of 6 besides. Other ends of a
grid were found by calibrating, so they are dropped. With `Trace.keeps_grids` rounding and both ends are kept; such a
net computes what the file does, and is there to be compared with it.
Source: Jacob et al. 2018 (arXiv 1712.05877), section 2; the ONNX operator specifications of QuantizeLinear,
DequantizeLinear, DynamicQuantizeLinear, ConvInteger and MatMulInteger, opsets 10 to 25.
"""

import math
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from slimwright.errors import ModelError, UnsupportedOp
from slimwright.importers.onnx import layers
from slimwright.importers.onnx.file import OnnxNode
from slimwright.importers.onnx.signs import at_least_zero
from slimwright.importers.onnx.step import Step, axis_of
from slimwright.importers.onnx.tensors import DTYPES
from slimwright.importers.onnx.values import Flow, Grid, Known, Operand, constant

FLOAT_MODEL = "give the float model that it was made from"
RANGES = {
    torch.uint8: (0, 2**8 - 1), torch.int8: (-(2**7), 2**7 - 1),
    torch.uint16: (0, 2**16 - 1), torch.int16: (-(2**15), 2**15 - 1), torch.int32: (-(2**31), 2**31 - 1),
}  # fmt: skip
MOVE = (
    "Concat", "DepthToSpace", "Dropout", "Expand", "Flatten", "Gather", "GlobalMaxPool", "Identity", "Max", "MaxPool",
    "Min", "Pad", "ReduceMax", "ReduceMin", "Reshape", "Resize", "Slice", "SpaceToDepth", "Split", "Squeeze", "Tile",
    "Transpose", "Unsqueeze", "Upsample",
)  # fmt: skip
"""Operators that give integers of the grid of what they read: they move them, or choose among them."""
TELL = ("ArgMax", "Shape", "Size")  # what these give is the same for integers and for what they stand for
TAKE = ("DequantizeLinear", "ConvInteger", "MatMulInteger")
VALUES_AT = {"Concat": None, "Max": None, "Min": None, "Pad": (2,)}  # which inputs, besides the first, are integers too
SIX = 1e-3  # how far from 6, relatively, the end of a grid is that stands for ReLU6


def unmarked(node: OnnxNode, operands: Sequence[Operand | None]) -> tuple[tuple[Operand | None, ...], Grid | None]:
    """Return the operands of a node as float values, and the grid that its results lie on.

    Raises UnsupportedOp for an operator that would compute with the integers themselves.
    """
    grids = [operand.grid for operand in operands if isinstance(operand, Flow) and operand.grid is not None]
    if not grids or node.op in TAKE:
        return tuple(operands), None
    if node.op not in (*MOVE, *TELL):
        raise UnsupportedOp(f"it computes with quantized integers, not with the numbers they stand for; {FLOAT_MODEL}")
    grid = grids[0]
    flows = [operand for operand in operands if isinstance(operand, Flow)]
    if any(flow.grid != grid for flow in flows):
        raise UnsupportedOp(f"it joins integers of different scales; {FLOAT_MODEL}")
    floats = [replace(o, grid=None) if isinstance(o, Flow) else o for o in operands]
    if node.op == "Pad" and (len(floats) < 3 or floats[2] is None):
        floats[2:3] = [constant(torch.zeros((), dtype=torch.uint8))]
    places = VALUES_AT.get(node.op, ())
    for place in range(len(floats)) if places is None else places:
        if isinstance(value := floats[place], Known):
            floats[place] = constant((value.at[0].float() - grid.zero_point) * grid.scale)
    return tuple(floats), grid if node.op in MOVE else None


def quantize(step: Step) -> Operand:
    """Float values as integers."""
    x, scale, zero_point = step.operand(0), _scale(step, 1), _zero_point(step, 2)
    if isinstance(x, Known):
        dtype = _kind(step, zero_point)
        along = [_along(step, t, x.at[0].ndim) for t in (scale, zero_point)]
        low, high = RANGES[dtype]
        step.trace.afford(x.at[0].numel(), dtype)
        rounded = (x.at[0] / along[0]).round() + along[1]
        return Known((made := rounded.clamp(low, high).to(dtype), made), x.wish)
    if scale.numel() != 1 or zero_point.numel() != 1:
        raise UnsupportedOp(f"its scales differ from channel to channel of an image; {FLOAT_MODEL}")
    low, high = RANGES[_kind(step, zero_point)]
    grid = Grid(float(scale), int(zero_point), low, high)
    return replace(_cut_off(step, x, grid), grid=grid)


def dequantize(step: Step) -> Operand:
    """Integers as the float values that they stand for."""
    x, scale, zero_point = step.operand(0), _scale(step, 1), _zero_point(step, 2)
    if isinstance(x, Flow):
        if x.grid is None:
            raise UnsupportedOp(f"it reads integers whose scale is not known; {FLOAT_MODEL}")
        if scale.numel() != 1 or (float(scale), int(zero_point)) != (x.grid.scale, x.grid.zero_point):
            raise UnsupportedOp(f"its scale or zero point is another than that of what it reads; {FLOAT_MODEL}")
        return replace(x, grid=None)
    if x.at[0].dtype not in RANGES:
        raise ModelError(f"it dequantizes {x.at[0].dtype}; that must be integers")
    along = [_along(step, t, x.at[0].ndim) for t in (scale, zero_point)]
    wish = x.wish.removesuffix("_quantized")
    found = step.trace.derived(
        replace(x, learned=True),
        f"dequantized by {id(step.known(1, 'scale').at[0])}",
        lambda: ((x.at[0].double() - along[1]) * along[0]).float(),
        wish=wish,
        count=x.at[0].numel() * 4,
    )
    return found


def dynamic_quantize(step: Step) -> tuple[Operand, ...]:
    """Integers by the range of each image: its scale is left out, here and where the result is multiplied by it."""
    grid = Grid(1.0, 0, *RANGES[torch.uint8])
    one, zero = constant(torch.ones(())), constant(torch.zeros((), dtype=torch.uint8))
    return replace(step.flow(), grid=grid), one, zero


def conv_integer(step: Step) -> Operand:
    """A convolution of integers, without a scale of its own."""
    flow, grid = _integers(step)
    weight = _centred(step, grid, over=(-1, *(1 for _ in flow.shape[1:])))
    return layers.conv(replace(step, operands=(flow, weight)))


def matmul_integer(step: Step) -> Operand:
    """A product of integers, without a scale of its own."""
    flow, grid = _integers(step)
    other = step.operand(1)
    if not isinstance(other, Flow):
        return layers.matmul(replace(step, operands=(flow, _centred(step, grid, over=(-1,)))))
    if other.grid is None or (grid.scale, other.grid.scale) != (1, 1):
        raise UnsupportedOp(f"both its inputs come from the images, and not by DynamicQuantizeLinear; {FLOAT_MODEL}")
    return layers.matmul(replace(step, operands=(flow, replace(other, grid=None))))


def _integers(step: Step) -> tuple[Flow, Grid]:
    """What an operator on integers reads, as float values. Raises UnsupportedOp where no scale of them is known."""
    flow = step.flow()
    if flow.grid is None or int(_zero_point(step, 2)) != flow.grid.zero_point:
        raise UnsupportedOp(f"it reads integers whose scale and zero point are not known; {FLOAT_MODEL}")
    return replace(flow, grid=None), flow.grid


def _centred(step: Step, grid: Grid, *, over: tuple[int, ...]) -> Known:
    """A weight of integers around zero, divided by the scale of what it is multiplied with.

    It does not count as learned until the scale that follows is multiplied into it (`fuse.scaled`).
    """
    weight = step.weight(1, "weight")
    zero_point = _zero_point(step, 3)
    if weight is None:
        raise ModelError("its weight (input 1) is missing")
    if zero_point.numel() > 1:
        zero_point = zero_point.reshape(over)
    return step.trace.derived(
        weight,
        f"centred over {grid.scale}",
        lambda: ((weight.at[0].double() - zero_point) / grid.scale).float(),
        wish=weight.wish.removesuffix("_quantized"),
        count=weight.at[0].numel() * 4,
    )


def _cut_off(step: Step, x: Flow, grid: Grid) -> Flow:
    """The value within the grid, as far as its ends are a part of the model; with `keeps_grids`, rounded to it."""
    if step.trace.keeps_grids:
        steps = step.flow_call("round.default", step.flow_call("div.Tensor", x, grid.scale))
        ends = grid.least - grid.zero_point, grid.most - grid.zero_point
        return step.flow_call("mul.Tensor", step.flow_call("clamp.default", steps, *map(float, ends)), grid.scale)
    if step.trace.made(x) is None:  # an image: what was calibrated on says nothing of the model
        return x
    if grid.zero_point == grid.most:
        return step.flow_call("clamp.default", x, None, 0.0)
    if grid.zero_point != grid.least:
        return x
    at_least = at_least_zero(step.trace, x)
    if math.isclose((grid.most - grid.least) * grid.scale, 6, rel_tol=SIX):
        return x if at_least and _ends_at_six(step, x) else step.flow_call("hardtanh.default", x, 0.0, 6.0)
    return x if at_least else step.flow_call("relu.default", x)


def _ends_at_six(step: Step, x: Flow) -> bool:
    made = step.trace.made(x)
    return made is not None and made.overload == "hardtanh.default" and made.arguments["max_val"] == 6


def _scale(step: Step, place: int) -> Tensor:
    if step.attr_int("block_size", 0):
        raise UnsupportedOp(f"its scales are of blocks ({step.attr_int('block_size')} values each); {FLOAT_MODEL}")
    found = step.operand(place)
    if not isinstance(found, Known) or not found.fixed:
        raise UnsupportedOp(f"its scale '{step.node.inputs[place]}' is not stored in the file; {FLOAT_MODEL}")
    scale = found.at[0]
    if not scale.is_floating_point() or scale.ndim > 1 or not bool((scale.isfinite() & (scale > 0)).all()):
        raise ModelError(f"its scale is {scale.dtype} of shape {list(scale.shape)}; it must be positive numbers")
    return scale


def _zero_point(step: Step, place: int) -> Tensor:
    """The integers that stand for zero, as int32; 0 where they are left out."""
    found = step.optional(place)
    if found is None:
        return torch.zeros((), dtype=torch.int32)
    if not isinstance(found, Known) or not found.fixed:
        raise UnsupportedOp(f"its zero point '{step.node.inputs[place]}' is not stored in the file; {FLOAT_MODEL}")
    if found.at[0].dtype not in RANGES or found.at[0].ndim > 1:
        raise ModelError(f"its zero point is {found.at[0].dtype} of shape {list(found.shape)}; it must be integers")
    return found.at[0].to(torch.int32)


def _kind(step: Step, zero_point: Tensor) -> torch.dtype:
    """The kind of integer that is made: that of the zero point, else what the attribute says, else uint8."""
    given = step.optional(2)
    if given is not None:
        return given.at[0].dtype
    dtype = DTYPES.get(step.attr_int("output_dtype", 0) or 2)
    if dtype not in RANGES:
        raise UnsupportedOp(f"it makes numbers of data type {step.attr_int('output_dtype')}; {FLOAT_MODEL}")
    return dtype


def _along(step: Step, numbers: Tensor, rank: int) -> Tensor:
    """One number, or one for each entry along the node's axis, in a shape that fits a tensor of `rank`."""
    if numbers.numel() == 1:
        return numbers.reshape(())
    axis = axis_of(step.attr_int("axis", 1), rank)
    return numbers.reshape([-1 if at == axis else 1 for at in range(rank)])
