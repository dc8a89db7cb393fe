"""What slimwright knows of each operator: one row per op.

A row says which ATen overloads become the op, how to build its layer (ops without a layer stay the ATen
function they were), and how channels pass through it:

    input       the images; their channels are fixed
    mix         reads every input channel, makes new output channels (convolution, linear)
    each        one set of weights per channel (batch norm)
    same        elementwise on one value, or a window over space: channel i in, channel i out
    join        elementwise on several values: channel i of each is one channel
    reduce      takes the mean over some dimensions
    concat      puts values side by side
    flatten     merges neighbouring dimensions
    fixed       mixes channels without weights (softmax): the channels it reads cannot be cut
    scalar      a size, not a tensor

Depthwise convolutions are rows of `mix` with as many groups as channels; `channels.py` treats them as `each`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn

Passage = Literal["input", "mix", "each", "same", "join", "reduce", "concat", "flatten", "fixed", "scalar"]
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
        """The ATen overload that computes the op."""
        return aten(self.overloads[0])


def aten(overload: str) -> Any:
    """Return the ATen operator of this name, such as "conv2d.default"; raises AttributeError if there is none."""
    name, _, variant = overload.partition(".")
    return getattr(getattr(torch.ops.aten, name), variant)


def called(op: Op, arguments: Mapping[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Split arguments by name into the positional and keyword ones that the ATen overload takes."""
    schema = op.function._schema.arguments
    args = tuple(arguments[a.name] for a in schema if not a.kwarg_only)
    return args, {a.name: arguments[a.name] for a in schema if a.kwarg_only and arguments[a.name] is not None}


def _conv2d(a: Mapping[str, Any], own: Shapes) -> nn.Module:
    out, per_group, height, width = own["weight"]
    padding = a["padding"] if isinstance(a["padding"], str) else _pair(a["padding"])
    return nn.Conv2d(
        per_group * a["groups"],
        out,
        (height, width),
        stride=_pair(a["stride"]),
        padding=padding,
        dilation=_pair(a["dilation"]),
        groups=a["groups"],
        bias="bias" in own,
    )


def _linear(_: Mapping[str, Any], own: Shapes) -> nn.Module:
    return nn.Linear(own["weight"][1], own["weight"][0], bias="bias" in own)


def _batch_norm(a: Mapping[str, Any], own: Shapes) -> nn.Module:
    channels = own["running_mean"][0]
    return nn.BatchNorm2d(channels, eps=a["eps"], momentum=a["momentum"], affine="weight" in own)


def _max_pool2d(a: Mapping[str, Any], _: Shapes) -> nn.Module:
    stride = _pair(a["stride"]) if a["stride"] else None
    return nn.MaxPool2d(
        _pair(a["kernel_size"]), stride, _pair(a["padding"]), _pair(a["dilation"]), ceil_mode=a["ceil_mode"]
    )


def _avg_pool2d(a: Mapping[str, Any], _: Shapes) -> nn.Module:
    stride = _pair(a["stride"]) if a["stride"] else None
    size, padding = _pair(a["kernel_size"]), _pair(a["padding"])
    return nn.AvgPool2d(size, stride, padding, a["ceil_mode"], a["count_include_pad"], a["divisor_override"])


def _hardtanh(a: Mapping[str, Any], _: Shapes) -> nn.Module:
    if (a["min_val"], a["max_val"]) == (0, 6):
        return nn.ReLU6()
    return nn.Hardtanh(a["min_val"], a["max_val"])


def _pair(value: Any) -> tuple[int, int]:
    if isinstance(value, int):
        return value, value
    return (value[0], value[-1])


OPS: dict[str, Op] = {
    "input": Op("input"),
    "conv2d": Op("mix", ("conv2d.default", "conv2d.padding"), _conv2d, owns=("weight", "bias")),
    "linear": Op("mix", ("linear.default",), _linear, owns=("weight", "bias")),
    "batch_norm": Op(
        "each",
        ("batch_norm.default",),
        _batch_norm,
        owns=("weight", "bias", "running_mean", "running_var"),
        drops=("training", "cudnn_enabled"),
    ),
    "relu": Op("same", ("relu.default",), lambda a, _: nn.ReLU(), in_place=True),
    "hardtanh": Op("same", ("hardtanh.default",), _hardtanh, in_place=True),
    "relu6": Op("same", ("relu6.default",), lambda a, _: nn.ReLU6(), in_place=True),
    "leaky_relu": Op("same", ("leaky_relu.default",), lambda a, _: nn.LeakyReLU(a["negative_slope"]), in_place=True),
    "silu": Op("same", ("silu.default",), lambda a, _: nn.SiLU(), in_place=True),
    "gelu": Op("same", ("gelu.default",), lambda a, _: nn.GELU(a["approximate"]), in_place=True),
    "sigmoid": Op("same", ("sigmoid.default",), lambda a, _: nn.Sigmoid(), in_place=True),
    "tanh": Op("same", ("tanh.default",), lambda a, _: nn.Tanh(), in_place=True),
    "hardswish": Op("same", ("hardswish.default",), lambda a, _: nn.Hardswish(), in_place=True),
    "hardsigmoid": Op("same", ("hardsigmoid.default",), lambda a, _: nn.Hardsigmoid(), in_place=True),
    "dropout": Op("same", ("dropout.default",), lambda a, _: nn.Dropout(a["p"]), drops=("train",), view=True),
    "max_pool2d": Op("same", ("max_pool2d.default",), _max_pool2d),
    "avg_pool2d": Op("same", ("avg_pool2d.default",), _avg_pool2d),
    "adaptive_avg_pool2d": Op(
        "same", ("adaptive_avg_pool2d.default",), lambda a, _: nn.AdaptiveAvgPool2d(_pair(a["output_size"]))
    ),
    "mean": Op("reduce", ("mean.dim",)),
    "add": Op("join", ("add.Tensor",), in_place=True),
    "sub": Op("join", ("sub.Tensor",), in_place=True),
    "mul": Op("join", ("mul.Tensor",), in_place=True),
    "concat": Op("concat", ("cat.default", "concat.default")),
    "flatten": Op("flatten", ("flatten.using_ints",), view=True),
    "view": Op("flatten", ("view.default",), view=True),
    "reshape": Op("flatten", ("reshape.default",), view=True),
    "softmax": Op("fixed", ("softmax.int",)),
    "log_softmax": Op("fixed", ("log_softmax.int",)),
    "size": Op("scalar", ("sym_size.int",)),
}

BY_OVERLOAD: dict[str, str] = {overload: name for name, op in OPS.items() for overload in op.overloads}
