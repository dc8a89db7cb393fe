"""ONNX's operators that compute with shapes: carried out at once, at both batch sizes.

Source: the ONNX operator specifications, opsets 7 to 25.
"""

import math

import torch
from torch import Tensor

from slimwright.errors import ModelError
from slimwright.importers.onnx.step import Step, integers
from slimwright.importers.onnx.values import Known, Operand, PerBatch, constant, pair


def sizes_of(known: Known) -> PerBatch:
    """The sizes that a shape holds, at both batch sizes."""
    one, two = (list(integers(t, "shape")) for t in known.at)
    if min(one + two, default=0) < 0:
        raise ModelError(f"its shape is {one}; a size cannot be negative")
    return PerBatch((one, two))


def shape(step: Step) -> Known:
    """The sizes of a value."""
    x = step.operand(0)
    rank = len(x.shape)
    start, end, _ = slice(step.attr_int("start", 0), step.attr_int("end", rank), 1).indices(rank)
    one, two = (torch.tensor(list(value.shape[start:end]), dtype=torch.int64) for value in x.at)
    return pair(one, two, step.trace.about)


def size(step: Step) -> Known:
    """The number of elements."""
    one, two = (torch.tensor(math.prod(value.shape)) for value in step.operand(0).at)
    return pair(one, two, step.trace.about)


def constant_of_shape(step: Step) -> Operand:
    """One number, everywhere."""
    value = step.node.attributes.get("value", torch.zeros(1))
    if not isinstance(value, Tensor) or value.numel() != 1:
        raise ModelError("its value is no tensor with one number")
    sizes = sizes_of(step.known(0, "shape"))
    number = constant(value.reshape(()), step.trace.about)
    return step.call("expand.default", number, sizes)


def range_(step: Step) -> Operand:
    """Numbers from a start up to a limit."""
    known = [step.known(place, name) for place, name in enumerate(("start", "limit", "delta"))]
    found = []
    for world in (0, 1):
        start, limit, delta = (k.at[world].item() for k in known)
        if not delta:
            raise ModelError("its delta is 0")
        dtype = known[0].at[world].dtype
        step.trace.afford(max(math.ceil((limit - start) / delta), 0), dtype)
        found.append(torch.arange(start, limit, delta, dtype=dtype) if (limit - start) * delta > 0
                     else torch.zeros(0, dtype=dtype))  # fmt: skip
    return pair(found[0], found[1], step.trace.about)
