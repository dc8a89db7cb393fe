"""A net under way: what it must reproduce, and what each of its values stands for.

Every technique changes the structure and says which channels of which value of the reference each new value stands
for; the solver (`refit.py`) then needs to know nothing about the technique. A value without an origin, such as the one
between two layers that took the place of one, is free.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from slimwright.coupling.channels import Coupling, couple
from slimwright.coupling.cut import cut
from slimwright.coupling.views import Ids
from slimwright.graph.net import Net
from slimwright.train import Match


@dataclass(frozen=True)
class Origin:
    """Values of the reference side by side along `axis`, and which of their channels; None: all.

    Numbers are those at a batch of one: for a value whose `axis` also counts images they do not hold.
    """

    values: tuple[str, ...]
    axis: int = 1
    kept: Tensor | None = None  # [C]

    def of(self, values: Sequence[Tensor]) -> Tensor:
        """Return what is left of the reference's values, each [N, ...]."""
        whole = torch.cat(list(values), self.axis) if len(values) > 1 else values[0]
        return whole if self.kept is None else whole.index_select(self.axis, self.kept.to(whole.device))

    def among(self, axis: int, kept: Tensor) -> "Origin | None":
        """Return the origin of some of the channels; None where the earlier ones lie along another dimension."""
        if (self.kept is not None or len(self.values) > 1) and axis != self.axis:
            return None
        return Origin(self.values, axis, kept if self.kept is None else self.kept[kept])

    def size(self, reference: Net) -> int:
        """How many channels there are, some of them perhaps not kept."""
        return sum(reference[value].shape[self.axis] for value in self.values)


def side_by_side(origins: Sequence[Origin | None], reference: Net) -> Origin | None:
    """The origin of values that are concatenated; None where one of them has none."""
    known = [origin for origin in origins if origin is not None]
    if len(known) < len(origins) or len({origin.axis for origin in known}) != 1:
        return None
    kept, start = [], 0
    for origin in known:
        size = origin.size(reference)
        kept.append((torch.arange(size) if origin.kept is None else origin.kept) + start)
        start += size
    whole = all(origin.kept is None for origin in known)
    values = tuple(value for origin in known for value in origin.values)
    return Origin(values, known[0].axis, None if whole else torch.cat(kept))


@dataclass(frozen=True)
class Draft:
    """`net` on its way from `reference`. `unsolved` says of layers why the last solution left them as they were."""

    reference: Net
    net: Net
    origins: Mapping[str, Origin]
    unsolved: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, net: Net) -> "Draft":
        """The draft at the start: every value is its own origin."""
        return cls(net, net, {node.name: Origin((node.name,)) for node in net.nodes})

    def changed(self, net: Net, origins: Mapping[str, Origin | None]) -> "Draft":
        """Return the draft with another net; values keep the origins of their names but for those given here.

        None says that a value stands for nothing any more. A value of a name that was not there has no origin.
        """
        every = {name: origins.get(name, self.origins.get(name)) for name in (node.name for node in net.nodes)}
        return Draft(self.reference, net, {name: origin for name, origin in every.items() if origin is not None})

    def matches(self) -> list[Match]:
        """Return what a training can hold against the reference: values that stand for channels of one of its own."""
        return [
            Match(name, origin.values[0], None if origin.kept is None else tuple(origin.kept.tolist()))
            for name, origin in self.origins.items()
            if len(origin.values) == 1 and origin.axis == 1
        ]

    def cut(self, keep: Mapping[str, Ids], coupling: Coupling | None = None) -> "Draft":
        """Return the draft with only the channels `keep` of each named group, weights as they were.

        Raises RequestError as `graph.cut` does.
        """
        coupling = coupling or couple(self.net)
        alive = coupling.alive(keep)
        small = cut(self.net, keep, coupling)
        origins = {
            name: _among(self.origins[name], alive[components])
            for name, components in coupling.values.items()
            if name in self.origins and components.size and not alive[components].all()
        }
        return self.changed(small, origins)


def _among(origin: Origin, alive: NDArray[np.bool_]) -> Origin | None:
    """What an origin becomes where only some positions of its value are alive; None where they form no channels."""
    for axis in range(alive.ndim):
        line = alive.any(tuple(i for i in range(alive.ndim) if i != axis), keepdims=True)
        if np.array_equal(np.broadcast_to(line, alive.shape), alive):
            return origin.among(axis, torch.from_numpy(np.flatnonzero(line)))
    return None
