"""What slimwright knows of each operator: one row per op.

A row says which ATen overloads become the op, how to build its layer (ops without a layer stay the ATen
function they were), and how channels pass through it:

    input       the images; their channels are fixed
    parameter   a tensor of the model, used as it is; it has channels along every dimension
    mix         reads every input channel, makes new output channels (convolution, linear)
    each        one set of weights per channel (batch norm)
    norm        like `each`, and takes statistics over channels
    join        elementwise, on one value or several: channel i of each is one channel
    window      elementwise over channels, a window over the dimensions behind them (pooling, padding)
    move        only puts elements elsewhere (view, permute, slice)
    concat      puts values side by side
    reduce      takes a sum, mean or the like over some dimensions
    softmax     normalises along one dimension
    contract    a product of two values, summed over a dimension that both have (attention)
    convolve    like `mix`, carried: its weights are parameters beside it (transposed convolutions, 1-D and 3-D ones)
    scale       like `each`, carried: its weights are parameters beside it (instance norm, 3-D batch norm)
    shuffle     makes pixels of channels, or channels of pixels
    recurrent   carried: the weights of its first layer read every channel of each step (LSTM, GRU); makes fixed ones
    fixed       anything else: the channels it reads cannot be cut
    scalar      a size, not a tensor

An ATen overload without a row is *carried*: it is called as it is, under the op name "aten.NAME.OVERLOAD". What its
schema and tags say of it is used (elementwise or not); otherwise its channels are fixed.

Depthwise convolutions are rows of `mix` with as many groups as channels; they are treated like `each`.
"""

import functools
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn

from slimwright.errors import UnsupportedOp
from slimwright.graph.allowed import check_call
from slimwright.graph.layers import DropPath, FakeQuantize, Gather, GroupNorm

Passage = Literal[
    "input", "parameter", "mix", "each", "norm", "join", "window", "move", "concat", "reduce", "softmax", "contract",
    "convolve", "scale", "shuffle", "recurrent", "fixed", "scalar",
]  # fmt: skip
Shapes = Mapping[str, tuple[int, ...]]
Build = Callable[[Mapping[str, Any], Shapes], nn.Module]


@dataclass(frozen=True)
class Op:
    """One operator. `overloads` are ATen names without the `aten.` in front; the first is the one called."""

    channels: Passage
    overloads: tuple[str, ...] = ()
    module: Build | None = None
    owns: tuple[str, ...] = ()  # arguments that are weights or statistics
    drops: tuple[str, ...] = ()  # arguments that say how, not what
    in_place: bool = False  # may write its result over its first input
    view: bool = False  # its result is its first input, seen in another shape

    @property
    def function(self) -> Any:
        """The function that computes the op: an ATen overload, or Python's operator on sizes."""
        name = self.overloads[0]
        return INTEGER[name] if name in INTEGER else aten(name)


def aten(overload: str) -> Any:
    """Return the ATen operator of this name, such as "conv2d.default"; raises AttributeError if there is none."""
    name, _, variant = overload.partition(".")
    return getattr(getattr(torch.ops.aten, name), variant)


def call_aten(overload: str, arguments: Mapping[str, Any]) -> Any:
    """Return what an ATen overload computes from arguments by name.

    Raises one of `FAILURES` where they do not fit, and ValueError for those that its kernel would wrongly trust.
    """
    check_call(overload, arguments)
    args, kwargs = _split(aten(overload)._schema.arguments, arguments)
    return aten(overload)(*args, **kwargs)


