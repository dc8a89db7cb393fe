"""What flows through an ONNX graph while it is read: constants, and values computed from the images.

Every value is followed at two batch sizes; what differs between them depends on the batch.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor

from slimwright.errors import UnsupportedOp


@dataclass(frozen=True, eq=False)
class Known:
    """A tensor that does not depend on the images; it may depend on how many there are."""

    at: tuple[Tensor, Tensor]  # at both batch sizes; one object where it is the same
    wish: str = "constant"  # a name for it
    learned: bool = False  # a weight, or computed from weights

    @property
    def fixed(self) -> bool:
        """True where the batch changes nothing."""
        return self.at[0] is self.at[1] or (
            self.at[0].dtype == self.at[1].dtype and torch.equal(self.at[0], self.at[1])
        )

    @property
    def shape(self) -> tuple[int, ...]:
        """At the first batch size."""
        return tuple(self.at[0].shape)


@dataclass(frozen=True)
class Grid:
    """Where a file rounds a value: to `scale * (q - zero_point)`, for an integer q from `least` to `most`."""

    scale: float
    zero_point: int
    least: int
    most: int


@dataclass(frozen=True, eq=False)
class Flow:
    """A value computed from the images: the name of its call, and what it is at both batch sizes."""

    name: str
    at: tuple[Any, Any]  # meta tensors, or integers for a size
    outer: int = 1  # the batch's dimension may hold other things too: this many of them stand outside of the batch
    grid: Grid | None = None  # where the file holds integers; the value is what they stand for

    @property
    def shape(self) -> tuple[int, ...]:
        """At the first batch size."""
        return tuple(self.at[0].shape)

    @property
    def batch_axis(self) -> int | None:
        """The dimension that grows with the batch. Raises UnsupportedOp where several do."""
        axes = [axis for axis, (one, two) in enumerate(zip(self.shape, self.at[1].shape, strict=True)) if one != two]
        if len(axes) > 1:
            raise UnsupportedOp(f"dimensions {axes} of '{self.name}' all grow with the batch; that is not supported")
        return axes[0] if axes else None


Operand: TypeAlias = Known | Flow


@dataclass(frozen=True)
class PerBatch:
    """A plain argument that is not the same at both batch sizes."""

    at: tuple[Any, Any]


@dataclass(frozen=True)
class Made:
    """How a flow came about: looked at to find operators that exporters take apart."""

    overload: str
    arguments: Mapping[str, Any]

    @property
    def reads(self) -> "tuple[Flow, ...]":
        """The values from the images among the arguments."""
        return tuple(o for o in operands_in(tuple(self.arguments.values())) if isinstance(o, Flow))


def constant(tensor: Tensor, wish: str = "constant", *, learned: bool = False) -> Known:
    """Return a tensor that is the same at every batch size."""
    return Known((tensor, tensor), wish, learned)


def pair(one: Tensor, two: Tensor, wish: str) -> Known:
    """Return what was worked out at both batch sizes as one value."""
    return Known((one, one if one.dtype == two.dtype and torch.equal(one, two) else two), wish)


def operands_in(value: Any) -> Iterator[Operand]:
    """The operands among arguments, also those in tuples."""
    if isinstance(value, Known | Flow):
        yield value
    elif isinstance(value, tuple | list):
        for item in value:
            yield from operands_in(item)


def varies(value: Any) -> bool:
    """True where a plain argument depends on the batch."""
    if isinstance(value, PerBatch):
        return bool(value.at[0] != value.at[1])
    return isinstance(value, tuple | list) and any(map(varies, value))


def resolved(value: Any, world: int, *, meta: bool) -> Any:
    """An argument at one of the two batch sizes."""
    if isinstance(value, Known):
        return torch.empty_like(value.at[world], device="meta") if meta else value.at[world]
    if isinstance(value, Flow | PerBatch):
        return value.at[world]
    return [resolved(item, world, meta=meta) for item in value] if isinstance(value, tuple | list) else value
