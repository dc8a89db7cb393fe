"""Which sizes that a file leaves free are free in the net, too: the file is read at other sizes, and the nets compared.

Each reading carries out the file's own arithmetic on shapes, at its size. Where all give the same nodes and tensors, no
number of the net follows from the size. At a size that the net cannot take, such as one between the strides of a U-Net,
it does nothing wrong; a file that resizes to the size of another value may take such a size itself. Exact at the sizes
that are looked at: of every parity at each of seven halvings.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

from slimwright.errors import ModelError
from slimwright.graph.ends import BATCH, MOST_STEP, SIZE_NAME, FreeSize
from slimwright.graph.free import alike, grown
from slimwright.graph.net import Net, Node
from slimwright.importers.onnx.file import OnnxFile
from slimwright.importers.onnx.names import Names

UNNAMED = "?"  # what `file.py` calls a size that has neither a number nor a name
FIRST = MOST_STEP  # by how much a size is larger that a network of seven halvings can take, too
STEPS = (3 * FIRST, 1, 2, 4, 8, 16, 32, 64)
LEAST_FITTING = 2  # sizes besides the given one at which the file must be read
MOST = 16  # sizes that are looked at; a file has a few
LONGEST = 30  # of a name, before a number behind it
OF_IMAGES = {2: "height", 3: "width"}
CHANNELS_LAST = {1: "height", 2: "width"}
MADE_UP = re.compile(r"\?|s\d+|unk__\d+|DynamicDimension\.\d+")  # by file.py, torch.export, tf2onnx and Paddle2ONNX

Outcome: TypeAlias = Literal["same", "other", "refused"]


def open_sizes(file: OnnxFile) -> tuple[FreeSize, ...]:
    """Return the sizes that a file leaves free besides the batch, each once; whether they are so in a net is not known.

    Sizes of one name are one. Those without a name are one where they are the same dimension of several inputs.
    """
    batches = {entry.shape[0] for entry in file.inputs if entry.shape} - {UNNAMED}
    places: dict[str, list[tuple[int, int]]] = {}
    for number, entry in enumerate(file.inputs):
        for axis, size in enumerate(entry.shape[1:], 1):
            if isinstance(size, str) and size not in batches:
                places.setdefault(size if size != UNNAMED else f"{UNNAMED}{axis}", []).append((number, axis))
    names = Names()
    return tuple(FreeSize(names.value(_wish(file, *at[0])), tuple(at), 0) for at in places.values())


def _wish(file: OnnxFile, number: int, axis: int) -> str:
    """What a size shall be called: as in the file, where that is a name, or for what it is."""
    shape = file.inputs[number].shape
    size = str(shape[axis])
    if MADE_UP.fullmatch(size) or size == BATCH:
        names = CHANNELS_LAST if isinstance(shape[1], str) and isinstance(shape[-1], int) else OF_IMAGES
        return names.get(axis, f"size_{axis}") if len(shape) == 4 else f"size_{axis}"
    if SIZE_NAME.fullmatch(size) and len(size) <= LONGEST:
        return size
    return re.sub(r"\W+", "_", f"size_{size}", flags=re.ASCII)[:LONGEST]


def free_sizes(file: OnnxFile, net: Net, read: Callable[[OnnxFile], Net]) -> tuple[FreeSize, ...]:
    """Return the sizes that a file leaves free, each with the step in which it is free in the net that was `read`."""
    assert net.ends is not None
    sizes = open_sizes(file)
    looked = _Looked(file, replace(net, ends=replace(net.ends, sizes=sizes)), read)
    found = {size.name: list[int]() for size in sizes[:MOST]}  # how much larger ones gave the same net
    for step in (FIRST, *STEPS):
        for name, outcome in looked.each(tuple(found), step):
            if outcome == "same":
                found[name].append(step)
            elif outcome == "other" or step == FIRST:
                del found[name]
    found = {name: steps for name, steps in found.items() if len(steps) >= LEAST_FITTING}
    apart = {name: FIRST * (number + 1) for number, name in enumerate(found)}
    if found and looked.at(apart) != "same":
        found = {}
    return tuple(replace(size, step=min(found.get(size.name, (0,)))) for size in sizes)


@dataclass(frozen=True)
class _Looked:
    """A file that is read at larger sizes than the given ones, at which it gave `net`; its ends name those sizes."""

    file: OnnxFile
    net: Net
    read: Callable[[OnnxFile], Net]

    def each(self, names: Sequence[str], step: int) -> Iterator[tuple[str, Outcome]]:
        """Yield what a step does to each size: first all at once; where that is not the same, one by one."""
        together = self.at(dict.fromkeys(names, step)) if names else "same"
        if together == "same" or len(names) == 1:
            yield from ((name, together) for name in names)
            return
        alone = {name: self.at({name: step}) for name in names}
        apart = set(alone.values()) != {"same"}
        yield from ((name, outcome if apart else "other") for name, outcome in alone.items())

    def at(self, by: Mapping[str, int]) -> Outcome:
        """Say what the net is to the file where sizes, by name, are larger by so much; "refused" is by the net."""
        try:
            larger = grown(self.net, by)
        except ModelError:
            return "refused"
        try:
            found = self.read(self._for_inputs(larger.inputs))
        except ModelError:
            return "other"
        same = alike(found, self.net) and self._layouts(found) == self._layouts(self.net)
        return "same" if same else "other"

    def _for_inputs(self, inputs: Sequence[Node]) -> OnnxFile:
        given = zip(self.file.inputs, inputs, strict=True)
        entries = (replace(entry, shape=(entry.shape[0], *node.shape[1:])) for entry, node in given)
        return replace(self.file, inputs=tuple(entries))

    def _layouts(self, net: Net) -> object:
        return net.ends.layouts if net.ends else ()
