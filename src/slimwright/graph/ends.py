"""How the file that a net was read from holds its inputs and outputs: what an artefact of the net keeps.

In a net the batch is the first dimension of every input and output. A file may have the batch of an output elsewhere,
as [T, N, C], or together with other things in one dimension, as [T * N, C]. A file may leave sizes free, as a detector
does with height and width; a net has them fixed, and knows whether any of its numbers follow from them.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from slimwright.graph.node import Node, Ref, Value


@dataclass(frozen=True)
class Layout:
    """Where a file has the batch of an output: its dimension `axis` holds `outer` times the batch times `inner`."""

    axis: int = 0
    outer: int = 1
    inner: int = 1

    def nodes(self, output: Node, name: Callable[[str], str]) -> list[Node]:
        """Return nodes that make of an output of a net [N, ...] what the file has; `name` gives free names."""
        axis, each = self.axis, self.outer * self.inner
        before, after = output.shape[1 : axis + 1], output.shape[axis + 1 + (each > 1) :]
        made = [output]

        def then(op: str, **arguments: Value) -> None:
            made.append(Node(name(f"{output.name}_in_file"), op, {"self": Ref(made[-1].name), **arguments}))

        if each > 1:
            then("reshape", shape=(-1, *before, self.outer, self.inner, *after))
        place = axis + (each > 1)  # of the batch
        rank = 1 + len(before) + len(after) + 2 * (each > 1)
        if place:
            then("permute", dims=(*range(1, place + 1), 0, *range(place + 1, rank)))
        if each > 1:
            then("reshape", shape=(*before, -1, *after))
        return made[1:]


BATCH_FIRST = Layout()


BATCH = "batch"  # what artefacts call an open batch
MOST_STEP = 128
SIZE_NAME = re.compile(r"[A-Za-z_]\w{0,39}", re.ASCII)


@dataclass(frozen=True)
class FreeSize:
    """A size of inputs that the file leaves free, which is the same at all its `places`: (input, dimension).

    The net computes what the file does also where the size is larger by multiples of `step`; at sizes between, it does
    so or refuses. A step of 0 says that numbers in the net follow from the size, which stays as it is.
    """

    name: str
    places: tuple[tuple[int, int], ...]
    step: int


@dataclass(frozen=True)
class Ends:
    """Names and layouts of inputs and outputs, in the net's order, and what else an artefact takes from the file."""

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    layouts: tuple[Layout, ...]  # of each output
    open_batch: bool = False  # whether the file takes any number of images at once
    opset: int | None = None  # of an ONNX file
    sizes: tuple[FreeSize, ...] = ()  # those that the file leaves free, besides the batch

    @property
    def names_alone(self) -> "Ends":
        """The same names, for one image at a time, with the batch first, and of fixed sizes."""
        return replace(self, layouts=(BATCH_FIRST,) * len(self.outputs), open_batch=False, opset=None, sizes=())

    @property
    def free(self) -> tuple[FreeSize, ...]:
        """The sizes that are free in the net, too."""
        return tuple(size for size in self.sizes if size.step)

    @property
    def fixed(self) -> "Ends":
        """The same with no size free."""
        return replace(self, sizes=tuple(replace(size, step=0) for size in self.sizes))


def ends_of(found: Mapping[str, Any]) -> Ends:
    """Return what `dataclasses.asdict` made of ends. Raises TypeError, KeyError or ValueError for anything else."""
    layouts = tuple(Layout(*(int(one[key]) for key in ("axis", "outer", "inner"))) for one in found["layouts"])
    inputs, outputs = (tuple(map(str, found[key])) for key in ("inputs", "outputs"))
    if len(layouts) != len(outputs) or min((min(one.outer, one.inner) for one in layouts), default=1) < 1:
        raise ValueError(f"{len(outputs)} outputs have the layouts {layouts}")
    opset = found["opset"]
    sizes = tuple(map(_size_of, found.get("sizes", ())))  # nets of older versions have none
    places = [place for size in sizes for place in size.places]
    if len({size.name for size in sizes}) < len(sizes) or len(set(places)) < len(places):
        raise ValueError(f"two of its free sizes have one name or one place: {sizes}")
    if any(not 0 <= number < len(inputs) for number, _ in places):
        raise ValueError(f"one of {len(places)} free sizes is of an input beyond the {len(inputs)} that there are")
    return Ends(inputs, outputs, layouts, bool(found["open_batch"]), None if opset is None else int(opset), sizes)


def _size_of(found: Mapping[str, Any]) -> FreeSize:
    name, step = found["name"], found["step"]
    places = tuple((number, axis) for number, axis in found["places"])
    whole = all(type(n) is int for n in (step, *(n for place in places for n in place)))
    if not isinstance(name, str) or not SIZE_NAME.fullmatch(name) or not places or not whole:
        raise ValueError(f"a free size is {dict(found)}")
    if not 0 <= step <= MOST_STEP or min(axis for _, axis in places) < 1:
        raise ValueError(f"the free size '{name}' has the step {step} and the places {places}")
    return FreeSize(name, places, step)
