"""How the file that a net was read from holds its inputs and outputs: what an artefact of the net keeps.

In a net the batch is the first dimension of every input and output. A file may have the batch of an output elsewhere,
as [T, N, C], or together with other things in one dimension, as [T * N, C].
"""

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


@dataclass(frozen=True)
class Ends:
    """Names and layouts of inputs and outputs, in the net's order, and what else an artefact takes from the file."""

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    layouts: tuple[Layout, ...]  # of each output
    open_batch: bool = False  # whether the file takes any number of images at once
    opset: int | None = None  # of an ONNX file

    @property
    def names_alone(self) -> "Ends":
        """The same names, for one image at a time, with the batch first."""
        return replace(self, layouts=(BATCH_FIRST,) * len(self.outputs), open_batch=False, opset=None)


def ends_of(found: Mapping[str, Any]) -> Ends:
    """Return what `dataclasses.asdict` made of ends. Raises TypeError, KeyError or ValueError for anything else."""
    layouts = tuple(Layout(*(int(one[key]) for key in ("axis", "outer", "inner"))) for one in found["layouts"])
    inputs, outputs = (tuple(map(str, found[key])) for key in ("inputs", "outputs"))
    if len(layouts) != len(outputs) or min((min(one.outer, one.inner) for one in layouts), default=1) < 1:
        raise ValueError(f"{len(outputs)} outputs have the layouts {layouts}")
    opset = found["opset"]
    return Ends(inputs, outputs, layouts, bool(found["open_batch"]), None if opset is None else int(opset))
