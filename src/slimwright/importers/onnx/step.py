"""One ONNX node as the functions that translate it see it: its operands, its attributes, and the trace to write to."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from slimwright.errors import ModelError, UnsupportedOp
from slimwright.importers.onnx.file import OnnxNode
from slimwright.importers.onnx.trace import Trace
from slimwright.importers.onnx.values import Flow, Known, Operand

MOST_INTEGERS = 2**16  # in a list of axes, sizes or the like


@dataclass(frozen=True)
class Step:
    """A node with the values it reads. What is missing or of the wrong kind is a ModelError that names the field."""

    node: OnnxNode
    operands: tuple[Operand | None, ...]
    trace: Trace
    opset: int
    readers: Mapping[str, int]  # value -> how many nodes read it

    def call(self, overload: str, *args: Any, keywords: Mapping[str, Any] | None = None) -> Operand:
        """Record or compute one ATen call."""
        return self.trace.call(overload, *args, keywords=keywords)

    def flow_call(self, overload: str, x: Flow, *args: Any) -> Flow:
        """Record one ATen call on a value that comes from the images."""
        result = self.trace.call(overload, x, *args)
        assert isinstance(result, Flow)
        return result

    # operands

    def operand(self, place: int) -> Operand:
        """The value of an input that must be there."""
        found = self.optional(place)
        if found is None:
            raise ModelError(f"its input {place} is missing")
        return found

    def optional(self, place: int) -> Operand | None:
        """The value of an input, or None where it is left out."""
        return self.operands[place] if place < len(self.operands) else None

    def flow(self, place: int = 0) -> Flow:
        """An input that must come from the images."""
        found = self.operand(place)
        if not isinstance(found, Flow):
            raise UnsupportedOp(f"its input '{self.node.inputs[place]}' does not come from the images")
        return found

    def known(self, place: int, what: str) -> Known:
        """An input that must be a constant; `what` says which in an error."""
        found = self.operand(place)
        if not isinstance(found, Known):
            raise UnsupportedOp(f"its {what} '{self.node.inputs[place]}' is computed from the images, not stored")
        return found

    def weight(self, place: int, what: str) -> Known | None:
        """An optional input that must be a constant of its own, the same for every batch."""
        if self.optional(place) is None:
            return None
        found = self.known(place, what)
        if not found.fixed:
            raise UnsupportedOp(f"its {what} depends on the number of images")
        return found

    def numbers(self, place: int, what: str) -> tuple[int, ...] | None:
        """The integers of an optional input; a scalar counts as one."""
        found = self.weight(place, what)
        return None if found is None else integers(found.at[0], what)

    def numbers_at_first_batch(self, place: int, what: str) -> tuple[int, ...] | None:
        """The integers of an optional input that may depend on the batch."""
        if self.optional(place) is None:
            return None
        return integers(self.known(place, what).at[0], what) or None

    def number(self, place: int, what: str) -> float | None:
        """The number in an optional input of one element."""
        found = self.weight(place, what)
        if found is None:
            return None
        if found.at[0].numel() != 1:
            raise ModelError(f"its {what} has shape {list(found.shape)}; it must be one number")
        return found.at[0].item()

    # attributes

    def attr_int(self, name: str, default: int | None = None) -> int:
        """An integer attribute; required where there is no default."""
        value = self._attribute(name, default)
        if not isinstance(value, int):
            raise ModelError(f"its attribute '{name}' is {value!r}; it must be an integer")
        return value

    def attr_float(self, name: str, default: float | None = None) -> float:
        """A number attribute; required where there is no default."""
        value = self._attribute(name, default)
        if not isinstance(value, int | float):
            raise ModelError(f"its attribute '{name}' is {value!r}; it must be a number")
        return float(value)

    def attr_text(self, name: str, default: str) -> str:
        """A text attribute."""
        value = self._attribute(name, default)
        if not isinstance(value, str):
            raise ModelError(f"its attribute '{name}' is {value!r}; it must be text")
        return value

    def attr_ints(self, name: str, default: tuple[int, ...] | None = None) -> tuple[int, ...] | None:
        """A list of integers, or `default`."""
        value = self.node.attributes.get(name, default)
        if value is not None and not (isinstance(value, tuple) and all(isinstance(v, int) for v in value)):
            raise ModelError(f"its attribute '{name}' is {value!r}; it must be a list of integers")
        return value  # type: ignore[return-value]

    def choice(self, name: str, allowed: tuple[str, ...]) -> str:
        """A text attribute out of a few; the first is its default."""
        value = self.attr_text(name, allowed[0])
        if value not in allowed:
            raise UnsupportedOp(f"its {name} is '{value}'; supported are {', '.join(allowed)}")
        return value

    def axes(self, place: int) -> tuple[int, ...] | None:
        """The axes, which older opsets have as an attribute and newer ones as an input."""
        return self.attr_ints("axes") if "axes" in self.node.attributes else self.numbers(place, "axes")

    def _attribute(self, name: str, default: Any) -> Any:
        value = self.node.attributes.get(name, default)
        if value is None:
            raise ModelError(f"it has no attribute '{name}'")
        return value


def integers(tensor: Tensor, what: str) -> tuple[int, ...]:
    """The integers in a tensor of at most one dimension. Raises ModelError for anything else, or too many."""
    if tensor.dtype not in (torch.int64, torch.int32) or tensor.ndim > 1 or tensor.numel() > MOST_INTEGERS:
        raise ModelError(f"its {what} is {tensor.dtype} of shape {list(tensor.shape)}; it must be a list of integers")
    return tuple(int(i) for i in tensor.reshape(-1).tolist())


def axis_of(axis: int, rank: int) -> int:
    """An axis counted from the front. Raises ModelError where there is none of that number."""
    if not -rank <= axis < rank:
        raise ModelError(f"axis {axis} is none of a value with {rank} dimensions")
    return axis % rank
