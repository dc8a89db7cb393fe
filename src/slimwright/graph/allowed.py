"""The ATen operators that a file may name, and what is checked of a call that their kernels trust.

A model that is captured in this process may call any operator. A file may call those of `ALLOWED` alone: another one
is refused by its name, whatever it does. No allowed operator reads beside its tensors, once `check_call` has looked at
what its kernel trusts; `tests/graph/test_allowed.py` calls all of them with random arguments.
"""

import math
import sys
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

from torch import Tensor

from slimwright.errors import UnsupportedOp

Check = Callable[[Mapping[str, Any]], None]


def _overloads(*names: str) -> tuple[str, ...]:
    """Overloads of a column of names; a name alone stands for its default."""
    return tuple(name if "." in name else f"{name}.default" for column in names for name in column.split())


ELEMENTWISE = _overloads(
    "abs absolute acos acosh add.Scalar add.Tensor addcdiv addcmul asin asinh atan atan2 atanh bitwise_and.Scalar",
    "bitwise_and.Tensor bitwise_not bitwise_or.Scalar bitwise_or.Tensor bitwise_xor.Scalar bitwise_xor.Tensor ceil",
    "celu clamp clamp.Tensor clamp_max clamp_max.Tensor clamp_min clamp_min.Tensor clip clip.Tensor copysign.Scalar",
    "copysign.Tensor cos cosh deg2rad div.Scalar div.Scalar_mode div.Tensor div.Tensor_mode divide.Scalar",
    "divide.Scalar_mode divide.Tensor divide.Tensor_mode elu eq.Scalar eq.Tensor erf erfc erfinv exp exp2 expm1",
    "fake_quantize_per_tensor_affine fill.Scalar fill.Tensor fix floor floor_divide floor_divide.Scalar fmax fmin",
    "fmod.Scalar fmod.Tensor frac ge.Scalar ge.Tensor gelu greater.Scalar greater.Tensor greater_equal.Scalar",
    "greater_equal.Tensor gt.Scalar gt.Tensor hardshrink hardsigmoid hardswish hardtanh heaviside hypot isclose",
    "isfinite isinf isnan isneginf isposinf le.Scalar le.Tensor leaky_relu lerp.Scalar lerp.Tensor less.Scalar",
    "less.Tensor less_equal.Scalar less_equal.Tensor lgamma log log10 log1p log2 log_sigmoid logaddexp logaddexp2",
    "logical_and logical_not logical_or logical_xor logit lt.Scalar lt.Tensor masked_fill.Scalar masked_fill.Tensor",
    "max.other maximum min.other minimum mish mul.Scalar mul.Tensor multiply.Scalar multiply.Tensor nan_to_num",
    "ne.Scalar ne.Tensor neg negative not_equal.Scalar not_equal.Tensor positive pow.Scalar pow.Tensor_Scalar",
    "pow.Tensor_Tensor prelu rad2deg reciprocal relu relu6 remainder.Scalar remainder.Scalar_Tensor remainder.Tensor",
    "round round.decimals rsqrt rsub.Scalar rsub.Tensor selu sgn sigmoid sign signbit silu sin sinc sinh softplus",
    "softshrink special_erf special_erfc special_expit special_expm1 special_log1p special_logit special_round sqrt",
    "square sub.Scalar sub.Tensor subtract.Scalar subtract.Tensor tan tanh threshold true_divide.Scalar",
    "true_divide.Tensor trunc where.Scalar where.ScalarOther where.ScalarSelf where.self xlogy.Scalar_Other",
    "xlogy.Scalar_Self xlogy.Tensor",
)
REDUCTIONS = _overloads(
    "all all.dim all.dims amax amin any any.dim any.dims argmax argmin argsort argsort.stable cosine_similarity",
    "count_nonzero count_nonzero.dim_IntList cummax cummin cumprod cumsum diff frobenius_norm.dim linalg_norm",
    "linalg_vector_norm _log_softmax log_softmax.int logcumsumexp logsumexp max max.dim mean mean.dim median",
    "median.dim min min.dim norm.Scalar norm.ScalarOpt_dim norm.ScalarOpt_dim_dtype norm.ScalarOpt_dtype",
    "pairwise_distance prod prod.dim_int _softmax softmax.int sort sort.stable special_log_softmax special_logsumexp",
    "special_softmax std std.correction std.dim std_mean std_mean.correction std_mean.dim sum sum.dim_IntList topk",
    "var var.correction var.dim var_mean var_mean.correction var_mean.dim",
)
MOVES = _overloads(
    "alias broadcast_to cat channel_shuffle chunk clone column_stack concat concatenate constant_pad_nd contiguous",
    "copy detach diag_embed diagonal dsplit.int dstack expand expand_as flatten.using_ints flip fliplr flipud gather",
    "hsplit.int hstack index.Tensor index_add index_fill.int_Scalar index_fill.int_Tensor index_put index_select",
    "lift_fresh_copy meshgrid meshgrid.indexing moveaxis.int moveaxis.intlist movedim.int movedim.intlist narrow pad",
    "permute pixel_shuffle pixel_unshuffle ravel reflection_pad1d reflection_pad2d reflection_pad3d repeat",
    "repeat_interleave.self_int replication_pad1d replication_pad2d replication_pad3d reshape reshape_as roll rot90",
    "row_stack scatter.src scatter.value scatter_add select.int select_scatter slice.Tensor slice_scatter",
    "split.Tensor split.sizes split_with_sizes squeeze squeeze.dim squeeze.dims stack swapaxes swapdims t",
    "take_along_dim tensor_split.indices tensor_split.sections tile transpose.int tril triu unbind.int unflatten.int",
    "unfold unsafe_chunk unsafe_split.Tensor unsafe_split_with_sizes _unsafe_view unsqueeze view view_as vsplit.int",
    "vstack",
)
TYPES = _overloads(
    "full_like new_full new_ones new_zeros ones_like to.device to.dtype to.dtype_layout to.other _to_copy type_as",
    "zeros_like",
)
FACTORIES = _overloads(
    "arange arange.start arange.start_step eye eye.m full linspace ones scalar_tensor tril_indices triu_indices zeros",
)
PRODUCTS = _overloads(
    "addbmm addmm addmv addr baddbmm bilinear bmm cdist dot einsum inner linalg_matmul linalg_vecdot linear matmul mm",
    "mv outer scaled_dot_product_attention tensordot vdot",
)
LAYERS = _overloads(
    "adaptive_avg_pool1d _adaptive_avg_pool2d adaptive_avg_pool2d _adaptive_avg_pool3d adaptive_avg_pool3d",
    "adaptive_max_pool1d adaptive_max_pool2d adaptive_max_pool3d affine_grid_generator avg_pool1d avg_pool2d",
    "avg_pool3d batch_norm col2im conv1d conv1d.padding conv2d conv2d.padding conv3d conv3d.padding conv_transpose1d",
    "conv_transpose2d.input conv_transpose3d.input _convolution convolution dropout embedding feature_dropout glu",
    "grid_sampler grid_sampler_2d grid_sampler_3d group_norm gru.input im2col instance_norm layer_norm lstm.input",
    "max_pool1d max_pool1d_with_indices max_pool2d max_pool2d_with_indices max_pool3d max_pool3d_with_indices",
    "_native_batch_norm_legit_no_training one_hot rms_norm rnn_relu.input rnn_tanh.input upsample_bicubic2d",
    "upsample_bicubic2d.vec _upsample_bicubic2d_aa _upsample_bicubic2d_aa.vec upsample_bilinear2d",
    "upsample_bilinear2d.vec _upsample_bilinear2d_aa _upsample_bilinear2d_aa.vec upsample_linear1d",
    "upsample_linear1d.vec upsample_nearest1d upsample_nearest1d.vec upsample_nearest2d upsample_nearest2d.vec",
    "upsample_nearest3d upsample_nearest3d.vec _upsample_nearest_exact1d _upsample_nearest_exact1d.vec",
    "_upsample_nearest_exact2d _upsample_nearest_exact2d.vec _upsample_nearest_exact3d _upsample_nearest_exact3d.vec",
    "upsample_trilinear3d upsample_trilinear3d.vec",
)
SIZES = _overloads("sym_size.int")
EVERY = (*ELEMENTWISE, *REDUCTIONS, *MOVES, *TYPES, *FACTORIES, *PRODUCTS, *LAYERS, *SIZES)
ALLOWED = frozenset(EVERY)

