"""ONNX's operators that give the same elements another shape, or repeat them, as ATen calls.

A file exported for one batch size has that size baked into its Reshape targets. Where a target comes without any
trace of the batch, its dimension is found by memory order: a reshape keeps the order of elements, so the batch stays
where as many elements stand outside of it as before (`place_of_batch`).
Source: the ONNX operator specifications, opsets 7 to 25.
"""

import math
from collections.abc import Sequence
from dataclasses import replace

import torch

from slimwright.errors import ModelError, UnsupportedOp
from slimwright.importers.onnx.sizes import sizes_of
from slimwright.importers.onnx.step import Step, axis_of, integers
from slimwright.importers.onnx.values import Flow, Known, Operand, PerBatch, constant

Sizes = list[int]


def reshape(step: Step) -> Operand:
    """The same elements in another shape; 0 copies a size and -1 is worked out."""
    x, target = step.operand(0), _target(step)
    copies = not step.attr_int("allowzero", 0)
    asked = [list(integers(t, "shape")) for t in target.at]
    shapes = x.shape, tuple(x.at[1].shape)
    one, two = (_worked_out(a, shape, copies) for a, shape in zip(asked, shapes, strict=True))
    if isinstance(x, Known):
        return step.call("reshape.default", x, PerBatch((one, two)))
    wish = asked[0].index(-1) if -1 in asked[0] else None
    return reshaped(step, x, one, two if asked[0] != asked[1] else None, wish)


def _target(step: Step) -> Known:
    if (said := step.attr_ints("shape")) is not None:
        return constant(torch.tensor(said))
    return step.known(1, "shape")


def _worked_out(asked: Sizes, shape: tuple[int, ...], copies: bool) -> Sizes:
    """The target in plain sizes."""
    sizes = [shape[i] if s == 0 and copies and i < len(shape) else s for i, s in enumerate(asked)]
    if sizes.count(-1) > 1 or min(sizes, default=0) < -1:
        raise ModelError(f"its shape is {asked}; one size may be -1, and none smaller")
    if -1 in sizes:
        rest = -math.prod(sizes)
        sizes[sizes.index(-1)] = math.prod(shape) // rest if rest else 0
    return sizes


def reshaped(step: Step, x: Flow, one: Sizes, two: Sizes | None, wish: int | None = None) -> Operand:
    """Reshape a value to sizes `one` at the first batch size, `two` at the second where they follow from it.

    `wish` is the dimension that the file leaves open. Raises UnsupportedOp where the batch has no place in the target.
    """
    axis = x.batch_axis
    if math.prod(one) != math.prod(x.shape):
        raise ModelError(f"{list(x.shape)} does not fit into {one}")
    if axis is None:
        return step.call("reshape.default", x, tuple(one))
    if step.trace.open_sizes and x.outer == 1 and (merged := _merged(x.shape, one)) and axis not in range(*merged):
        return step.call("flatten.using_ints", x, merged[0], merged[1] - 1)
    outside = math.prod(x.shape[:axis]) * x.outer
    if two is not None and one != two:
        places = [place for place, (a, b) in enumerate(zip(one, two, strict=True)) if a != b]
        if len(places) != 1:
            raise UnsupportedOp(f"its shape has {len(places)} sizes that depend on the batch; one is supported")
        place = places[0]
        before = math.prod(one[:place])
        outer = outside // before if outside % before == 0 else 1
    else:
        place, outer = place_of_batch(outside, step.trace.batch, one, wish)
        if step.trace.open_batch and wish not in (None, place) and one[place] != step.trace.batch:
            raise UnsupportedOp("its shape takes the batch apart into other dimensions: images must not mix")
    sizes = tuple(-1 if at == place else size for at, size in enumerate(one))
    return replace(step.flow_call("reshape.default", x, sizes), outer=outer)


def _merged(before: tuple[int, ...], after: Sizes) -> tuple[int, int] | None:
    """Which dimensions, from one up to another, become one in a reshape; None where it does something else.

    Said so, and not by the sizes that there are, it is free of them.
    """
    gone = len(before) - len(after)
    start = next((at for at, (a, b) in enumerate(zip(before, after, strict=False)) if a != b), len(after))
    stop = start + gone + 1
    fits = gone > 0 and start < len(after) and list(before[stop:]) == after[start + 1 :]
    return (start, stop) if fits and math.prod(before[start:stop]) == after[start] else None


