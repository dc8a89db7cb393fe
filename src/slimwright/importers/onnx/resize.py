"""ONNX's Resize and Upsample as torch's upsampling.

Nearest neighbours are exact in every mode: the index of each output's source is worked out by ONNX's formula, and
where torch's kernel would pick the same ones it is used, otherwise a selection by index. So is linear resizing: with
half pixels (torch's `align_corners=False`) and aligned corners by torch's kernel, otherwise as means of two picks.
Cubic resizing is supported where torch computes the same. In a file that leaves sizes open, a scale of few binary
digits stays a scale, which is exact at any size; all others become sizes.
Source: the ONNX operator specifications of Resize (opsets 10 to 19) and Upsample (7 and 9).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from slimwright.errors import ModelError, UnsupportedOp
from slimwright.importers.onnx.step import Step, axis_of
from slimwright.importers.onnx.values import Flow, Operand, constant

SMOOTH = {"linear": "upsample_bilinear2d.vec", "cubic": "upsample_bicubic2d.vec"}
TRANSFORMS: dict[str, Callable[[Tensor, "Axis"], Tensor]] = {  # output place -> place in the input
    "half_pixel": lambda at, axis: (at + 0.5) / axis.scale - 0.5,
    "pytorch_half_pixel": lambda at, axis: (at + 0.5) / axis.scale - 0.5 if axis.out > 1 else at * 0,
    "asymmetric": lambda at, axis: at / axis.scale,
    "half_pixel_symmetric": lambda at, axis: (
        axis.size / 2 * (1 - axis.out / (axis.scale * axis.size)) + (at + 0.5) / axis.scale - 0.5
    ),
    "align_corners": lambda at, axis: at * (axis.size - 1) / max(axis.out - 1, 1),
}
BINARY = 64.0  # a scale times this is a whole number, or a size times the scale may be rounded
LONG = 4096  # of an axis on which the picks of a scale are compared
TORCH_HAS = ("half_pixel", "pytorch_half_pixel", "align_corners")
ROUNDINGS: dict[str, Callable[[Tensor], Tensor]] = {
    "round_prefer_floor": lambda place: torch.ceil(place - 0.5),
    "round_prefer_ceil": lambda place: torch.floor(place + 0.5),
    "floor": torch.floor,
    "ceil": torch.ceil,
}


@dataclass(frozen=True)
class Axis:
    """One dimension of an image: its size before and after, and the scale that lies between."""

    size: int
    out: int
    scale: float


def upsample(step: Step) -> Operand:
    """Nearest neighbours at given scales: the older operator."""
    x = step.flow()
    mode = step.choice("mode", ("nearest", "linear", "bilinear"))
    between = _axes(x, step.node.attributes.get("scales") or _numbers(step, 1), None)
    if mode == "nearest":
        return _nearest(step, x, between, "asymmetric", "floor")
    return _linear(step, x, between, "asymmetric")


def resize(step: Step) -> Operand:
    """An image at another size, or at given scales."""
    x = step.flow()
    first = 1 if step.opset < 11 else 2
    scales = _on_all(step, x, _numbers(step, first), (1.0,) * len(x.shape))
    sizes = _on_all(step, x, step.numbers_at_first_batch(3, "sizes"), x.shape)
    step.choice("keep_aspect_ratio_policy", ("stretch",))
    mode = step.choice("mode", ("nearest", "linear", "cubic"))
    transform = "asymmetric" if step.opset < 11 else step.choice("coordinate_transformation_mode", tuple(TRANSFORMS))
    if not _has_channels_last(x, scales, sizes):
        return _resized(step, x, mode, transform, _axes(x, scales, sizes))
    x = step.flow_call("permute.default", x, (0, 3, 1, 2))
    scales, sizes = (given and (given[0], given[3], given[1], given[2]) for given in (scales, sizes))
    result = _resized(step, x, mode, transform, _axes(x, scales, sizes))
    return step.call("permute.default", result, (0, 2, 3, 1))


def _has_channels_last(x: Flow, scales: tuple[float, ...] | None, sizes: tuple[float, ...] | None) -> bool:
    """True where the dimensions of an image that change are the two in the middle, as TensorFlow has them."""
    given, before = (sizes, x.shape) if sizes else (scales, (1,) * 4)
    return len(x.shape) == 4 and given is not None and len(given) == 4 and (
        (given[0], given[3]) == (before[0], before[3]) and given[1] != before[1]
    )  # fmt: skip


def _resized(step: Step, x: Flow, mode: str, transform: str, between: list[Axis]) -> Operand:
    if all(axis.out == axis.size for axis in between):
        return x
    if step.attr_int("antialias", 0):
        raise UnsupportedOp("it smooths before it shrinks (antialias); that is not supported")
    if mode == "nearest":
        rounding = "floor" if step.opset < 11 else step.choice("nearest_mode", tuple(ROUNDINGS))
        return _nearest(step, x, between, transform, rounding)
    return _smooth(step, x, mode, between, transform)


def _axes(x: Flow, scales: object, sizes: object) -> list[Axis]:
    """The dimensions of space. Raises where others change too."""
    rank = len(x.shape)
    if rank < 3:
        raise UnsupportedOp(f"it resizes a value of shape {list(x.shape)}, which has no dimension of space")
    given = sizes if sizes else scales
    if not isinstance(given, tuple) or len(given) != rank:
        raise ModelError(f"its scales are {scales} and its sizes {sizes}; one of them must have {rank} numbers")
    if sizes:
        if given[:2] != x.shape[:2]:
            raise UnsupportedOp(f"it resizes {list(x.shape)} to {list(given)}; only height and width may change")
        return [Axis(size, int(out), out / size) for size, out in zip(x.shape[2:], given[2:], strict=True)]
    if given[:2] != (1, 1) or not all(0 < s < 2**16 for s in given):
        raise UnsupportedOp(f"its scales are {list(given)}; only height and width may change")
    return [Axis(size, math.floor(size * s), float(s)) for size, s in zip(x.shape[2:], given[2:], strict=True)]


def _nearest(step: Step, x: Flow, axes: list[Axis], transform: str, rounding: str) -> Operand:
    if (scales := _at_any_size(step, axes)) is not None and all(_is_torchs(axis, transform, rounding) for axis in axes):
        return step.call("upsample_nearest2d.vec", x, None, scales)
    picks, torch_picks = [], []
    for axis in axes:
        step.trace.afford(axis.out, torch.float32)
        at = torch.arange(axis.out, dtype=torch.float32)  # as ONNX Runtime rounds
        picks.append(ROUNDINGS[rounding](TRANSFORMS[transform](at, axis)).clamp(0, axis.size - 1).to(torch.int64))
        torch_picks.append((at * (axis.size / axis.out)).floor().clamp(0, axis.size - 1).to(torch.int64))
    if len(axes) == 2 and all(torch.equal(one, other) for one, other in zip(picks, torch_picks, strict=True)):
        return step.call("upsample_nearest2d.vec", x, tuple(axis.out for axis in axes), None)
    result: Operand = x
    for place, pick in enumerate(picks, 2):
        result = step.call("index_select.default", result, place, constant(pick, f"{step.trace.about}.index"))
    return result


def _at_any_size(step: Step, axes: list[Axis]) -> tuple[float, ...] | None:
    """The scales, where the file leaves sizes open and they give the size that is wanted without rounding."""
    exact = all((axis.scale * BINARY).is_integer() and axis.out == math.floor(axis.size * axis.scale) for axis in axes)
    return tuple(axis.scale for axis in axes) if step.trace.open_sizes and len(axes) == 2 and exact else None


def _is_torchs(axis: Axis, transform: str, rounding: str) -> bool:
    """True where torch picks the same neighbours at a scale as ONNX does, on an axis as long as there are."""
    long = Axis(LONG, math.floor(LONG * axis.scale), axis.scale)
    at = torch.arange(long.out, dtype=torch.float32)
    pick = ROUNDINGS[rounding](TRANSFORMS[transform](at, long)).clamp(0, LONG - 1)
    return torch.equal(pick, (at * (1 / axis.scale)).floor().clamp(0, LONG - 1))


def _linear(step: Step, x: Flow, axes: list[Axis], transform: str) -> Operand:
    """Between two neighbours along one axis after the other, each picked by index."""
    if step.attr_int("exclude_outside", 0):
        raise UnsupportedOp("it leaves out what lies outside (exclude_outside); that is not supported")
    result: Operand = x
    for place, axis in enumerate(axes, 2):
        step.trace.afford(3 * axis.out, torch.float32)
        at = TRANSFORMS[transform](torch.arange(axis.out, dtype=torch.float32), axis).clamp(0, axis.size - 1)
        before = at.floor().clamp(max=max(axis.size - 2, 0))
        share = (at - before).reshape([-1 if dim == place else 1 for dim in range(len(x.shape))])
        ends = [before.long(), (before + 1).clamp(max=axis.size - 1).long()]
        if not bool(share.any()):
            result = step.call("index_select.default", result, place, constant(ends[0], f"{step.trace.about}.index"))
            continue
        one, other = (
            step.call("index_select.default", result, place, constant(end, f"{step.trace.about}.index")) for end in ends
        )
        result = step.call(
            "add.Tensor",
            step.call("mul.Tensor", one, constant(1 - share, f"{step.trace.about}.share")),
            step.call("mul.Tensor", other, constant(share, f"{step.trace.about}.share")),
        )
    return result


def _smooth(step: Step, x: Flow, mode: str, axes: list[Axis], transform: str) -> Operand:
    if mode == "linear" and (transform not in TORCH_HAS or len(axes) != 2):
        return _linear(step, x, axes, transform)
    if mode == "cubic" and not math.isclose(step.attr_float("cubic_coeff_a", -0.75), -0.75):
        raise UnsupportedOp("its cubic_coeff_a is not torch's -0.75")
    if transform not in TORCH_HAS or len(axes) != 2 or step.attr_int("exclude_outside", 0):
        raise UnsupportedOp(f"it interpolates with {transform} coordinates, as no torch operator does")
    if transform == "pytorch_half_pixel" and any(axis.out == 1 < axis.size for axis in axes):
        raise UnsupportedOp("it shrinks to a single row, which torch places otherwise")
    if any(axis.out == axis.size and axis.scale != 1 for axis in axes):
        raise UnsupportedOp("its scale moves pixels along an axis without changing its size, as no torch operator does")
    aligned = transform == "align_corners"
    if (kept := _at_any_size(step, axes)) is not None:
        return step.call(SMOOTH[mode], x, None, aligned, kept)
    if aligned or all(math.isclose(axis.scale, axis.out / axis.size) for axis in axes):
        return step.call(SMOOTH[mode], x, tuple(axis.out for axis in axes), aligned, None)
    if step.trace.must_be_exact:
        raise UnsupportedOp("a size times its scale is rounded, which runtimes do in different ways")
    return step.call(SMOOTH[mode], x, None, aligned, tuple(axis.scale for axis in axes))


def _numbers(step: Step, place: int) -> tuple[float, ...] | None:
    found = step.weight(place, "scales")
    if found is None or not found.at[0].numel():
        return None
    if found.at[0].numel() > len(step.flow().shape):
        raise ModelError(f"its scales have the shape {list(found.shape)}; it must be one for each dimension")
    return tuple(float(s) for s in found.at[0].reshape(-1).tolist())


def _on_all(
    step: Step, x: Flow, given: tuple[float, ...] | None, default: tuple[float, ...]
) -> tuple[float, ...] | None:
    """What the attribute `axes` spares, filled in."""
    axes = step.attr_ints("axes")
    if given is None or axes is None or len(given) != len(axes):
        return given
    whole = list(default)
    for axis, value in zip(axes, given, strict=True):
        whole[axis_of(axis, len(x.shape))] = value
    return tuple(whole)
