"""One operation of a network, and the values among its arguments."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TypeAlias


@dataclass(frozen=True)
class Ref:
    """The value that the node of this name produces."""

    name: str


Value: TypeAlias = "None | bool | int | float | str | Ref | tuple[Value, ...]"


@dataclass(frozen=True)
class Node:
    """One operation: an op of `ops.py`, its arguments by name, and the names of the tensors it owns.

    `shape` and `dtype` are those of its result; of several results, the first one's, with dtype "tuple".
    `fixed` are the roles of weights that training leaves alone, such as a blur's: buffers where the model had buffers.
    """

    name: str
    op: str
    arguments: Mapping[str, Value] = field(default_factory=dict)
    tensors: Mapping[str, str] = field(default_factory=dict)  # role -> name in Net.tensors
    shape: tuple[int, ...] = ()
    dtype: str = "float32"
    fixed: tuple[str, ...] = ()

    @cached_property
    def reads(self) -> tuple[str, ...]:
        """Names of the nodes whose values this one takes, in argument order."""
        return tuple(names_in(tuple(self.arguments.values())))

    @property
    def source(self) -> str:
        """Name of the first value read: the input of a layer."""
        return self.reads[0]


def names_in(value: Value) -> Iterator[str]:
    """Yield the names of the values that an argument refers to, in order."""
    if isinstance(value, Ref):
        yield value.name
    elif isinstance(value, tuple):
        for item in value:
            yield from names_in(item)


def renamed(value: Value, rename: Callable[[str], str]) -> Value:
    """Return an argument with every reference by another name."""
    if isinstance(value, Ref):
        return Ref(rename(value.name))
    return tuple(renamed(item, rename) for item in value) if isinstance(value, tuple) else value


def resolved(value: Value, find: Callable[[str], object]) -> object:
    """Return an argument with what `find` gives in place of references, and lists in place of tuples."""
    if isinstance(value, Ref):
        return find(value.name)
    return [resolved(item, find) for item in value] if isinstance(value, tuple) else value


def plain(value: Value) -> object:
    """Return an argument as JSON-ready data."""
    if isinstance(value, Ref):
        return {"value_of": value.name}
    return [plain(item) for item in value] if isinstance(value, tuple) else value
