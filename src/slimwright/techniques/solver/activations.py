"""What a draft and its reference give for the images, side by side and some images at a time.

A value is computed when it is asked for, and held for all images where later layers are computed from it and memory
allows; what is too large to hold is computed again from what is held before it. Values of the draft that equal the
reference's are the reference's. Images lie channels last, in which depthwise convolutions are three times as fast on
a processor (our measurement of 2026-11-28, MobileNetV2 at 224x224).
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from slimwright.graph.liveness import value_bytes
from slimwright.graph.net import Net, compute
from slimwright.graph.ops import op_of

HELD_BYTES = 8e8  # of values that wait for later layers
CHUNK_BYTES = 3.2e7  # of the largest value of a chunk of images: what fits into caches
MOST_IMAGES = 256  # of a chunk


class Activation(NamedTuple):
    """A value of the reference or of the draft."""

    of: Literal["reference", "draft"]
    name: str


class Activations:
    """The values of a reference, and of a draft that drifts from it, for the same images."""

    def __init__(self, reference: Net, draft: Net, drifted: Set[str], inputs: Sequence[Tensor]) -> None:
        self.nets: Mapping[str, Net] = {"reference": reference, "draft": draft}
        self.images = len(inputs[0])
        self._drifted = drifted
        names = ([node.name for node in net.nodes if node.op == "input"] for net in (draft, reference))
        self._inputs = dict(zip(*names, strict=True))  # of the draft: the reference's in its place
        self._nodes = {Activation("reference", node.name): node for node in reference.nodes}
        self._nodes |= {Activation("draft", node.name): node for node in draft.nodes if node.name in drifted}
        self._reads = {key: tuple(self.key(key.of, name) for name in node.reads) for key, node in self._nodes.items()}
        at_once = min(max(int(CHUNK_BYTES // max(map(self._bytes, self._nodes))), 1), MOST_IMAGES)
        sources = [Activation("reference", name) for name in self._inputs.values()]
        self.held = {key: list(images.split(at_once)) for key, images in zip(sources, inputs, strict=True)}
        self.modules: dict[Activation, nn.Module] = {}

    def key(self, of: Literal["reference", "draft"], name: str) -> Activation:
        """Return a value of one of the nets: the reference's where the draft's is the same."""
        if of == "draft" and name in self._drifted:
            return Activation("draft", name)
        return Activation("reference", self._inputs.get(name, name) if of == "draft" else name)

    @property
    def chunks(self) -> int:
        """How many chunks the images are walked in."""
        return len(next(iter(self.held.values())))

    def place(self, name: str, module: nn.Module) -> None:
        """Let a layer of the draft be computed by this module from now on."""
        self.modules[self.key("draft", name)] = _channels_last(module)

    def walk(self, wanted: Sequence[Activation], later: Sequence[Activation]) -> Iterator[dict[Activation, Tensor]]:
        """Yield the `wanted` values of one chunk of images after another; to be walked to the end.

        What the values that are wanted `later` are computed from is held, and the rest is let go on the way.
        """
        steps = self._missing(wanted)
        holds = self._worth_holding(steps, later)
        stays = self._behind(later, self.held.keys() | holds) | self._sources
        last = {read: step for step, key in enumerate(steps) for read in (key, *self._reads[key])}
        last |= dict.fromkeys([*wanted, *holds], len(steps))
        held: dict[Activation, list[Tensor]] = {key: [] for key in holds}
        for number in range(self.chunks):
            values = {key: _ready(some[number]) for key, some in self.held.items() if key in last}
            self._compute(values, steps, last)
            yield {key: values[key] for key in wanted}
            for key in holds:
                held[key].append(_owned(values[key]))
            for key in self.held.keys() - stays:
                self.held[key][number] = torch.empty(0)
        self.held = {key: some for key, some in self.held.items() if key in stays} | held
        ahead = set(self._missing(later))
        self.modules = {key: module for key, module in self.modules.items() if key in ahead}

    def _compute(
        self, values: dict[Activation, Tensor], steps: Sequence[Activation], last: Mapping[Activation, int]
    ) -> None:
        """Add the values of `steps` in turn, and let go what was read for the `last` time."""
        for step, key in enumerate(steps):
            net, node = self.nets[key.of], self._nodes[key]
            if key not in self.modules and op_of(node.op).module is not None:
                self.modules[key] = _channels_last(net.module_of(node))
            reads = dict(zip(node.reads, self._reads[key], strict=True))
            carried = node.op.startswith("aten.")  # it may depend on how memory is laid out
            found = {name: _plain(values[read]) if carried else values[read] for name, read in reads.items()}
            values[key] = compute(net, node, self.modules.get(key), found.__getitem__)
            for read in {key, *self._reads[key]}:
                if last[read] <= step:
                    del values[read]

    @property
    def _sources(self) -> set[Activation]:
        return {Activation("reference", name) for name in self._inputs.values()}

    def _missing(self, wanted: Iterable[Activation]) -> list[Activation]:
        """What must be computed for some values, in an order in which it can be."""
        missing = set(wanted) - self.held.keys()
        for key in reversed(self._nodes):
            if key in missing:
                missing.update(read for read in self._reads[key] if read not in self.held)
        return [key for key in self._nodes if key in missing]

    def _behind(self, wanted: Iterable[Activation], known: Set[Activation]) -> set[Activation]:
        """Which of the `known` values some others are computed from."""
        found, waiting = set(wanted), list(wanted)
        while waiting:
            key = waiting.pop()
            if key not in known:
                waiting.extend(set(self._reads[key]) - found)
                found.update(self._reads[key])
        return found & known

    def _worth_holding(self, steps: Iterable[Activation], later: Sequence[Activation]) -> set[Activation]:
        """Which of the values that are computed now are held for those that are wanted later, smallest first."""
        fit = {key for key in steps if self._reads[key] and self._bytes(key)}
        nearest = self._behind(later, self.held.keys() | fit) - self.held.keys()
        holds: set[Activation] = set()
        total = self._total(self._behind(later, self.held.keys()))
        for key in sorted(nearest, key=self._bytes):
            more = self._total(self._behind(later, self.held.keys() | holds | {key}))
            if more <= max(HELD_BYTES, total):
                holds.add(key)
                total = more
        return holds

    def _total(self, keys: Iterable[Activation]) -> int:
        return self.images * sum(map(self._bytes, keys))

    def _bytes(self, key: Activation) -> int:
        """Of a value for one image; 0 for what is no tensor."""
        return value_bytes(self.nets[key.of], key.name)


def _channels_last(module: nn.Module) -> nn.Module:
    return module.to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


def _ready(value: Tensor) -> Tensor:
    """A value as layers compute fastest with it."""
    return value.contiguous(memory_format=torch.channels_last) if value.ndim == 4 else value


def _plain(value: Tensor) -> Tensor:
    return value.contiguous() if isinstance(value, Tensor) else value


def _owned(value: Tensor) -> Tensor:
    """A value that keeps no larger one alive, of which it is a part."""
    return value if value.untyped_storage().nbytes() <= value.numel() * value.element_size() else value.clone()
