"""ONNX's operators with a window over space: pooling, padding, resizing, and moving space into channels.

ONNX pads the two ends of an axis by amounts of their own, torch by one for both; where they differ, a padding node
comes first. Sizes follow the formula of ONNX Runtime: with e = (kernel - 1) * dilation + 1,
out = floor_or_ceil((in + begin + end - e) / stride) + 1, less one where ceil would start a window beyond the image.
Source: the ONNX operator specifications of Conv, MaxPool, AveragePool, GlobalAveragePool, Pad, DepthToSpace and
SpaceToDepth, opsets 7 to 25.
"""

import math
from dataclasses import dataclass

import torch

from slimwright.errors import ModelError, UnsupportedOp
from slimwright.importers.onnx.step import Step, axis_of
from slimwright.importers.onnx.values import Flow, Operand, constant

MAX_POOLS = {3: "max_pool1d.default", 4: "max_pool2d.default", 5: "max_pool3d.default"}
AVERAGE_POOLS = {3: "avg_pool1d.default", 4: "avg_pool2d.default", 5: "avg_pool3d.default"}


@dataclass(frozen=True)
class Window:
    """A window over space, one entry per axis; `begin` and `end` say what is padded."""

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    dilation: tuple[int, ...]
    begin: tuple[int, ...]
    end: tuple[int, ...]

    @property
    def extent(self) -> tuple[int, ...]:
        """From the first element of a window to its last."""
        return tuple((k - 1) * d + 1 for k, d in zip(self.kernel, self.dilation, strict=True))


