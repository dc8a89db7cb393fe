"""What each layer of a draft shall reproduce: a value of the reference, and what lies between that and the layer.

- Where the result runs through a batch norm into a sum whose other side is already known, it is the *sum* that shall
  equal the reference's, so a residual stream does not drift.
- Where only what cuts values off reads the result (ReLU, ReLU6, levels of few bits), any value beyond the bound will
  do, as long as the wished one lies beyond it too (compare the nonlinear case of Zhang et al. 2015, arXiv 1505.06798).
  So a layer may also be solved against a value behind its ReLU, such as that of a pooling it took the place of.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from slimwright.graph.levels import LEVELS, Levels
from slimwright.graph.net import Net, Node
from slimwright.techniques.fold import affine
from slimwright.techniques.solver.draft import Draft, Origin

DEAD = 1e-3  # channels whose batch norm scales them by less than this share of the largest are left as they are
Bounds = tuple[float, float]
FREE: Bounds = (float("-inf"), float("inf"))


@dataclass(frozen=True)
class LayerTarget:
    """What a layer shall reproduce behind `norm`: `origin`, less `other` of the draft, between the bounds."""

    origin: Origin
    value: str  # of the draft: the node that the origin is of
    norm: Node | None = None
    other: str | None = None
    bounds: Bounds = FREE  # outside of which activations cut off what is wished


def target_of(draft: Draft, node: Node) -> LayerTarget | None:
    """Follow a layer's result through a batch norm, a sum whose other side is known by then, and activations.

    None where nothing on the way stands for a value of the reference.
    """
    net, origins = draft.net, draft.origins
    value, norm, other = node.name, None, None
    found: LayerTarget | None = None
    if value in origins:
        found = LayerTarget(origins[value], value)
    reader, read = _only_reader(net, value)
    if reader is not None and reader.op == "batch_norm":
        norm, value = reader, reader.name
        if value in origins:
            found = LayerTarget(origins[value], value, norm)
        reader, read = _only_reader(net, value)
    if reader is not None and reader.op == "add" and reader.name in origins:
        others = [name for name in reader.reads if name != read]
        alike = len(others) == 1 and net[others[0]].shape == net[read].shape
        if alike and reader.arguments["alpha"] == 1 and _is_before(net, others[0], node.name):
            value, other = reader.name, others[0]
            found = LayerTarget(origins[value], value, norm, other)
    if found is not None:
        return replace(found, bounds=_bounds(net, found.value))
    reader, _ = _only_reader(net, value)
    if reader is not None and reader.name in origins and _cuts(reader) != FREE:
        return LayerTarget(origins[reader.name], reader.name, norm, other, _cuts(reader))
    return None


@dataclass(frozen=True)
class Wish:
    """What a layer's outputs at some positions shall become: `wanted`, behind a scale, a shift and `other`."""

    wanted: Tensor  # [O, P]
    other: Tensor  # [O, P], or of one dimension 1
    scale: Tensor  # [O, 1]
    shift: Tensor  # [O, 1]
    bounds: Bounds

    @classmethod
    def of(cls, net: Net, target: LayerTarget, wanted: Tensor, other: Tensor | None) -> "Wish":
        """Return the wish for the layer of a target, by the values of the reference and of the sum's other side."""
        scale, shift = torch.ones(1, 1), torch.zeros(1, 1)
        if target.norm is not None:
            scale, shift = (each[:, None].float() for each in affine(net, target.norm))
        return cls(wanted, torch.zeros(1, 1) if other is None else other, scale, shift, target.bounds)

    @property
    def alive(self) -> Tensor:
        """Which outputs [O, 1] the batch norm behind lets through; all where there is none."""
        return self.scale.abs() > DEAD * self.scale.abs().max()

    @property
    def is_bounded(self) -> bool:
        """True where activations cut something off."""
        return self.bounds != FREE

    def rest(self, outputs: Tensor, *, eased: bool = False) -> Tensor:
        """Return what `outputs` [O, P] lack; nothing, if it is `eased`, where they and the wish are cut off alike."""
        reached = torch.addcmul(self.shift + self.other, outputs, self.scale)
        rest = (self.wanted - reached).mul_(1 / torch.where(self.alive, self.scale, 1.0))
        low, high = self.bounds
        if eased and low > FREE[0]:
            rest.masked_fill_(torch.maximum(self.wanted, reached) <= low, 0.0)
        if eased and high < FREE[1]:
            rest.masked_fill_(torch.minimum(self.wanted, reached) >= high, 0.0)
        return rest


@dataclass(frozen=True)
class Wishes:
    """What the outputs of a layer that is called several times shall become, its calls side by side."""

    parts: tuple[Wish, ...]

    @property
    def scale(self) -> Tensor:
        """The largest scale of each output [O, 1] at any call."""
        return torch.stack([part.scale.abs().expand(len(part.wanted), 1) for part in self.parts]).amax(0)

    @property
    def alive(self) -> Tensor:
        """Which outputs [O, 1] are let through at any call."""
        return torch.stack([part.alive.expand(len(part.wanted), 1) for part in self.parts]).any(0)

    @property
    def is_bounded(self) -> bool:
        """True where activations cut something off at any call."""
        return any(part.is_bounded for part in self.parts)

    def rest(self, outputs: Tensor, *, eased: bool = False) -> Tensor:
        """Return what `outputs` [O, P] lack: nothing at a call that does not let an output through."""
        each = zip(self.parts, outputs.split([part.wanted.shape[1] for part in self.parts], 1), strict=True)
        return torch.cat([part.rest(some, eased=eased).masked_fill_(~part.alive, 0.0) for part, some in each], 1)


def pointwise_behind(draft: Draft, node: Node) -> Node | None:
    """Return the one layer that reads a node that stands for nothing, where the two are one layer of limited rank."""
    readers = draft.net.readers[node.name]
    if len(readers) != 1 or node.arguments.get("groups", 1) != 1 or node.name in draft.net.outputs:
        return None
    behind = draft.net[readers[0]]
    if behind.op != node.op or target_of(draft, behind) is None:
        return None
    weight = draft.net.tensors[behind.tensors["weight"]]
    plain = {"stride": (1, 1), "padding": (0, 0), "groups": 1}
    alike = behind.op == "linear" or {k: behind.arguments[k] for k in plain} == plain
    return behind if alike and weight[0, 0].numel() == 1 else None


def _only_reader(net: Net, value: str) -> tuple[Node | None, str]:
    """The one node that reads a value, None where there are others, and what it reads: the value, perhaps on levels."""
    while len(net.readers[value]) == 1 and value not in net.outputs:
        reader = net[net.readers[value][0]]
        if reader.op != LEVELS:
            return reader, value
        value = reader.name
    return None, value


def _is_before(net: Net, one: str, other: str) -> bool:
    return next(node.name for node in net.nodes if node.name in (one, other)) == one


def _bounds(net: Net, value: str) -> Bounds:
    """Outside of which no reader of a value sees a difference."""
    readers = [net[name] for name in net.readers[value]]
    if not readers or value in net.outputs:
        return FREE
    bounds = [_cuts(reader) for reader in readers]
    return min(low for low, _ in bounds), max(high for _, high in bounds)


def _cuts(node: Node) -> Bounds:
    """Below and above which an activation gives the same for every input."""
    if node.op == "relu":
        return 0.0, float("inf")
    if node.op == "hardtanh":
        return float(str(node.arguments["min_val"])), float(str(node.arguments["max_val"]))
    if node.op == LEVELS:
        return Levels.of(node).ends
    return FREE