def place_of_batch(outside: int, batch: int, sizes: Sizes, wish: int | None) -> tuple[int, int]:
    """Return which of `sizes` holds a batch that `outside` elements stand outside of, and how many it holds of those.

    A size may hold the batch alone, have it outermost, or have it inside. Where memory order leaves a choice, a size
    that is just the batch comes first, then the one the file leaves open (`wish`); the last size, which holds features,
    comes last. Raises UnsupportedOp where no size can hold the batch.
    """
    found: list[tuple[int, int, int]] = []  # rank, place, how many stand outside
    for place, size in enumerate(sizes):
        before = math.prod(sizes[:place])
        if before < 1 or outside % before or (before * size) % (outside * batch):
            continue
        last, starts = place == len(sizes) - 1, before == outside
        if starts and size == batch:
            rank = 0
        elif place == wish:
            rank = 1
        elif starts and (not last or outside == 1):
            rank = 2
        else:
            rank = 4 if last else 3
        found.append((rank, place, outside // before))
    if not found:
        raise UnsupportedOp(
            f"its shape {sizes} is for {batch} image{'s' * (batch > 1)} only and leaves the batch no dimension; export "
            "the model with a dynamic batch: torch.onnx.export(..., dynamic_shapes=({0: torch.export.Dim.DYNAMIC},))"
        )
    return min(found)[1:]


def flatten(step: Step) -> Operand:
    """Two dimensions: those before `axis`, and those from it on."""
    x = step.operand(0)
    rank = len(x.shape)
    axis = step.attr_int("axis", 1)
    axis = axis_of(axis, rank) if axis != rank else rank
    if axis == 1 and rank > 1:
        return step.call("flatten.using_ints", x, 1, -1)
    one, two = ([math.prod(s[:axis]), math.prod(s[axis:])] for s in (x.shape, tuple(x.at[1].shape)))
    if isinstance(x, Known):
        return step.call("reshape.default", x, PerBatch((one, two)))
    return reshaped(step, x, one, None if axis == 0 else two)


def squeeze(step: Step) -> Operand:
    """Dimensions of one go away; without axes, all that are one at any batch size."""
    x = step.operand(0)
    both = zip(x.shape, x.at[1].shape, strict=True)
    given = step.axes(1)
    axes = tuple(a for a, sizes in enumerate(both) if sizes == (1, 1)) if given is None else given
    axes = tuple(axis_of(axis, len(x.shape)) for axis in axes)
    if isinstance(x, Flow) and _is_one_image(step, x) and x.batch_axis in axes and all(x.shape[a] == 1 for a in axes):
        return reshaped(step, x, [size for at, size in enumerate(x.shape) if at not in axes], None)
    if any(x.at[1].shape[axis] != 1 for axis in axes):
        raise ModelError(
            f"it drops axes {list(axes)} of {list(x.at[1].shape)}, of which not all are one, or are the batch"
        )
    return step.call("squeeze.dims", x, axes) if axes else x


def unsqueeze(step: Step) -> Operand:
    """New dimensions of one; the axes count in the result."""
    x, axes = step.operand(0), step.axes(1)
    if axes is None:
        raise ModelError("it has no axes")
    rank = len(x.shape) + len(axes)
    if isinstance(x, Flow) and _is_one_image(step, x) and x.batch_axis is not None and x.shape[x.batch_axis] > 1:
        sizes, new = list(x.shape), {axis_of(axis, rank) for axis in axes}
        return reshaped(step, x, [1 if at in new else sizes.pop(0) for at in range(rank)], None)
    for axis in sorted(axis_of(axis, rank) for axis in axes):
        x = step.call("unsqueeze.default", x, axis)
    return x


def _is_one_image(step: Step, x: Flow) -> bool:
    """True in a file for one image, which may drop the batch and have its dimension hold other things."""
    return step.trace.batch == 1 and not step.trace.open_batch and x.batch_axis is not None


def transpose(step: Step) -> Operand:
    """The dimensions in another order; without `perm`, the reverse."""
    x = step.operand(0)
    order = step.attr_ints("perm", tuple(range(len(x.shape)))[::-1]) or ()
    return step.call("permute.default", x, order)


def expand(step: Step) -> Operand:
    """A value repeated along dimensions of one."""
    x = step.operand(0)
    asked = sizes_of(step.known(1, "shape")).at
    if isinstance(x, Known):
        shapes = [list(torch.broadcast_shapes(tuple(x.at[w].shape), tuple(asked[w]))) for w in (0, 1)]
        return step.call("expand.default", x, PerBatch((shapes[0], shapes[1])))
    new = max(len(asked[0]) - len(x.shape), 0)
    sizes: list[int | Flow] = []
    for axis in range(new + len(x.shape)):
        one, two = (_at(asked[world], axis - new - len(x.shape)) for world in (0, 1))
        here = (1, 1) if axis < new else (x.shape[axis - new], x.at[1].shape[axis - new])
        if axis >= new and (here == (one, two) or one == two == 1 or (here[0] == one and axis - new == x.batch_axis)):
            sizes.append(-1)
        elif one == two:
            sizes.append(one)
        elif one == step.trace.batch:
            sizes.append(step.trace.batch_size())
        else:
            raise UnsupportedOp("it repeats a value as often as a multiple of the number of images")
    return step.call("expand.default", x, tuple(sizes))


def _at(sizes: Sequence[int], from_end: int) -> int:
    return sizes[from_end] if -from_end <= len(sizes) else 1


def tile(step: Step) -> Operand:
    """A value repeated as a whole, along every axis."""
    return step.call("repeat.default", step.operand(0), sizes_of(step.known(1, "repeats")))