def called(op: Op, arguments: Mapping[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Split arguments by name into the positional and keyword ones that the op's function takes."""
    if op.overloads[0] in INTEGER:
        return tuple(arguments.values()), {}
    return _split(op.function._schema.arguments, arguments)


def _split(schema: Any, arguments: Mapping[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    values = {a.name: _typed(a.name, arguments[a.name]) for a in schema}
    args = tuple(values[a.name] for a in schema if not a.kwarg_only)
    return args, {a.name: values[a.name] for a in schema if a.kwarg_only and values[a.name] is not None}


def _typed(name: str, value: Any) -> Any:
    """A dtype, layout or memory format is kept by its name, such as "torch.float32"; a device's name says nothing."""
    if value is None or not (name in TYPE_ARGUMENTS or name.endswith("dtype")):
        return value
    if name == "device":
        return None if isinstance(value, str) else value
    if name in ("layout", "memory_format") and value in range(4):  # as schemas have their defaults
        return value
    found = getattr(torch, str(value).removeprefix("torch."), None)
    if not isinstance(found, torch.dtype | torch.layout | torch.memory_format):  # a number can crash torch
        raise ValueError(f"{value!r} is no {name}")
    return found


def on_meta(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments, for computing shapes alone: what makes a tensor from numbers makes it without memory."""
    return {key: torch.device("meta") if key == "device" else value for key, value in arguments.items()}


def check_quiet(op: str, arguments: Mapping[str, Any]) -> None:
    """Raise UnsupportedOp for a call of an operator that draws random numbers, as dropout does in training."""
    drops = float(arguments.get("dropout_p") or 0) or (
        bool(arguments.get("train")) and float(arguments["dropout"] or 0)
    )
    if drops and any(part in op for part in DROPPING):
        raise UnsupportedOp(f"operator {op} drops a share of {drops:g} at random; put the model into eval mode")


def detail_of(error: BaseException) -> str:
    """The first line of what an error says, or its kind."""
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def pair_of(value: Any) -> tuple[int, int]:
    """Return what an argument such as a stride says for height and for width: one number may stand for both."""
    return (value, value) if isinstance(value, int) else (value[0], value[-1])


def _conv2d(a: Mapping[str, Any], own: Shapes) -> nn.Module:
    out, per_group, height, width = own["weight"]
    padding = a["padding"] if isinstance(a["padding"], str) else pair_of(a["padding"])
    return nn.Conv2d(
        per_group * a["groups"],
        out,
        (height, width),
        stride=pair_of(a["stride"]),
        padding=padding,
        dilation=pair_of(a["dilation"]),
        groups=a["groups"],
        bias="bias" in own,
    )


def _linear(_: Mapping[str, Any], own: Shapes) -> nn.Module:
    return nn.Linear(own["weight"][1], own["weight"][0], bias="bias" in own)


NORM_OWNS = ("weight", "bias", "running_mean", "running_var")
NORM_DROPS = ("training", "cudnn_enabled")


def _batch_norm(kind: type[nn.BatchNorm1d | nn.BatchNorm2d]) -> Build:
    def built(a: Mapping[str, Any], own: Shapes) -> nn.Module:
        return kind(own["running_mean"][0], eps=a["eps"], momentum=a["momentum"], affine="weight" in own)

    return built


def _max_pool2d(a: Mapping[str, Any], _: Shapes) -> nn.Module:
    stride = pair_of(a["stride"]) if a["stride"] else None
    return nn.MaxPool2d(
        pair_of(a["kernel_size"]), stride, pair_of(a["padding"]), pair_of(a["dilation"]), ceil_mode=a["ceil_mode"]
    )


def _avg_pool2d(a: Mapping[str, Any], _: Shapes) -> nn.Module:
    stride = pair_of(a["stride"]) if a["stride"] else None
    size, padding = pair_of(a["kernel_size"]), pair_of(a["padding"])
    return nn.AvgPool2d(size, stride, padding, a["ceil_mode"], a["count_include_pad"], a["divisor_override"])


def _hardtanh(a: Mapping[str, Any], _: Shapes) -> nn.Module:
    if (a["min_val"], a["max_val"]) == (0, 6):
        return nn.ReLU6()
    return nn.Hardtanh(a["min_val"], a["max_val"])


def _fake_quantize(a: Mapping[str, Any], _: Shapes) -> nn.Module:
    check_call("fake_quantize_per_tensor_affine.default", a)
    return FakeQuantize(a["scale"], a["zero_point"], a["quant_min"], a["quant_max"])


def _elu(a: Mapping[str, Any], _: Shapes) -> nn.Module:
    if a["scale"] != 1 or a["input_scale"] != 1:
        raise UnsupportedOp(f"an ELU with scale {a['scale']} has no layer")
    return nn.ELU(a["alpha"])


def _layer_norm(a: Mapping[str, Any], own: Shapes) -> nn.Module:
    return nn.LayerNorm(tuple(a["normalized_shape"]), a["eps"], "weight" in own, "bias" in own)


def _group_norm(a: Mapping[str, Any], own: Shapes) -> nn.Module:
    norm = GroupNorm(a["num_groups"], own["weight"][0], a["eps"])
    if "bias" not in own:
        norm.register_parameter("bias", None)
    return norm


def _rms_norm(a: Mapping[str, Any], own: Shapes) -> nn.Module:
    return nn.RMSNorm(tuple(a["normalized_shape"]), a["eps"], "weight" in own)


FAILURES = (  # what torch raises of a call that cannot be
    RuntimeError, ValueError, TypeError, IndexError, KeyError, ArithmeticError, AssertionError, MemoryError,
    AttributeError,
)  # fmt: skip
TYPE_ARGUMENTS = ("dtype", "layout", "device", "memory_format")
INTEGER: dict[str, Callable[[Any, Any], Any]] = {  # arithmetic on sizes
    "int_add": operator.add,
    "int_sub": operator.sub,
    "int_mul": operator.mul,
    "int_floordiv": operator.floordiv,
    "int_mod": operator.mod,
}

OPS: dict[str, Op] = {
    "input": Op("input"),
    "parameter": Op("parameter", owns=("value",)),
    "constant": Op("parameter", owns=("value",)),
    "conv2d": Op("mix", ("conv2d.default", "conv2d.padding"), _conv2d, owns=("weight", "bias")),
    "linear": Op("mix", ("linear.default",), _linear, owns=("weight", "bias")),
    "batch_norm": Op("each", ("batch_norm.default",), _batch_norm(nn.BatchNorm2d), owns=NORM_OWNS, drops=NORM_DROPS),
    "batch_norm1d": Op("each", (), _batch_norm(nn.BatchNorm1d), owns=NORM_OWNS, drops=NORM_DROPS),
    "layer_norm": Op("norm", ("layer_norm.default",), _layer_norm, owns=("weight", "bias"), drops=("cudnn_enable",)),
    "rms_norm": Op("norm", ("rms_norm.default",), _rms_norm, owns=("weight",)),
    "group_norm": Op("norm", ("group_norm.default",), _group_norm, owns=("weight", "bias"), drops=("cudnn_enabled",)),
    "prelu": Op("each", ("prelu.default",), lambda _, own: nn.PReLU(own["weight"][0]), owns=("weight",)),
    "lrn": Op("fixed", (), lambda a, _: nn.LocalResponseNorm(a["size"], a["alpha"], a["beta"], a["k"]), in_place=False),
    "relu": Op("join", ("relu.default",), lambda a, _: nn.ReLU(), in_place=True),
    "hardtanh": Op("join", ("hardtanh.default",), _hardtanh, in_place=True),
    "relu6": Op("join", ("relu6.default",), lambda a, _: nn.ReLU6(), in_place=True),
    "leaky_relu": Op("join", ("leaky_relu.default",), lambda a, _: nn.LeakyReLU(a["negative_slope"]), in_place=True),
    "elu": Op("join", ("elu.default",), _elu, in_place=True),
    "silu": Op("join", ("silu.default",), lambda a, _: nn.SiLU(), in_place=True),
    "mish": Op("join", ("mish.default",), lambda a, _: nn.Mish(), in_place=True),
    "gelu": Op("join", ("gelu.default",), lambda a, _: nn.GELU(a["approximate"]), in_place=True),
    "sigmoid": Op("join", ("sigmoid.default",), lambda a, _: nn.Sigmoid(), in_place=True),
    "tanh": Op("join", ("tanh.default",), lambda a, _: nn.Tanh(), in_place=True),
    "hardswish": Op("join", ("hardswish.default",), lambda a, _: nn.Hardswish(), in_place=True),
    "hardsigmoid": Op("join", ("hardsigmoid.default",), lambda a, _: nn.Hardsigmoid(), in_place=True),
    "fake_quantize": Op("join", ("fake_quantize_per_tensor_affine.default",), _fake_quantize, in_place=True),
    "dropout": Op("join", ("dropout.default",), lambda a, _: nn.Dropout(a["p"]), drops=("train",), view=True),
    "dropout2d": Op(
        "join", ("feature_dropout.default",), lambda a, _: nn.Dropout2d(a["p"]), drops=("train",), view=True
    ),
    "drop_path": Op("join", (), lambda a, _: DropPath(a["p"]), view=True),
    "max_pool2d": Op("window", ("max_pool2d.default",), _max_pool2d),
    "avg_pool2d": Op("window", ("avg_pool2d.default",), _avg_pool2d),
    "adaptive_avg_pool2d": Op(
        "window", ("adaptive_avg_pool2d.default",), lambda a, _: nn.AdaptiveAvgPool2d(pair_of(a["output_size"]))
    ),
    "mean": Op("reduce", ("mean.dim",)),
    "sum": Op("reduce", ("sum.dim_IntList",)),
    "add": Op("join", ("add.Tensor",), in_place=True),
    "sub": Op("join", ("sub.Tensor",), in_place=True),
    "mul": Op("join", ("mul.Tensor",), in_place=True),
    "concat": Op("concat", ("cat.default", "concat.default")),
    "flatten": Op("move", ("flatten.using_ints",), view=True),
    "reshape": Op("move", ("reshape.default", "view.default", "_unsafe_view.default"), view=True),
    "squeeze": Op("move", ("squeeze.dims",), view=True),
    "unsqueeze": Op("move", ("unsqueeze.default",), view=True),
    "permute": Op("move", ("permute.default",)),
    "transpose": Op("move", ("transpose.int",)),
    "expand": Op("move", ("expand.default",)),
    "slice": Op("move", ("slice.Tensor",)),
    "select": Op("move", ("select.int",)),
    "gather": Op("move", (), lambda a, own: Gather(a["dim"], own["index"][0]), owns=("index",)),
    "index": Op("move", ("index.Tensor",)),
    "softmax": Op("softmax", ("softmax.int",)),
    "log_softmax": Op("softmax", ("log_softmax.int",)),
    "matmul": Op("contract", ("matmul.default", "bmm.default", "mm.default")),
    "attention": Op("contract", ("scaled_dot_product_attention.default",)),
    "einsum": Op("contract", ("einsum.default",)),
    "item": Op("fixed", (), view=True),  # one of several results
    "size": Op("scalar", ("sym_size.int",)),
    **{name: Op("scalar", (name,)) for name in INTEGER},
}

BY_OVERLOAD: dict[str, str] = {overload: name for name, op in OPS.items() for overload in op.overloads} | {
    name: name for name, op in OPS.items() if not op.overloads
}

STATE = ("running_mean", "running_var", "index")  # roles of tensors that are stored, not trained
WINDOWS = (
    "pad", "constant_pad_nd", "reflection_pad2d", "replication_pad2d", "upsample_nearest2d", "upsample_bilinear2d",
    "upsample_bicubic2d", "_upsample_nearest_exact2d", "avg_pool2d", "max_pool2d", "adaptive_avg_pool2d",
    "adaptive_max_pool2d", "reflection_pad1d", "replication_pad1d", "upsample_nearest1d", "upsample_linear1d",
    "_upsample_nearest_exact1d", "avg_pool1d", "max_pool1d", "adaptive_avg_pool1d", "adaptive_max_pool1d",
    "reflection_pad3d", "replication_pad3d", "upsample_nearest3d", "upsample_trilinear3d", "_upsample_nearest_exact3d",
    "avg_pool3d", "max_pool3d", "adaptive_avg_pool3d", "adaptive_max_pool3d",
)  # fmt: skip
CONVOLUTIONS = ("conv1d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d")
SCALES = ("instance_norm", "batch_norm")
RECURRENT = ("lstm", "gru", "rnn_tanh", "rnn_relu")
SHUFFLES = ("pixel_shuffle", "pixel_unshuffle")
LIKES = ("zeros_like", "ones_like", "full_like")  # of the same shape, channel for channel
FACTORIES = ("arange", "zeros", "ones", "full", "eye", "linspace", "scalar_tensor", "tril_indices", "triu_indices")
REDUCTIONS = ("sum", "mean", "amax", "amin", "var", "std", "linalg_vector_norm", "logsumexp", "max", "min", "prod")
UNFILLED = ("empty", "resize")  # parts of names of operators whose results hold whatever lay in memory
DROPPING = ("attention", *RECURRENT)  # draw random numbers only where they drop something
MOVES = ("roll", "flip", "unfold", "contiguous", "clone", "to", "_to_copy", "alias", "detach", "lift_fresh_copy")
CARRIED: tuple[tuple[tuple[str, ...], Passage], ...] = (
    (WINDOWS, "window"), (REDUCTIONS, "reduce"), (MOVES, "move"), (CONVOLUTIONS, "convolve"), (SCALES, "scale"),
    (SHUFFLES, "shuffle"), (LIKES, "join"), (RECURRENT, "recurrent"),
)  # fmt: skip


@functools.cache
def op_of(name: str) -> Op:
    """Return the row of an op, or of a carried ATen overload "aten.NAME.OVERLOAD".

    Raises UnsupportedOp for a name that is neither, and for an operator that writes to its inputs, draws random
    numbers, fills nothing, or neither takes tensors nor makes one. A file may name fewer (`allowed.py`).
    """
    if name in OPS:
        return OPS[name]
    overload = name.removeprefix("aten.")
    try:
        function = aten(overload)
        schema, tags = function._schema, function.tags
    except AttributeError as error:
        raise UnsupportedOp(f"there is no operator {name} in torch {torch.__version__}") from error
    base = overload.partition(".")[0]
    from_tensors = any("Tensor" in str(argument.type) for argument in schema.arguments) or base in FACTORIES
    unfilled = any(part in base for part in UNFILLED)
    if name != str(function) or schema.is_mutable or not from_tensors or unfilled:
        raise UnsupportedOp(f"operator {name} is not one that computes tensors from tensors")
    if torch.Tag.nondeterministic_seeded in tags and not any(part in overload for part in DROPPING):
        raise UnsupportedOp(f"operator {name} may draw random numbers, also in eval mode")
    if torch.Tag.pointwise in tags and base not in MOVES:
        return Op("join", (overload,), in_place=True)
    return Op(next((passage for names, passage in CARRIED if base in names), "fixed"), (overload,))
