"""One form for what torch has many names for.

Views of all kinds become `reshape`, `squeeze`, `unsqueeze`, `permute`, `transpose`, `expand`, `slice` or `select`, with
dimensions counted from the front. A size that follows from the batch becomes -1; which one does is seen by comparing
the shapes at a batch of one and of two.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from slimwright.graph.node import Ref, Value
from slimwright.graph.ops import call_aten
from slimwright.importers.program import Call

Arguments = dict[str, Value]
NOTHING: tuple[str, Arguments] = ("", {})  # an op that gives back what it reads
TO_DTYPE: Arguments = {"self": None, "dtype": None, "non_blocking": False, "copy": False, "memory_format": None}


@dataclass(frozen=True)
class Seen:
    """A call whose first value is node `first`; sources and results at a batch of one and of two, without elements."""

    call: Call
    first: str
    sources: tuple[Any, Any]
    results: tuple[Any, Any]
    batch_size: Value = None  # the size node of the value that an `expand_as` follows, if that follows the batch


def renamed(call: Call, dtype_of: Mapping[str, Any]) -> Call:
    """Return calls that say the same as another by that other's name; `dtype_of` holds dtypes of values."""
    if call.overload in ("view.default", "_unsafe_view.default"):  # of the same elements, in any memory layout
        return Call(call.name, "reshape.default", {"self": call.arguments["self"], "shape": call.arguments["size"]})
    if call.overload in ("to.device", "to.dtype_layout", "_to_copy.default"):  # where it lies is not the net's business
        dtype = call.arguments["dtype"] or str(dtype_of[call.reads[0]])
        return Call(call.name, "to.dtype", {**TO_DTYPE, "self": call.arguments["self"], "dtype": dtype})
    return call


def normal(op: str, arguments: Arguments, seen: Seen) -> tuple[str, Arguments]:
    """Return op and arguments in the form that the rest of the house knows; the op is "" for one that does nothing."""
    one, two = seen.sources
    first = Ref(seen.first)
    match seen.call.overload.partition(".")[0]:
        case "bmm" | "mm":
            return "matmul", {"self": first, "other": arguments["mat2"]}
        case "reshape" | "unflatten" | "view_as" | "reshape_as":
            sizes = [a if a == b else -1 for a, b in zip(*(r.shape for r in seen.results), strict=True)]
            return "reshape", {"self": first, "shape": tuple(sizes) if sizes.count(-1) < 2 else arguments["shape"]}
        case "squeeze":
            dims = arguments.get("dim", tuple(range(two.ndim)))
            wanted = [_axis(d, two) for d in (dims if isinstance(dims, tuple) else (dims,))]
            return "squeeze", {"self": first, "dim": tuple(d for d in wanted if two.shape[d] == 1)}
        case "unsqueeze":
            return "unsqueeze", {"self": first, "dim": int(str(arguments["dim"])) % (one.ndim + 1)}
        case "permute" | "movedim" | "transpose" | "swapaxes" | "t" | "numpy_T" | "mT":
            return _permuted(seen)
        case "expand" | "expand_as" | "broadcast_to":
            return _expanded(seen, arguments.get("size"))
        case "repeat" if _only_spreads(seen):
            return _expanded(seen, arguments["repeats"])
        case "narrow":
            start = int(str(arguments["start"]))
            return _sliced(seen, arguments["dim"], start, start + int(str(arguments["length"])), 1)
        case "slice":
            return _sliced(seen, *(arguments[k] for k in ("dim", "start", "end", "step")))
        case "select":
            axis, index = _axis(arguments["dim"], one), arguments["index"]
            if isinstance(index, int) and one.shape[axis] == two.shape[axis]:
                index %= one.shape[axis]
            return "select", {"self": first, "dim": axis, "index": index}
        case "pad" | "constant_pad_nd" if not any(arguments["pad"]):  # type: ignore[arg-type]
            return NOTHING
        case "to" | "type_as":
            dtype = seen.results[0].dtype
            return (
                NOTHING if dtype == one.dtype else ("aten.to.dtype", {**TO_DTYPE, "self": first, "dtype": str(dtype)})
            )
    return op, arguments


def _axis(dim: Value, of: Tensor) -> int:
    return int(str(dim)) % max(of.ndim, 1)


def _permuted(seen: Seen) -> tuple[str, Arguments]:
    """A transposition of two dimensions, or a permutation of all."""
    one, arguments, first = seen.sources[0], seen.call.arguments, Ref(seen.first)
    base = seen.call.overload.partition(".")[0]
    if base in ("transpose", "swapaxes"):
        dims = [_axis(arguments[k], one) for k in arguments if k != "self"]
        return "transpose", {"self": first, "dim0": dims[0], "dim1": dims[1]}
    if base in ("t", "mT"):
        return "transpose", {"self": first, "dim0": one.ndim - 2, "dim1": one.ndim - 1}
    numbered = torch.empty(tuple(range(2, one.ndim + 2)), device="meta")  # each dimension tells its number
    moved = call_aten(seen.call.overload, {**arguments, "self": numbered})
    return "permute", {"self": first, "dims": tuple(n - 2 for n in moved.shape)}


def _only_spreads(seen: Seen) -> bool:
    """True for a repeat along dimensions of size one only, which an expand says as well."""
    (one, two), result = seen.sources, seen.results[0]
    if one.ndim != result.ndim or one.shape[0] != two.shape[0]:
        return False
    return all(a in (1, b) for a, b in zip(one.shape, result.shape, strict=True))


def _expanded(seen: Seen, asked: Value) -> tuple[str, Arguments]:
    """Sizes as they are, -1 where nothing changes, the batch where only the result follows it."""
    (one, two), results = seen.sources, seen.results
    new = results[0].ndim - one.ndim
    sizes: list[Value] = []
    for axis, (small, large) in enumerate(zip(*(r.shape for r in results), strict=True)):
        if axis >= new and (one.shape[axis - new], two.shape[axis - new]) == (small, large):
            sizes.append(-1)
        elif small == large:
            sizes.append(small)
        else:
            sizes.append(asked[axis] if isinstance(asked, tuple) else seen.batch_size)
    return "expand", {"self": Ref(seen.first), "size": tuple(sizes), "implicit": False}


def _sliced(seen: Seen, dim: Value, start: Value, end: Value, step: Value) -> tuple[str, Arguments]:
    one, two = seen.sources
    axis = _axis(dim, one)
    size = one.shape[axis]
    if size == two.shape[axis] and not any(isinstance(v, Ref) for v in (start, end)):
        start, end, _ = slice(start, end, None).indices(size)
        if (start, end, step) == (0, size, 1):
            return NOTHING
    elif start in (None, 0) and step == 1 and (end is None or (isinstance(end, int) and end >= 2**31)):
        return NOTHING
    return "slice", {"self": Ref(seen.first), "dim": axis, "start": start, "end": end, "step": step}
