"""ONNX's operators that put values side by side, or pick parts of them, as ATen calls.

Source: the ONNX operator specifications, opsets 7 to 25.
"""

import math

import torch
from torch import Tensor

from slimwright.errors import ModelError, UnsupportedOp
from slimwright.importers.onnx.reshape import reshaped
from slimwright.importers.onnx.step import Step, axis_of, integers
from slimwright.importers.onnx.values import Flow, Known, Operand, PerBatch, constant, pair


def concat(step: Step) -> Operand:
    """Values side by side. A constant that a fixed batch has repeated is repeated for any batch."""
    parts = [step.operand(place) for place in range(len(step.node.inputs))]
    axis = axis_of(step.attr_int("axis"), len(parts[0].shape))
    batches = {part.batch_axis for part in parts if isinstance(part, Flow)} - {None}
    if len(batches) == 1:
        (batch,) = batches
        assert batch is not None
        if batch != axis:
            parts = [for_every_image(step, part, batch) for part in parts]
    return step.call("cat.default", tuple(parts), axis)


def for_every_image(step: Step, part: Operand, batch: int) -> Operand:
    """A constant that a file for one batch repeats along its dimension, repeated for any batch; others as they are."""
    if isinstance(part, Flow) or not part.fixed or part.shape[batch : batch + 1] != (step.trace.batch,):
        return part
    row = part.at[0].narrow(batch, 0, 1)
    if not torch.equal(row.expand_as(part.at[0]), part.at[0]):
        return part
    return step.trace.repeated(step.trace.derived(part, f"first along {batch}", lambda: row), batch)