GATES = {"lstm": 4, "gru": 3, "rnn_tanh": 1, "rnn_relu": 1}
POSITIVE = ("kernel_size", "stride", "dilation", "groups", "num_groups", "upscale_factor", "downscale_factor")
DTYPES = ("float32", "float64", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8", "bool")
MOST_PARTS = 2**14  # results of one call
MOST_ELEMENTS = 2**32  # of one value for one image: 16 GB, which no device can hold


def check_named(overload: str) -> None:
    """Raise UnsupportedOp, saying what to do, for an operator that a file may not name."""
    if overload not in ALLOWED:
        raise UnsupportedOp(
            f"operator {overload} is not one of those that a file may name (slimwright/graph/allowed.py lists them); "
            "give the model as module:callable, or use the net in the process that captured it: there any operator is "
            "taken"
        )


def check_call(overload: str, arguments: Mapping[str, Any]) -> None:
    """Raise ValueError, saying what is wrong, for arguments that the kernel of an allowed operator would trust."""
    for name in POSITIVE:
        least = min(_integers(arguments.get(name)), default=1)
        if least < 1:
            raise ValueError(f"its {name} is {least}; it must be positive")
    for name, value in arguments.items():
        if name.endswith("dtype") and value is not None and str(value).removeprefix("torch.") not in DTYPES:
            raise ValueError(f"its {name} is {value}; it must be one of {', '.join(DTYPES)}")
    if overload in CHECKS:
        CHECKS[overload](arguments)


def check_size(result: object, images: int = 1) -> None:
    """Raise ValueError for a result for so many images, on the meta device, that no device can hold."""
    if isinstance(result, Tensor) and result.numel() > MOST_ELEMENTS * max(images, 1):
        raise ValueError(f"it makes a value of shape {list(result.shape)}, which no device can hold")
    if isinstance(result, list | tuple):
        for item in result:
            check_size(item, images)


def _integers(value: Any) -> Iterator[int]:
    if isinstance(value, list | tuple):
        for item in value:
            yield from _integers(item)
    elif isinstance(value, int):
        yield value


def _parts(arguments: Mapping[str, Any]) -> None:
    """A split makes as many tensors as it is told, however little they hold."""
    source, dim = arguments["self"], arguments.get("dim") or 0
    told = [arguments.get(name) for name in ("sections", "chunks")]
    inside = isinstance(source, Tensor) and isinstance(dim, int) and -source.ndim <= dim < source.ndim
    count = max(source.shape[dim] if inside else 1, *(number for number in told if isinstance(number, int)), 1)
    if count > MOST_PARTS:
        raise ValueError(f"it would make {count} values; the most is {MOST_PARTS}")


def _scales(arguments: Mapping[str, Any]) -> None:
    """A resize to a size takes window widths from scales, which must be those of the two sizes."""
    given = [arguments.get(name) for name in ("scales", "scales_d", "scales_h", "scales_w") if name in arguments]
    source, sizes = arguments["self"], arguments["output_size"]
    for scale, before, after in zip(given, source.shape[2:], sizes, strict=True):
        if scale is not None and not abs(before * scale - after) <= 1:
            raise ValueError(f"it takes {before} to {after}, but by a factor of {scale}")


def _statistics(arguments: Mapping[str, Any]) -> None:
    """The kernel takes the number of channels from the images, and reads as many of each of these."""
    channels = arguments["input"].shape[1]
    for name in ("weight", "bias", "running_mean", "running_var"):
        if arguments[name] is not None and tuple(arguments[name].shape) != (channels,):
            raise ValueError(f"its {name} has the shape {list(arguments[name].shape)} for {channels} channels")


def _sampling(arguments: Mapping[str, Any]) -> None:
    """Sampling takes its ways of interpolation and padding by numbers."""
    ways = range(3) if arguments["input"].ndim == 4 else range(2)
    if arguments["interpolation_mode"] not in ways or arguments["padding_mode"] not in range(3):
        raise ValueError(
            f"it has no interpolation {arguments['interpolation_mode']} with padding {arguments['padding_mode']} for "
            f"an image of {arguments['input'].ndim} dimensions"
        )


def _apart(arguments: Mapping[str, Any]) -> None:
    """The kernel reads beside a tensor that holds elements several times (torch 2.13.0, 2026-11-30)."""
    source = arguments["self"]
    if any(stride == 0 and size > 1 for stride, size in zip(source.stride(), source.shape, strict=True)):
        raise ValueError("it was expanded, and holds elements several times; call contiguous before")


def _levels(arguments: Mapping[str, Any]) -> None:
    """The kernel divides by the scale and turns what comes of it into an integer."""
    scale = arguments["scale"]
    if not (isinstance(scale, float) and sys.float_info.min < scale < math.inf):
        raise ValueError(f"its scale is {scale}; it must be positive and finite")


def _recurrent(gates: int, arguments: Mapping[str, Any]) -> None:
    """The kernels take all sizes from the input and the first state, and read as much of the other tensors."""
    given, states, params = arguments["input"], arguments["hx"], arguments["params"]
    states = [states] if isinstance(states, Tensor) else states
    ways, layers = 1 + bool(arguments["bidirectional"]), arguments["num_layers"]
    out, hidden = states[0].shape[-1], states[-1].shape[-1]
    batch = given.shape[0 if arguments["batch_first"] else 1]
    behind = 2 * bool(arguments["has_biases"]) * [(gates * hidden,)] + (out != hidden) * [(out, hidden)]
    of_one = [[(gates * hidden, size), (gates * hidden, out), *behind] for size in (given.shape[-1], ways * out)]
    wanted = [(layers * ways, batch, out), (layers * ways, batch, hidden)][: len(states)]
    wanted += [shape for layer in range(min(layers, len(params))) for shape in ways * of_one[layer > 0]]
    found = [tuple(tensor.shape) for tensor in (*states, *params)]
    if given.ndim != 3 or len(states) != 1 + (gates == 4) or found != wanted:
        raise ValueError(f"its states and weights have the shapes {found}; they must have {wanted}")


CHECKS: Mapping[str, Check] = {
    **dict.fromkeys((name for name in EVERY if "split" in name or "chunk" in name or "unbind" in name), _parts),
    **dict.fromkeys((name for name in EVERY if "upsample" in name and name.endswith(".default")), _scales),
    **dict.fromkeys((name for name in EVERY if "grid_sampler" in name), _sampling),
    **{f"{name}.input": partial(_recurrent, gates) for name, gates in GATES.items()},
    "_native_batch_norm_legit_no_training.default": _statistics,
    "fake_quantize_per_tensor_affine.default": _levels,
    "median.dim": _apart,
}


def work(overload: str, arguments: Mapping[str, Any], results: object) -> int:
    """About how many elementary operations a call takes, rather too many than too few: each costs some nanoseconds."""
    given = [*_tensors(tuple(arguments.values())), *_tensors(results)]
    largest = max((tensor.numel() for tensor in given), default=0)
    weight, window = arguments.get("weight"), math.prod(_integers(arguments.get("kernel_size")))
    taps = weight.numel() // max(min(weight.shape[:2]), 1) if isinstance(weight, Tensor) and weight.ndim > 1 else 1
    if overload == "einsum.default":
        return math.prod(tensor.numel() for tensor in _tensors(arguments["tensors"]))
    if overload in PRODUCTS:
        return largest * max(taps, *(size for tensor in given for size in tensor.shape), 1)
    if "params" in arguments:
        return largest * sum(tensor.numel() for tensor in _tensors(arguments["params"]))
    return largest * max(taps, window)


def _tensors(value: object) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _tensors(item)
