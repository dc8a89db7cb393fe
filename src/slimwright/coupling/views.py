"""What operators that only put elements elsewhere do to an array of channel identities.

An array stands for a value of the same rank and has size 1 along every dimension in which the identity does not
change, so a map of 56x56 pixels with 64 channels is an array of shape [1, 64, 1, 1].
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

Ids = NDArray[np.int64]
Shape = tuple[int, ...]


def moved(op: str, arguments: Mapping[str, Any], ids: Ids, source: Shape, result: Shape) -> Ids | None:
    """Return the identities of the result, given those of the source; None where they cannot be followed.

    `arguments` are those of the node, with constants in place of references; shapes are those of the values.
    """
    match op.removeprefix("aten.").partition(".")[0]:
        case "reshape" | "flatten":
            return reshaped(ids, source, result)
        case "squeeze":
            return ids.reshape([n for axis, n in enumerate(ids.shape) if axis not in arguments["dim"]])
        case "unsqueeze":
            return np.expand_dims(ids, arguments["dim"])
        case "permute":
            return np.transpose(ids, arguments["dims"])
        case "transpose":
            return np.swapaxes(ids, arguments["dim0"], arguments["dim1"])
        case "expand":
            return ids.reshape((1,) * (len(result) - ids.ndim) + ids.shape)
        case "slice":
            return _along(ids, arguments["dim"], slice(arguments["start"], arguments["end"], arguments["step"]))
        case "select":
            return _selected(ids, arguments)
        case "gather":
            return ids if ids.shape[arguments["dim"]] == 1 else ids.take(arguments["index"], arguments["dim"])
        case "index":
            return _indexed(ids, arguments["indices"], source)
        case "unfold":
            return np.expand_dims(ids, ids.ndim) if ids.shape[arguments["dimension"]] == 1 else None
        case "roll":
            return _rolled(ids, arguments)
        case "flip":
            flipped: Ids = np.flip(ids, tuple(d for d in arguments["dims"] if ids.shape[d] > 1))
            return flipped
        case "contiguous" | "clone" | "to" | "_to_copy":
            return ids
    return None


def reshaped(ids: Ids, source: Shape, result: Shape) -> Ids:
    """Return the identities of a value whose elements are read in order into another shape.

    Only the dimensions that mix with a tracked one are laid out in full.
    """
    parts: list[int] = []
    order: list[int] = []
    for before, after in _blocks(source, result):
        inner = [ids.shape[i] for i in before]
        if math.prod(inner) == 1:
            parts += [1] * len(after)
            order += [0] * len(before)
        else:
            parts += [result[i] for i in after]
            order += [1] * len(before)
    full = np.broadcast_to(ids, [source[i] if order[i] else 1 for i in range(len(source))])
    return collapsed(full.reshape(parts))


def collapsed(ids: Ids) -> Ids:
    """Return the array with size 1 along every dimension in which nothing changes."""
    for axis in range(ids.ndim):
        if ids.shape[axis] > 1:
            head = ids.take([0], axis)
            if bool((ids == head).all()):
                ids = head
    return ids


def _blocks(source: Shape, result: Shape) -> list[tuple[list[int], list[int]]]:
    """Runs of dimensions of equal size in both shapes: the least that a reshape takes apart and puts together."""
    blocks = []
    i = j = 0
    while i < len(source) or j < len(result):
        before, after = [i] * (i < len(source)), [j] * (j < len(result))
        left, right = math.prod(source[k] for k in before), math.prod(result[k] for k in after)
        i, j = i + len(before), j + len(after)
        while left != right:
            if left < right:
                before.append(i)
                left, i = left * source[i], i + 1
            else:
                after.append(j)
                right, j = right * result[j], j + 1
        blocks.append((before, after))
    return blocks


def _along(ids: Ids, axis: int, part: slice) -> Ids:
    if ids.shape[axis] == 1:
        return ids
    return ids[tuple(part if i == axis else slice(None) for i in range(ids.ndim))]


def _selected(ids: Ids, arguments: Mapping[str, Any]) -> Ids | None:
    axis, index = arguments["dim"], arguments["index"]
    if ids.shape[axis] > 1 and not isinstance(index, int):
        return None
    chosen: Ids = np.take(ids, index if ids.shape[axis] > 1 else 0, axis)
    return chosen


def _indexed(ids: Ids, indices: Any, source: Shape) -> Ids | None:
    if any(index is not None and not isinstance(index, np.ndarray) for index in indices):
        return None
    chosen = [i for i, index in enumerate(indices) if index is not None]
    full = np.broadcast_to(ids, [source[i] if i in chosen else n for i, n in enumerate(ids.shape)])
    return collapsed(full[tuple(slice(None) if index is None else index for index in indices)])


def _rolled(ids: Ids, arguments: Mapping[str, Any]) -> Ids | None:
    if not arguments["dims"]:
        return ids if ids.size == 1 else None
    for shift, axis in zip(arguments["shifts"], arguments["dims"], strict=True):
        if ids.shape[axis] > 1:
            ids = np.roll(ids, shift, axis)
    return ids
