"""ONNX's weighted layers and normalisations as ATen calls.

Source: the ONNX operator specifications of Conv, ConvTranspose, Gemm, MatMul, BatchNormalization,
InstanceNormalization, LayerNormalization, GroupNormalization, RMSNormalization, PRelu and LRN, opsets 7 to 25.
"""

import math
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from slimwright.errors import ModelError, UnsupportedOp
from slimwright.importers.onnx.names import module_path
from slimwright.importers.onnx.step import Step, axis_of
from slimwright.importers.onnx.values import Flow, Known, Operand
from slimwright.importers.onnx.windows import Window, padded, window_of

CONVS = {3: "conv1d.default", 4: "conv2d.default", 5: "conv3d.default"}
TRAINING_MODE = 14  # the opset since which a batch norm says so; before, one that trains has more than one output
TRANSPOSED = {3: "conv_transpose1d.default", 4: "conv_transpose2d.input", 5: "conv_transpose3d.input"}


def conv(step: Step) -> Operand:
    """A convolution; padding that differs between the two ends of an axis becomes a node of its own."""
    x, weight, bias = step.flow(), _weight(step, 1, "weight"), _bias(step, 2)
    window = _conv_window(step, x, weight)
    x, padding = padded(step, x, window, 0.0, most=None)
    groups = step.attr_int("group", 1)
    return step.call(_overload(CONVS, x), x, weight, bias, window.stride, padding, window.dilation, groups)


def conv_transpose(step: Step) -> Operand:
    """A transposed convolution; what the two ends of an axis lose differently is cut off by a node of its own."""
    x, weight, bias = step.flow(), _weight(step, 1, "weight"), _bias(step, 2)
    window = _conv_window(step, x, weight)
    extra = step.attr_ints("output_padding", (0,) * len(window.kernel)) or ()
    begin, end = window.begin, window.end
    wanted = step.attr_ints("output_shape")
    automatic = step.attr_text("auto_pad", "NOTSET")
    if wanted is None and automatic.startswith("SAME"):
        wanted = tuple(size * stride for size, stride in zip(x.shape[2:], window.stride, strict=True))
    if wanted is not None:
        begin, end, extra = _cut_for(step, x, window, wanted[-len(window.kernel) :], extra)
    groups = step.attr_int("group", 1)
    if begin == end:
        return step.call(
            _overload(TRANSPOSED, x), x, weight, bias, window.stride, begin, extra, groups, window.dilation
        )
    none = (0,) * len(window.kernel)
    whole = step.call(_overload(TRANSPOSED, x), x, weight, bias, window.stride, none, extra, groups, window.dilation)
    sides = [side for b, e in zip(begin, end, strict=True) for side in (-e, -b)]
    return step.call("constant_pad_nd.default", whole, tuple(reversed(sides)), 0.0)


def _cut_for(
    step: Step, x: Flow, window: Window, wanted: tuple[int, ...], extra: tuple[int, ...]
) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    """How much each end loses, or the last one gets besides, so that the result has the size that is asked for."""
    upper = step.attr_text("auto_pad", "NOTSET") == "SAME_UPPER"
    begin, end, more = [], [], []
    for axis, size in enumerate(x.shape[2:]):
        total = (size - 1) * window.stride[axis] + extra[axis] + window.extent[axis] - wanted[axis]
        more.append(extra[axis] + max(-total, 0))
        total = max(total, 0)
        small, large = total // 2, total - total // 2
        begin.append(small if upper else large)
        end.append(large if upper else small)
    return tuple(begin), tuple(end), tuple(more)


def _conv_window(step: Step, x: Flow, weight: Known) -> Window:
    if weight.at[0].ndim != len(x.shape):
        raise ModelError(f"its weight has shape {list(weight.shape)}, which does not fit {list(x.shape)}")
    kernel = weight.shape[2:]
    said = step.attr_ints("kernel_shape", kernel)
    if said != kernel:
        raise ModelError(f"its kernel_shape is {said}, but its weight has shape {list(weight.shape)}")
    return window_of(step, x, kernel)


def _overload(by_rank: dict[int, str], x: Flow) -> str:
    if len(x.shape) not in by_rank:
        raise ModelError(f"it cannot work on a value of shape {list(x.shape)}")
    return by_rank[len(x.shape)]