def split(step: Step) -> Operand | tuple[Operand, ...]:
    """Slices along one axis: of given sizes, or as equal as can be."""
    x = step.operand(0)
    axis = axis_of(step.attr_int("axis", 0), len(x.shape))
    size, count = x.shape[axis], len(step.node.outputs)
    sizes = step.attr_ints("split") if "split" in step.node.attributes else step.numbers(1, "split")
    if sizes is None:
        each = max(-(-size // max(step.attr_int("num_outputs", count), 1)), 1)
        sizes = tuple(max(min(each, size - at * each), 0) for at in range(count))
    if len(sizes) != count or sum(sizes) != size or min(sizes) < 0:
        raise ModelError(f"it splits {size} along axis {axis} into {list(sizes)} for {count} outputs")
    starts = [sum(sizes[:place]) for place in range(count)]
    return tuple(step.call("slice.Tensor", x, axis, at, at + n, 1) for at, n in zip(starts, sizes, strict=True))


def slice_(step: Step) -> Operand:
    """A part of a value along some axes; a negative step walks backwards."""
    x = step.operand(0)
    names = ("starts", "ends", "axes", "steps")
    if step.opset < 10:
        given = [None if (v := step.attr_ints(n)) is None else constant(torch.tensor(v)) for n in names]
    else:
        given = [None if step.optional(p) is None else step.known(p, n) for p, n in enumerate(names, 1)]
    starts, ends, axes, steps = given
    if starts is None or ends is None:
        raise ModelError("its starts or ends are missing")
    along = tuple(range(len(x.shape))) if axes is None else integers(axes.at[0], "axes")
    for place, axis in enumerate(axis_of(axis, len(x.shape)) for axis in along[: starts.at[0].numel()]):
        stride = 1 if steps is None else integers(steps.at[0], "steps")[place]
        ranges = []
        for world in (0, 1):
            low, high = (integers(t.at[world], "starts and ends")[place] for t in (starts, ends))
            ranges.append(_walk(low, high, stride, x.at[world].shape[axis]))
        x = _sliced(step, x, axis, (ranges[0], ranges[1]))
    return x


def _walk(low: int, high: int, step: int, size: int) -> range:
    """The entries of a slice; other than in Python, walking backwards from before the first starts at the first."""
    if step == 0:
        raise ModelError("its steps hold a 0")
    low, high = (place + size if place < 0 else place for place in (low, high))
    if step > 0:
        return range(min(max(low, 0), size), min(max(high, 0), size), step)
    return range(min(max(low, 0), size - 1), min(max(high, -1), size - 1), step)


def _sliced(step: Step, x: Operand, axis: int, ranges: tuple[range, range]) -> Operand:
    if all(r == range(value.shape[axis]) for r, value in zip(ranges, x.at, strict=True)):
        return x
    if ranges[0].step < 0:
        if ranges[0] != ranges[1]:
            raise UnsupportedOp(f"it walks backwards along axis {axis}, which depends on the batch")
        step.trace.afford(len(ranges[0]), torch.int64)
        order = constant(torch.arange(len(ranges[0])) * ranges[0].step + ranges[0].start, f"{step.trace.about}.index")
        return step.call("index_select.default", x, axis, order)
    start, stop = (PerBatch(tuple(getattr(r, end) for r in ranges)) for end in ("start", "stop"))
    return step.call("slice.Tensor", x, axis, start, stop, ranges[0].step)


def gather(step: Step) -> Operand:
    """Entries along one axis, by number; of a stored table, by numbers that are computed, too (an embedding)."""
    x, index = step.operand(0), step.operand(1)
    axis = axis_of(step.attr_int("axis", 0), len(x.shape))
    if isinstance(index, Flow) and isinstance(x, Known) and x.fixed and (axis, x.at[0].ndim) == (0, 2):
        return step.call("embedding.default", x, index)
    return _gathered(step, x, axis, step.known(1, "indices"))


def gather_elements(step: Step) -> Operand:
    """Entries along one axis, by a number for each entry of the result."""
    x, axis, index = _by_entries(step)
    return step.call("gather.default", x, axis, index)


def scatter_elements(step: Step) -> Operand:
    """Some entries along one axis replaced, by a number for each entry of what is put there."""
    x, axis, index = _by_entries(step)
    if step.attr_text("reduction", "none") != "none":
        raise UnsupportedOp("it adds to what is there; that is not supported")
    updates = step.operand(2)
    if isinstance(x, Flow) and x.batch_axis is not None:
        updates = for_every_image(step, updates, x.batch_axis)
    return step.call("scatter.src", x, axis, index, updates)


def _by_entries(step: Step) -> tuple[Operand, int, Operand]:
    """A value, an axis of it that is not the batch, and a number along that axis for each of many entries."""
    x, index = step.operand(0), step.operand(1)
    axis = axis_of(step.attr_int("axis", 0), len(x.shape))
    if isinstance(index, Known):
        one, two = (_in_range(i, value.shape[axis]) for i, value in zip(index.at, x.at, strict=True))
        index = pair(one, two, f"{step.trace.about}.index")
    if isinstance(x, Flow) and x.batch_axis is not None:
        if x.batch_axis == axis:
            raise UnsupportedOp("it picks from the batch: images must not mix")
        index = for_every_image(step, index, x.batch_axis)
    return x, axis, index


SAMPLING = {"linear": 0, "bilinear": 0, "nearest": 1, "cubic": 2, "bicubic": 2}  # torch's numbers
BEYOND = {"zeros": 0, "border": 1, "reflection": 2}


def grid_sample(step: Step) -> Operand:
    """The values of an image between its pixels, at places that are computed or stored."""
    x, grid = step.flow(), step.operand(1)
    if x.batch_axis is not None:
        grid = for_every_image(step, grid, x.batch_axis)
    mode = SAMPLING[step.choice("mode", tuple(SAMPLING))]
    beyond = BEYOND[step.choice("padding_mode", tuple(BEYOND))]
    return step.call("grid_sampler.default", x, grid, mode, beyond, bool(step.attr_int("align_corners", 0)))


def gather_nd(step: Step) -> Operand:
    """Entries by their positions along the first axes: as torch.onnx writes what is indexed by lists."""
    x, index = step.operand(0), step.known(1, "indices")
    if step.attr_int("batch_dims", 0) or not index.at[0].ndim:
        raise UnsupportedOp("it picks from each image by its own numbers (batch_dims); that is not supported")
    depth = index.shape[-1]
    if isinstance(x, Flow) and x.batch_axis is not None and x.batch_axis < depth:
        raise UnsupportedOp("it picks from the batch: images must not mix")
    columns = [pair(index.at[0][..., at], index.at[1][..., at], index.wish) for at in range(depth)]
    if depth == 1:
        return _gathered(step, x, 0, columns[0])
    numbers = [
        pair(_in_range(column.at[0], x.shape[at]), _in_range(column.at[1], x.at[1].shape[at]), index.wish)
        for at, column in enumerate(columns)
    ]
    return step.call("index.Tensor", x, tuple(numbers))


def _gathered(step: Step, x: Operand, axis: int, index: Known) -> Operand:
    if isinstance(x, Flow) and (strided := _restrided(step, x, axis, index)) is not None:
        return strided
    one, two = (_in_range(i, value.shape[axis]) for i, value in zip(index.at, x.at, strict=True))
    at = pair(one, two, f"{step.trace.about}.index")
    if at.at[0].ndim == 0 and at.fixed:
        return step.call("select.int", x, axis, int(at.at[0]))
    if at.at[0].ndim == 1:
        return _picked(step, x, axis, at)
    flat = step.call("index_select.default", x, axis, _flat(at))
    shapes = [[*v.shape[:axis], *i.shape, *v.shape[axis + 1 :]] for v, i in zip(x.at, at.at, strict=True)]
    if isinstance(flat, Flow):
        return reshaped(step, flat, shapes[0], shapes[1])
    return step.call("reshape.default", flat, PerBatch((shapes[0], shapes[1])))


def _picked(step: Step, x: Operand, axis: int, index: Known) -> Operand:
    numbers = index.at[0]
    if isinstance(x, Flow) and index.fixed and len(numbers):
        start = int(numbers[0])
        if torch.equal(numbers, torch.arange(start, start + len(numbers))):
            return step.call("slice.Tensor", x, axis, start, start + len(numbers), 1)
    return step.call("index_select.default", x, axis, index)


def _in_range(index: Tensor, size: int) -> Tensor:
    if index.dtype not in (torch.int64, torch.int32):
        raise ModelError(f"its indices are {index.dtype}; they must be integers")
    index = index.to(torch.int64)
    if index.numel() and not bool(((index >= -size) & (index < size)).all()):
        raise ModelError(
            f"its indices reach from {int(index.min())} to {int(index.max())}, but there are {size} entries"
        )
    return torch.where(index < 0, index + size, index)


def _flat(index: Known) -> Known:
    return pair(index.at[0].reshape(-1), index.at[1].reshape(-1), index.wish)


def _restrided(step: Step, x: Flow, axis: int, index: Known) -> Operand | None:
    """A value that was flattened and is picked apart by computed positions: what torch.onnx makes of as_strided.

    Where every image is picked apart alike, it is a gather per image; where the positions are those of a permuted
    array, it is a permutation.
    """
    one, two = index.at
    count = step.trace.batch
    if len(x.shape) != 1 or x.batch_axis != 0 or x.outer != 1 or one.ndim < 2 or one.shape[0] % count:
        return None
    per_image, length = one.shape[0] // count, x.shape[0] // count
    first = one[:per_image]
    for world, positions in enumerate((one, two) if not index.fixed else (one,)):
        images = count * (x.at[world].shape[0] // x.shape[0])
        moved = torch.arange(images).reshape(-1, *[1] * one.ndim) * length
        if positions.shape != (images * per_image, *one.shape[1:]):
            return None
        if not torch.equal(positions.reshape(images, per_image, *one.shape[1:]), first + moved):
            return None
    first = _in_range(first, length)
    shape = tuple(first.shape) if per_image > 1 else tuple(first.shape[1:])
    order = _permutation(first.reshape(shape), length)
    if order is not None and per_image == 1:
        stored = [0] * len(shape)
        for place, axis_stored in enumerate(order):
            stored[axis_stored] = shape[place]
        whole = step.call("reshape.default", x, (-1, *stored))
        return step.call("permute.default", whole, (0, *(1 + a for a in order)))
    rows = step.call("reshape.default", x, (-1, length))
    picked = step.call("index_select.default", rows, 1, constant(first.reshape(-1), f"{step.trace.about}.index"))
    return step.call("reshape.default", picked, (-1, *one.shape[1:]))


def _permutation(positions: Tensor, length: int) -> tuple[int, ...] | None:
    """For positions that walk through all of 0..length in another order of dimensions: where each one is stored."""
    strides = []
    for axis, size in enumerate(positions.shape):
        line = positions[tuple(slice(None) if a == axis else 0 for a in range(positions.ndim))]
        strides.append(int(line[1] - line[0]) if size > 1 else 0)
    by_stride = sorted(range(positions.ndim), key=lambda a: (-strides[a], positions.shape[a]))
    ranks = {axis: place for place, axis in enumerate(by_stride)}
    order = tuple(ranks[a] for a in range(positions.ndim))
    if math.prod(positions.shape) != length:
        return None
    stored = torch.arange(length).reshape([positions.shape[a] for a in by_stride])
    return order if torch.equal(stored.permute(order), positions) else None


def scatter_nd(step: Step) -> Operand:
    """Some entries replaced, at positions that are stored."""
    data, index, updates = step.operand(0), step.known(1, "indices"), step.operand(2)
    columns = tuple(step.call("select.int", index, -1, place) for place in range(index.shape[-1]))
    if any(not isinstance(c, Known) for c in columns) or step.attr_text("reduction", "none") != "none":
        raise UnsupportedOp("it adds to what is there; that is not supported")
    for world in (0, 1):
        for axis, column in enumerate(columns):
            _in_range(column.at[world], data.at[world].shape[axis])
    return step.call("index_put.default", data, columns, updates)


def einsum(step: Step) -> Operand:
    """A sum of products, by its equation."""
    parts = tuple(step.operand(place) for place in range(len(step.node.inputs)))
    return step.call("einsum.default", step.attr_text("equation", ""), parts)
