"""The constants that calls read, each stored under a name of its own.

Exporters store equal tensors once, which ties layers together that have nothing to do with each other: all biases that
are zero, all scales that are one, all blurs. So a tensor whose rows are all the same belongs to each of its layers
anew. Two layers are one that is called twice where they share a tensor that tells them apart from others.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from slimwright.graph.net import Ref, Value
from slimwright.importers.constants import is_one_row
from slimwright.importers.onnx.names import Names
from slimwright.importers.onnx.values import Flow, Known, Made, PerBatch, operands_in


class Store:
    """The tensors of a program; `afford` is asked before one is copied."""

    def __init__(self, names: Names, afford: Callable[[int, torch.dtype], None]) -> None:
        self.tensors: dict[str, Tensor] = {}
        self.owner: dict[str, str] = {}  # value name -> name in `tensors`
        self.parameters: set[str] = set()
        self._names, self._afford = names, afford
        self._values: dict[tuple[int, ...], str] = {}  # identity of a tensor, and of its layer -> value name
        self._kept: list[Tensor] = []  # identities hold while their tensors live

    def plain(self, made: Made) -> dict[str, Value]:
        """The arguments of a call with references in place of operands."""
        learned = [o for o in operands_in(tuple(made.arguments.values())) if isinstance(o, Known) and o.learned]
        telling = tuple(id(k.at[0]) for k in learned if not is_one_row(k.at[0]))
        return {key: self._plain(value, telling) for key, value in made.arguments.items()}

    def _plain(self, value: Any, telling: tuple[int, ...]) -> Value:
        if isinstance(value, Flow):
            return Ref(value.name)
        if isinstance(value, Known):
            return Ref(self._value(value, telling))
        if isinstance(value, PerBatch):
            return self._plain(value.at[0], telling)
        return tuple(self._plain(item, telling) for item in value) if isinstance(value, tuple | list) else value

    def _value(self, known: Known, telling: tuple[int, ...]) -> str:
        """The value name of a constant, which is stored when it is first asked for."""
        tensor = known.at[0]
        alike = known.learned and is_one_row(tensor)
        if alike and not telling:
            return self._stored(known)
        key = (id(tensor), *telling) if alike else (id(tensor),)
        if key not in self._values:
            self._values[key] = self._stored(known)
        return self._values[key]

    def _stored(self, known: Known) -> str:
        tensor = known.at[0]
        self._kept.append(tensor)
        if not tensor.is_contiguous():
            self._afford(tensor.numel(), tensor.dtype)
            tensor = tensor.contiguous()
        name = self._names.tensor(known.wish)
        value = self._names.value(name)
        self.tensors[name], self.owner[value] = tensor, name
        if known.learned and tensor.numel() and bool(torch.isfinite(torch.stack(torch.aminmax(tensor))).all()):
            self.parameters.add(name)
        return value