def gemm(step: Step) -> Operand:
    """Alpha * A B + beta * C as one linear layer, where B and C are stored."""
    x = step.operand(0)
    if step.attr_int("transA", 0):
        x = step.call("transpose.int", x, 0, 1)
    alpha, beta = step.attr_float("alpha", 1.0), step.attr_float("beta", 1.0)
    other, added = step.operand(1), step.optional(2)
    if not isinstance(x, Flow) or not isinstance(other, Known):
        return _sum_of_products(step, x, other, added)
    if step.attr_int("transB", 0) == 0:
        other = _relaid(step, other, "transposed", other.at[0].t)
    weight = _scaled(step, _named(step, other, "weight"), alpha)
    if isinstance(added, Known):
        added, beta = _as_bias(step, _scaled(step, _named(step, added, "bias"), beta), weight.shape[0]), 1.0
    if added is None or (isinstance(added, Known) and added.shape == weight.shape[:1]):
        return step.call("linear.default", x, weight, added)
    product = step.call("linear.default", x, weight, None)
    return step.call("add.Tensor", product, added, keywords={"alpha": beta})


def _sum_of_products(step: Step, x: Operand, other: Operand, added: Operand | None) -> Operand:
    if step.attr_int("transB", 0):
        other = step.call("transpose.int", other, 0, 1)
    product: Operand = step.call("matmul.default", x, other)
    alpha, beta = step.attr_float("alpha", 1.0), step.attr_float("beta", 1.0)
    if alpha != 1:
        product = step.call("mul.Tensor", product, alpha)
    if added is None:
        return product
    return step.call("add.Tensor", product, added, keywords={"alpha": beta})


def matmul(step: Step) -> Operand:
    """A product; with a stored matrix on the right it is a linear layer."""
    x, other = step.operand(0), step.operand(1)
    if isinstance(x, Flow) and isinstance(other, Known) and other.at[0].ndim == 2 and len(x.shape) > 1 and other.fixed:
        weight = _relaid(step, _named(step, other, "weight"), "transposed", other.at[0].t)
        return step.call("linear.default", x, weight, None)
    return step.call("matmul.default", x, other)


def batch_norm(step: Step) -> Operand:
    """Normalisation by stored statistics."""
    trains = step.attr_int("training_mode", 0) if step.opset >= TRAINING_MODE else any(step.node.outputs[1:])
    if trains or step.attr_int("spatial", 1) == 0:
        raise UnsupportedOp("it takes its statistics from the batch, or per position; export the model in eval mode")
    x = step.flow()
    names = ("weight", "bias", "running_mean", "running_var")
    own = [_stored(step, place, name) for place, name in enumerate(names, 1)]
    for tensor, name in zip(own, names, strict=True):
        if tensor.shape != x.shape[1:2]:
            raise ModelError(f"its {name} has shape {list(tensor.shape)}, but it normalises {list(x.shape)}")
    momentum, eps = 1 - step.attr_float("momentum", 0.9), step.attr_float("epsilon", 1e-5)
    return step.call("batch_norm.default", x, *own, False, momentum, eps, False)


def instance_norm(step: Step) -> Operand:
    """Normalisation over space, for each image and channel."""
    weight, bias = _stored(step, 1, "weight"), _stored(step, 2, "bias")
    eps = step.attr_float("epsilon", 1e-5)
    return step.call("instance_norm.default", step.flow(), weight, bias, None, None, True, 0.1, eps, False)


def layer_norm(step: Step) -> Operand:
    """Normalisation over the last dimensions."""
    x = step.flow()
    axis = axis_of(step.attr_int("axis", -1), len(x.shape))
    shape = x.shape[axis:]
    weight, bias = _stored(step, 1, "weight"), step.weight(2, "bias")
    return step.call(
        "layer_norm.default", x, shape, _spread_over(step, weight, shape),
        None if bias is None else _spread_over(step, _named(step, bias, "bias"), shape),
        step.attr_float("epsilon", 1e-5), False,
    )  # fmt: skip


def rms_norm(step: Step) -> Operand:
    """Scaling by the root of the mean square over the last dimensions."""
    x = step.flow()
    shape = x.shape[axis_of(step.attr_int("axis", -1), len(x.shape)) :]
    weight = _spread_over(step, _stored(step, 1, "weight"), shape)
    return step.call("rms_norm.default", x, shape, weight, step.attr_float("epsilon", 1e-5))