def window_of(step: Step, x: Flow, kernel: tuple[int, ...]) -> Window:
    """Return the window that a node's attributes describe. Raises ModelError, naming the attribute."""
    rank = len(x.shape) - 2
    ones = (1,) * rank
    stride, dilation = step.attr_ints("strides", ones) or (), step.attr_ints("dilations", ones) or ()
    pads = step.attr_ints("pads", (0,) * 2 * rank) or ()
    for name, values, length, least in (
        ("kernel_shape", kernel, rank, 1), ("strides", stride, rank, 1), ("dilations", dilation, rank, 1),
        ("pads", pads, 2 * rank, 0),
    ):  # fmt: skip
        if len(values) != length or min(values, default=least) < least or max(values, default=0) >= 2**31:
            raise ModelError(f"its {name} is {list(values)}; it must be {length} numbers from {least}")
    plain = Window(kernel, stride, dilation, pads[:rank], pads[rank:])
    automatic = step.choice("auto_pad", ("NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER"))
    if automatic == "NOTSET":
        return plain
    total = [
        max((-(-size // s) - 1) * s + e - size, 0) if automatic != "VALID" else 0
        for size, s, e in zip(x.shape[2:], stride, plain.extent, strict=True)
    ]
    small, large = tuple(t // 2 for t in total), tuple(t - t // 2 for t in total)
    begin, end = (large, small) if automatic == "SAME_LOWER" else (small, large)
    return Window(kernel, stride, dilation, begin, end)


def padded(
    step: Step, x: Flow, window: Window, value: float, *, most: tuple[int, ...] | None
) -> tuple[Flow, tuple[int, ...]]:
    """Return the value to work on and the padding that is left to the operator itself, which takes `most`."""
    if window.begin == window.end and (most is None or all(b <= m for b, m in zip(window.begin, most, strict=True))):
        return x, window.begin
    return pad_ends(step, x, window.begin, window.end, value), (0,) * len(window.kernel)


def pad_ends(step: Step, x: Flow, begin: tuple[int, ...], end: tuple[int, ...], value: float) -> Flow:
    """Pad the last dimensions; a negative amount cuts off."""
    sides = [side for pair in zip(reversed(begin), reversed(end), strict=True) for side in pair]
    return step.flow_call("constant_pad_nd.default", x, tuple(sides), value) if any(sides) else x


def max_pool(step: Step) -> Operand:
    """The largest value in each window."""
    x, window, ceil = _pool(step, MAX_POOLS)
    half = tuple(k // 2 for k in window.kernel)
    if window.begin != window.end or any(b > h for b, h in zip(window.begin, half, strict=True)):
        x = pad_ends(step, x, window.begin, _reach(x, window, ceil), -math.inf)
        window, ceil = _unpadded(window), False
    return step.call(MAX_POOLS[len(x.shape)], x, window.kernel, window.stride, window.begin, window.dilation, ceil)


def average_pool(step: Step) -> Operand:
    """The mean over each window: over the image alone, or over the padding too."""
    x, window, ceil = _pool(step, AVERAGE_POOLS)
    counted = bool(step.attr_int("count_include_pad", 0))
    if max(window.dilation) > 1:
        raise UnsupportedOp(f"its dilations are {list(window.dilation)}; an average with gaps is not supported")
    overload = AVERAGE_POOLS[len(x.shape)]
    half = tuple(k // 2 for k in window.kernel)
    told = len(x.shape) > 3  # by how much to divide, which torch's pooling of one dimension is not
    if window.begin == window.end and all(b <= h for b, h in zip(window.begin, half, strict=True)):
        return step.call(overload, x, window.kernel, window.stride, window.begin, ceil, counted, *[None] * told)
    divisor = _divisors(step, x, window, ceil, counted)
    most, whole = int(divisor.max()), math.prod(window.kernel)
    same = bool((divisor == most).all())
    x = pad_ends(step, x, window.begin, _reach(x, window, ceil), 0.0)
    zero = (0,) * len(window.kernel)
    mean = step.call(overload, x, window.kernel, window.stride, zero, False, True, *[most if same else 1] * told)
    if same and (told or most == whole):
        return mean
    share = constant(((1 if told else whole) / divisor.double()).float(), f"{step.trace.about}.share")
    return step.call("mul.Tensor", mean, share)


def _pool(step: Step, known: dict[int, str]) -> tuple[Flow, Window, bool]:
    x = step.flow()
    if len(x.shape) not in known:
        raise UnsupportedOp(f"it pools a value of shape {list(x.shape)}; only images are supported")
    kernel = step.attr_ints("kernel_shape")
    if kernel is None:
        raise ModelError("it has no attribute 'kernel_shape'")
    window = window_of(step, x, kernel)
    if step.attr_text("auto_pad", "NOTSET").startswith("SAME") and any(
        (-(-size // s) - 1) * s + e < size for size, s, e in zip(x.shape[2:], window.stride, window.extent, strict=True)
    ):
        raise UnsupportedOp("its strides skip parts of the image, for which auto_pad is not defined; give pads")
    if any(p >= k for p, k in zip(window.begin + window.end, window.kernel * 2, strict=True)):
        raise ModelError(f"its pads {list(window.begin + window.end)} reach beyond its kernel_shape {list(kernel)}")
    return x, window, bool(step.attr_int("ceil_mode", 0))


def _unpadded(window: Window) -> Window:
    zero = (0,) * len(window.kernel)
    return Window(window.kernel, window.stride, window.dilation, zero, zero)


def _sizes(x: Flow, window: Window, ceil: bool) -> list[int]:
    sizes = []
    for axis, size in enumerate(x.shape[2:]):
        room = size + window.begin[axis] + window.end[axis] - window.extent[axis]
        stride = window.stride[axis]
        if room < 0:
            raise ModelError(f"its window of {window.extent[axis]} is larger than the padded image of {size}")
        out = (-(-room // stride) if ceil else room // stride) + 1
        if ceil and (out - 1) * stride >= size + window.begin[axis]:
            out -= 1
        sizes.append(out)
    return sizes


def _reach(x: Flow, window: Window, ceil: bool) -> tuple[int, ...]:
    """What to pad at the ends so that windows without ceil_mode come to the right number."""
    ends = []
    for axis, out in enumerate(_sizes(x, window, ceil)):
        last = (out - 1) * window.stride[axis] + window.extent[axis]
        ends.append(max(last - x.shape[2 + axis] - window.begin[axis], 0))
    return tuple(ends)


def _divisors(step: Step, x: Flow, window: Window, ceil: bool, counted: bool) -> torch.Tensor:
    """How many elements each window averages over: [1, 1, out, ...]."""
    sizes = _sizes(x, window, ceil)
    step.trace.afford(math.prod(sizes), torch.int64)
    product = torch.ones((1, 1, *(1 for _ in sizes)), dtype=torch.int64)
    for axis, out in enumerate(sizes):
        size, begin = x.shape[2 + axis], window.begin[axis]
        start = torch.arange(out) * window.stride[axis] - begin
        low, high = (-begin, size + window.end[axis]) if counted else (0, size)
        count = (start + window.kernel[axis]).clamp(max=high) - start.clamp(min=low)
        product = product * count.reshape([-1 if a == axis else 1 for a in range(-2, len(sizes))])
    return product


def global_average_pool(step: Step) -> Operand:
    """The mean over space, which stays as dimensions of one."""
    x = step.flow()
    if len(x.shape) == 4:
        return step.call("adaptive_avg_pool2d.default", x, (1, 1))
    return step.call("mean.dim", x, tuple(range(2, len(x.shape))), True)


def global_max_pool(step: Step) -> Operand:
    """The largest value over space, which stays as dimensions of one."""
    x = step.flow()
    if len(x.shape) not in MAX_POOLS:
        raise UnsupportedOp(f"it pools a value of shape {list(x.shape)}; only images are supported")
    return step.call(MAX_POOLS[len(x.shape)], x, x.shape[2:])


PAD_MODES = {"constant": "constant", "reflect": "reflect", "edge": "replicate", "wrap": "circular"}


def pad(step: Step) -> Operand:
    """Padding of any dimensions by a number, or of the last ones by what is there."""
    x = step.operand(0)
    rank = len(x.shape)
    amounts = step.attr_ints("pads") if "pads" in step.node.attributes else step.numbers(1, "pads")
    axes = step.numbers(3, "axes")
    axes = tuple(range(rank)) if axes is None else tuple(axis_of(axis, rank) for axis in axes)
    if amounts is None or len(amounts) != 2 * len(axes) or len(set(axes)) != len(axes):
        raise ModelError(f"its pads are {amounts}; they must be two numbers for each of {len(axes)} axes")
    begin, end = [0] * rank, [0] * rank
    for place, axis in enumerate(axes):
        begin[axis], end[axis] = amounts[place], amounts[len(axes) + place]
    first = next((axis for axis in range(rank) if begin[axis] or end[axis]), rank)
    if first == rank:
        return x
    mode = PAD_MODES[step.choice("mode", tuple(PAD_MODES))]
    if mode != "constant":
        first = min(first, 2)  # torch wants amounts for every dimension behind the channels
    if isinstance(x, Flow) and x.batch_axis is not None and (begin[x.batch_axis] or end[x.batch_axis]):
        raise UnsupportedOp("it pads the batch")
    sides = tuple(side for axis in range(rank - 1, first - 1, -1) for side in (begin[axis], end[axis]))
    if mode != "constant":
        return step.call("pad.default", x, sides, mode)
    value = step.attr_float("value", 0.0) if step.opset < 11 else step.number(2, "constant_value")
    return step.call("constant_pad_nd.default", x, sides, value or 0.0)


def depth_to_space(step: Step) -> Operand:
    """Channels become space: [N, C, H, W] -> [N, C/b^2, bH, bW]."""
    x, block = _blocks(step)
    _, channels, height, width = x.shape
    if channels % block**2:
        raise ModelError(f"its {channels} channels cannot be split into blocks of {block}x{block}")
    if step.choice("mode", ("DCR", "CRD")) == "CRD":
        return step.call("pixel_shuffle.default", x, block)
    if step.trace.open_sizes:  # reshapes would name the sizes of the image
        order = torch.arange(channels).reshape(block**2, -1).T.reshape(-1)
        x = step.flow_call("index.Tensor", x, (None, constant(order, f"{step.trace.about}.index")))
        return step.call("pixel_shuffle.default", x, block)
    x = step.flow_call("reshape.default", x, (-1, block, block, channels // block**2, height, width))
    x = step.flow_call("permute.default", x, (0, 3, 4, 1, 5, 2))
    return step.call("reshape.default", x, (-1, channels // block**2, height * block, width * block))


def space_to_depth(step: Step) -> Operand:
    """Space becomes channels: [N, C, H, W] -> [N, C*b^2, H/b, W/b]."""
    x, block = _blocks(step)
    _, channels, height, width = x.shape
    if height % block or width % block:
        raise ModelError(f"its image of {height}x{width} cannot be split into blocks of {block}x{block}")
    x = step.flow_call("reshape.default", x, (-1, channels, height // block, block, width // block, block))
    x = step.flow_call("permute.default", x, (0, 3, 5, 1, 2, 4))
    return step.call("reshape.default", x, (-1, channels * block**2, height // block, width // block))


def _blocks(step: Step) -> tuple[Flow, int]:
    x, block = step.flow(), step.attr_int("blocksize")
    if len(x.shape) != 4 or block < 1:
        raise ModelError(f"its blocksize is {block} and its value {list(x.shape)}; it must be images")
    return x, block
