"""A traced model as a plain list of calls: what every way in (torch.export, .pt2, .onnx) gives.

`functional` takes the in-place operators and the aliases out of it, so that a name stands for one value for good, and
drops the calls that no output depends on.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from slimwright.errors import UnsupportedOp
from slimwright.graph.node import Ref, Value, names_in
from slimwright.graph.ops import INTEGER, OPS, aten


@dataclass(frozen=True)
class Call:
    """One call: the name of its result, the ATen overload such as "conv2d.default", and its arguments by name.

    Besides ATen overloads there are "getitem" (of `value`, at `index`: one of several results), arithmetic on sizes
    (`ops.INTEGER`, of `a` and `b`), and the rows of `ops.OPS` that have a layer but no overload, such as "lrn".
    """

    name: str
    overload: str
    arguments: Mapping[str, Value]

    @property
    def reads(self) -> tuple[str, ...]:
        """Names of the values among the arguments."""
        return tuple(names_in(tuple(self.arguments.values())))


@dataclass(frozen=True)
class Input:
    """A value that comes in from outside: its name, its shape for a batch of one, and its dtype."""

    name: str
    shape: tuple[int, ...]
    dtype: str = "float32"


@dataclass(frozen=True)
class Program:
    """A traced model: its calls in order, and where images and weights come in."""

    inputs: tuple[Input, ...]
    calls: Sequence[Call]
    tensors: Mapping[str, Tensor]  # by the model's own names
    owner: Mapping[str, str]  # value name -> name in `tensors`
    outputs: tuple[str, ...]
    parameters: frozenset[str] = frozenset()  # names in `tensors` that training changes
    output_names: tuple[str, ...] = ()  # what the model calls each output, "" where it does not say; () for none


def functional(program: Program) -> Program:
    """Return the program without in-place operators, aliases, checks and calls that nothing depends on.

    Raises UnsupportedOp where a value is read after it was changed through another view of it.
    """
    memory = _Memory()
    calls = []
    for call in program.calls:
        if call.overload.startswith(CHECKS):
            continue
        arguments = {key: memory.now(value) for key, value in call.arguments.items()}
        overload = _out_of_place(call.overload)
        if overload != call.overload:  # the twin may call its arguments otherwise
            names = (argument.name for argument in aten(overload)._schema.arguments)
            arguments = dict(zip(names, arguments.values(), strict=False))
        if overload.partition(".")[0] in ALIASES and isinstance(value := next(iter(arguments.values())), Ref):
            memory.latest[call.name] = value.name
            continue
        calls.append(replace(call, overload=overload, arguments=arguments))
        memory.made(calls[-1], in_place=overload != call.overload)
    outputs = tuple(memory.latest.get(name, name) for name in program.outputs)
    memory.check(outputs, "the output")
    return replace(program, calls=_live(calls, outputs), outputs=outputs)


CHECKS = ("_assert", "sym_constrain_range")
UNKNOWN = "unknown."  # in front of the name of a function that is no ATen overload: refused only where it matters
ALIASES = ("alias", "detach", "lift_fresh_copy")


def bound(overload: str, args: Sequence[Value], kwargs: Mapping[str, Value]) -> dict[str, Value]:
    """Return the arguments of an ATen overload by their schema names, defaults filled in."""
    result: dict[str, Value] = {}
    for position, argument in enumerate(aten(overload)._schema.arguments):
        if position < len(args):
            result[argument.name] = args[position]
        elif argument.name in kwargs:
            result[argument.name] = kwargs[argument.name]
        else:
            result[argument.name] = plain(argument.default_value)
    return result


def leaf_names(keys: Sequence[object], leaves: Sequence[int]) -> list[str]:
    """Return a name for each leaf of a mapping: its key where that holds one leaf, else ""."""
    named: list[str] = []
    for key, count in zip(keys, leaves, strict=True):
        named += [str(key)] if count == 1 else [""] * count
    return named


def plain(value: Any) -> Value:
    """Return a schema's default or a literal as an argument of a node."""
    if isinstance(value, list | tuple):
        return tuple(plain(item) for item in value)
    if value is None or isinstance(value, bool | int | float | str):
        return value
    return str(value)  # a dtype, layout, device or memory format


class _Memory:
    """Which values share memory, and what in-place operators did to them."""

    def __init__(self) -> None:
        self.latest: dict[str, str] = {}  # a value that was written over, or an alias -> the value that holds it now
        self._whole: dict[str, str] = {}  # a view, or what was written in place -> whose memory it shares
        self._stale: dict[str, str] = {}  # a value that changed through another view -> the call that changed it

    def now(self, value: Value) -> Value:
        """The argument, with every name replaced by that of the value it stands for by now."""
        if isinstance(value, Ref):
            return Ref(self.latest.get(value.name, value.name))
        return tuple(self.now(item) for item in value) if isinstance(value, tuple) else value

    def check(self, names: Sequence[str], reader: str) -> None:
        """Raise UnsupportedOp where one of the values is no longer what the call of its name computed."""
        for name in names:
            if name in self._stale:
                raise UnsupportedOp(
                    f"{reader} reads '{name}', which '{self._stale[name]}' changes in place through a view of it; "
                    "use the operator that does not write in place"
                )

    def made(self, call: Call, *, in_place: bool) -> None:
        self.check(call.reads, f"'{call.name}'")
        if not call.reads or not (in_place or _is_view(call.overload)):
            return
        target = call.reads[0]
        whole = self._whole.setdefault(target, target)
        if in_place:
            self._stale |= {name: call.name for name, other in self._whole.items() if other == whole and name != target}
            self.latest |= {name: call.name for name, held in self.latest.items() if held == target}
            self.latest[target] = call.name
        self._whole[call.name] = whole


def _is_view(overload: str) -> bool:
    """True where the result may share memory with the first input."""
    if overload in ("getitem", "drop_path"):
        return True
    if overload in INTEGER or overload in OPS or overload.startswith(UNKNOWN):
        return False
    returns = aten(overload)._schema.returns
    return overload.startswith(("dropout", "feature_dropout", "contiguous", "to.")) or any(
        r.alias_info is not None for r in returns
    )


def _out_of_place(overload: str) -> str:
    name, _, variant = overload.partition(".")
    return f"{name.removesuffix('_')}.{variant}" if name.endswith("_") and not name.endswith("__") else overload


def _live(calls: Sequence[Call], outputs: Sequence[str]) -> list[Call]:
    wanted = set(outputs)
    live = []
    for call in reversed(calls):
        if call.name in wanted:
            wanted.update(call.reads)
            live.append(call)
    return live[::-1]
