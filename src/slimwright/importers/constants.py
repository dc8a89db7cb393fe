"""What follows from weights and numbers alone is computed once, when a program becomes a net.

Weight standardisation, a blur kernel repeated per channel, the index of a relative position: their results are kept,
under the parameter's own name where one parameter alone stands behind them. What would make the model larger than its
parameters stays in the graph.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from slimwright.errors import ModelError
from slimwright.graph.allowed import check_size, work
from slimwright.graph.node import Ref, Value
from slimwright.graph.ops import FACTORIES, FAILURES, INTEGER, OPS, call_aten, detail_of, on_meta, op_of
from slimwright.importers.program import UNKNOWN, Call, Program

MOST_FOLDED = 2**26  # elements of all constants that no parameter stands behind
MOST_WORK = 10**10  # operations for one constant: some seconds
LIKE = ("new_zeros", "new_ones", "new_full")  # of the value they are called on, only the dtype counts


class Constants:
    """The constant values of a functional program, by name."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.values: dict[str, Any] = {v: program.tensors[name] for v, name in program.owner.items()}
        self.made_of: dict[str, frozenset[str]] = {  # value -> the parameters it was computed from
            value: frozenset({name} & program.parameters) for value, name in program.owner.items()
        }
        self.values[""], self.made_of[""] = torch.empty(0), frozenset()
        self._room = MOST_FOLDED
        for call in program.calls:
            self._fold(call)
        read = {name for call in program.calls if call.name not in self.values for name in call.reads}
        self._direct = {program.owner[name] for name in read if name in program.owner}

    def name(self, value: str) -> str:
        """What the tensor of a constant is called: its parameter's name where it stands for it alone."""
        if value in self.program.owner:
            return self.program.owner[value]
        if len(self.made_of[value]) == 1:
            (parameter,) = self.made_of[value]
            same_size = self.program.tensors[parameter].numel() == self.values[value].numel()
            users = [v for v, parts in self.made_of.items() if parts == {parameter} and v not in self.program.owner]
            if same_size and parameter not in self._direct and users[-1] == value:
                return parameter
        name = f"{value}_folded"  # exporters make names like those of values
        while name in self.program.tensors:
            name += "_"
        return name

    def is_trained(self, value: str) -> bool:
        """True for what training may change: floating point, with a parameter behind it."""
        return bool(self.made_of[value]) and bool(self.values[value].is_floating_point())

    @torch.no_grad()
    def _fold(self, call: Call) -> None:
        if call.overload.startswith(UNKNOWN) or call.overload in INTEGER or call.overload in OPS:
            return
        if call.overload.partition(".")[0] in LIKE:
            like = Ref("")
            call = replace(call, arguments={k: like if k == "self" else v for k, v in call.arguments.items()})
        if not all(name in self.values for name in call.reads):
            return
        if call.overload == "getitem":
            self.values[call.name] = self.values[call.reads[0]][call.arguments["index"]]
        elif self._is_worth_folding(call):
            self.values[call.name] = computed(call, self.values.__getitem__)
        else:
            return
        self.made_of[call.name] = self._parameters(call)

    def _parameters(self, call: Call) -> frozenset[str]:
        return frozenset().union(*(self.made_of[name] for name in call.reads))

    def _is_worth_folding(self, call: Call) -> bool:
        if not call.reads and not call.overload.startswith(FACTORIES):
            return False
        try:
            op_of(f"aten.{call.overload}")
            result = computed(call, lambda name: meta_of(self.values[name]), meta=True)
        except ModelError:  # some operators have no rule for shapes alone
            return False
        if work(call.overload, filled(call.arguments, lambda name: meta_of(self.values[name])), result) > MOST_WORK:
            return False
        made_of = self._parameters(call)
        if made_of and not all(t.is_floating_point() for t in _tensors(result)):
            return False
        size = sum(math.prod(t.shape) for t in _tensors(result))
        if made_of:
            return size <= sum(self.program.tensors[name].numel() for name in made_of)
        fits = size <= self._room
        self._room -= size if fits else 0
        return fits


def computed(call: Call, value: Callable[[str], Any], *, meta: bool = False) -> Any:
    """Return what an ATen call computes from `value`s; with `meta`, only its shape. Raises ModelError, naming it."""
    arguments = filled(call.arguments, value)
    try:
        result = call_aten(call.overload, on_meta(arguments) if meta else arguments)
        check_size(result)
        return result
    except FAILURES as error:
        raise cannot(call, error) from error


def cannot(call: Call, error: Exception) -> ModelError:
    """The error of a call that cannot be computed."""
    return ModelError(f"node '{call.name}' ({call.overload}) cannot be computed: {detail_of(error)}")


def filled(arguments: Mapping[str, Value], value: Callable[[str], Any]) -> dict[str, Any]:
    """The arguments, with values in place of references and lists in place of tuples."""

    def one(argument: Value) -> Any:
        if isinstance(argument, Ref):
            return value(argument.name)
        return [one(item) for item in argument] if isinstance(argument, tuple) else argument

    return {key: one(argument) for key, argument in arguments.items()}


def meta_of(value: Any) -> Any:
    """The shape and dtype of a value, without its elements."""
    if isinstance(value, Tensor):
        return torch.empty_like(value, device="meta")
    return tuple(meta_of(item) for item in value) if isinstance(value, tuple | list) else value


def is_one_row(tensor: Tensor) -> bool:
    """True for one number everywhere, and for the same weights for each of several outputs: no training makes these."""
    if tensor.numel() < 2:
        return False
    least, most = torch.aminmax(tensor)
    return bool(least == most) or (len(tensor) > 1 and bool((tensor == tensor[:1]).all()))


def _tensors(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    return [t for item in value for t in _tensors(item)] if isinstance(value, tuple | list) else []
