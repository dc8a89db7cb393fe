"""What a draft and its reference give for the images, side by side and some images at a time.

A value is computed when it is asked for, and held for all images where later layers are computed from it and memory
allows; what is too large to hold is computed again from what is held before it. Values of the draft that equal the
reference's are the reference's. Images lie channels last, in which depthwise convolutions are three times as fast on
a processor (our measurement of 2026-11-28, MobileNetV2 at 224x224).
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from math import ceil
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from slimwright.graph.liveness import value_bytes
from slimwright.graph.net import CHUNK_BYTES, Net, compute
from slimwright.graph.ops import op_of

HELD_BYTES = 6e8  # of values that wait for later layers
MOST_IMAGES = 256  # of a chunk


class Activation(NamedTuple):
    """A value of the reference or of the draft."""

    of: Literal["reference", "draft"]
    name: str


def chunk_images(largest: int) -> int:
    """Return how many images a chunk holds whose largest value takes so many bytes for one image."""
    return min(max(int(CHUNK_BYTES // largest), 1), MOST_IMAGES)


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
        self.at_once = chunk_images(max(map(self._bytes, self._nodes)))
        chunks = zip(*(images.split(self.at_once) for images in inputs), strict=True)
        self.held = [dict(zip(self._sources, chunk, strict=True)) for chunk in chunks]  # by chunk of images
        self.modules: dict[Activation, nn.Module] = {}

    def key(self, of: Literal["reference", "draft"], name: str) -> Activation:
        """Return a value of one of the nets: the reference's where the draft's is the same."""
        if of == "draft" and name in self._drifted:
            return Activation("draft", name)
        return Activation("reference", self._inputs.get(name, name) if of == "draft" else name)

    def place(self, name: str, module: nn.Module) -> None:
        """Let a layer of the draft be computed by this module from now on."""
        self.modules[self.key("draft", name)] = _channels_last(module)

    def walk(
        self, wanted: Sequence[Activation], later: Sequence[Activation], images: int
    ) -> Iterator[dict[Activation, Tensor]]:
        """Yield the `wanted` values of the first chunks, up to so many images; to be walked to the end.

        What the values that are wanted `later` are computed from is held, and the rest is let go on the way. Images
        that were not walked before come in from the start of the net.
        """
        plans: dict[frozenset[Activation], _Plan] = {}
        for held in self.held[: ceil(images / self.at_once)]:
            known = frozenset(held)
            plan = plans[known] = plans.get(known) or self._plan(wanted, later, known, HELD_BYTES / images)
            values = {key: _ready(value) for key, value in held.items() if key in plan.last}
            self._compute(values, plan)
            yield {key: values[key] for key in wanted}
            for key in plan.gone:
                del held[key]
            held.update({key: _owned(values[key]) for key in plan.holds})
        ahead = {key for known in {*map(frozenset, self.held)} for key in self._missing(later, known)}
        self.modules = {key: module for key, module in self.modules.items() if key in ahead}

    @property
    def _sources(self) -> list[Activation]:
        return [Activation("reference", name) for name in self._inputs.values()]

    def _compute(self, values: dict[Activation, Tensor], plan: "_Plan") -> None:
        """Add the values of a plan's steps in turn, and let go what was read for the last time."""
        for step, key in enumerate(plan.steps):
            net, node = self.nets[key.of], self._nodes[key]
            if key not in self.modules and op_of(node.op).module is not None:
                self.modules[key] = _channels_last(net.module_of(node))
            reads = dict(zip(node.reads, self._reads[key], strict=True))
            carried = node.op.startswith("aten.")  # it may depend on how memory is laid out
            found = {name: _plain(values[read]) if carried else values[read] for name, read in reads.items()}
            values[key] = compute(net, node, self.modules.get(key), found.__getitem__)
            for read in {key, *self._reads[key]}:
                if plan.last[read] <= step:
                    del values[read]

    def _plan(
        self, wanted: Sequence[Activation], later: Sequence[Activation], known: Set[Activation], most: float
    ) -> "_Plan":
        """How to come from the `known` values to the `wanted` ones, holding up to `most` bytes an image for later."""
        steps = self._missing(wanted, known)
        holds = self._worth_holding(steps, later, known, most)
        last = {read: step for step, key in enumerate(steps) for read in (key, *self._reads[key])}
        last |= dict.fromkeys([*wanted, *holds], len(steps))
        return _Plan(steps, last, holds, known - self._behind(later, known | holds) - {*self._sources})

    def _missing(self, wanted: Iterable[Activation], known: Set[Activation]) -> list[Activation]:
        """What must be computed for some values, in an order in which it can be."""
        missing = set(wanted) - known
        for key in reversed(self._nodes):
            if key in missing:
                missing.update(read for read in self._reads[key] if read not in known)
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

    def _worth_holding(
        self, steps: Iterable[Activation], later: Sequence[Activation], known: Set[Activation], most: float
    ) -> set[Activation]:
        """Which of the values that are computed now are held for those that are wanted later, smallest first."""
        fit = {key for key in steps if self._reads[key] and self._bytes(key)}
        nearest = self._behind(later, known | fit) - known
        holds: set[Activation] = set()
        total = self._total(self._behind(later, known))
        for key in sorted(nearest, key=self._bytes):
            more = self._total(self._behind(later, known | holds | {key}))
            if more <= max(most, total):
                holds.add(key)
                total = more
        return holds

    def _total(self, keys: Iterable[Activation]) -> int:
        """Bytes of some values for one image, without the images."""
        return sum(self._bytes(key) for key in keys if self._reads[key])

    def _bytes(self, key: Activation) -> int:
        """Of a value for one image; 0 for what is no tensor."""
        return value_bytes(self.nets[key.of], key.name)


@dataclass(frozen=True)
class _Plan:
    """How the values of a chunk of images are computed, from what is held of it."""

    steps: Sequence[Activation]
    last: Mapping[Activation, int]  # the step that reads a value last
    holds: Set[Activation]  # to be held afterwards
    gone: Set[Activation]  # to be let go afterwards


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