def group_norm(step: Step) -> Operand:
    """Normalisation over groups of channels; before opset 21 the weights are one per group."""
    x, groups = step.flow(), step.attr_int("num_groups")
    weight, bias = _stored(step, 1, "weight"), _stored(step, 2, "bias")
    if step.opset < 21 and groups:
        per_group = x.shape[1] // groups
        weight, bias = (
            step.trace.derived(
                t, f"each {per_group} times", partial(t.at[0].repeat_interleave, per_group), count=groups * per_group
            )
            for t in (weight, bias)
        )
    return step.call("group_norm.default", x, groups, weight, bias, step.attr_float("epsilon", 1e-5), False)


def prelu(step: Step) -> Operand:
    """A leaky ReLU with stored slopes: one per channel, one for all, or of any shape that fits."""
    x, slope = step.flow(), _stored(step, 1, "slope")
    lined_up = (1,) * (len(x.shape) - slope.at[0].ndim) + slope.shape
    per_channel = len(x.shape) > 1 and lined_up == (1, x.shape[1], *(1 for _ in x.shape[2:]))
    if slope.at[0].numel() == 1 or per_channel:
        return step.call("prelu.default", x, _relaid(step, slope, "flat", lambda: slope.at[0].reshape(-1)))
    falling = step.call("mul.Tensor", step.call("clamp.default", x, None, 0.0), slope)
    return step.call("add.Tensor", step.call("relu.default", x), falling)


def lrn(step: Step) -> Operand:
    """Local response normalisation (Krizhevsky et al. 2012, section 3.3)."""
    size = step.attr_int("size")
    if size % 2 == 0:
        raise UnsupportedOp(
            f"its size is {size}; torch places an even window otherwise, so only odd ones are supported"
        )
    options = {"alpha": step.attr_float("alpha", 1e-4), "beta": step.attr_float("beta", 0.75)}
    return step.trace.layer("lrn", step.flow(), {"size": size, **options, "k": step.attr_float("bias", 1.0)})


def _weight(step: Step, place: int, role: str) -> Known:
    found = step.weight(place, role)
    if found is None:
        raise ModelError(f"its {role} (input {place}) is missing")
    return _named(step, found, role)


_stored = _weight


def _bias(step: Step, place: int) -> Known | None:
    found = step.weight(place, "bias")
    return None if found is None else _named(step, found, "bias")


def _named(step: Step, weight: Known, role: str) -> Known:
    """The weight under its own name; where that says nothing, under the layer's that the node's name tells of.

    Raises ModelError where its numbers are of another kind than what it works on.
    """
    kind = step.flow().at[0].dtype
    if weight.at[0].dtype != kind:
        raise ModelError(f"its {role} is {weight.at[0].dtype}, but it works on {kind}; convert the model to float32")
    path = module_path(step.node.name)
    if "." in weight.wish or not path:
        return weight
    return Known(weight.at, f"{path}.{role}", weight.learned)


def _relaid(step: Step, weight: Known, how: str, view: Callable[[], Tensor], count: int | None = None) -> Known:
    """A view of a weight as a tensor of its own; two layers that view a weight alike share it."""
    return step.trace.derived(weight, how, lambda: view().contiguous(), count=count)


def _scaled(step: Step, weight: Known, factor: float) -> Known:
    if factor == 1:
        return weight
    return step.trace.derived(weight, f"times {factor}", lambda: weight.at[0] * factor)


def _as_bias(step: Step, added: Known, features: int) -> Operand:
    """A constant that is added to every row, as a vector; anything else as it is."""
    shape = added.shape
    if added.at[0].numel() == 1 or (shape[-1:] == (features,) and added.at[0].numel() == features):
        return _relaid(step, added, f"{features} of", lambda: added.at[0].reshape(-1).expand(features), features)
    return added


def _spread_over(step: Step, weight: Known, shape: tuple[int, ...]) -> Known:
    """A weight in the very shape that is normalised."""
    if weight.shape == shape:
        return weight
    return _relaid(step, weight, f"over {shape}", lambda: torch.broadcast_to(weight.at[0], shape), math.prod(shape))
