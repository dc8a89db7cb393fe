"""What may be chosen of a net: how many channels each group keeps, and which ranks and bits layers have."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TypeAlias

import numpy as np

from slimwright.cost.latency import LayerShape, shape_of, with_channels
from slimwright.coupling.balance import Ladder, ladders
from slimwright.coupling.channels import Coupling
from slimwright.graph.encoding import FLOAT32
from slimwright.graph.net import Net
from slimwright.techniques.knobs import BITS
from slimwright.techniques.ranks import CP_RANK, IN_RANK, OUT_RANK, RANKS, rank_for_ratio

GRID_POINTS = 4  # channel counts measured per layer and direction; between them latency is interpolated
RANK_POINTS = 2  # ranks likewise
MOST_SIZES, MOST_RANKS = 24, 96  # to choose from per group or rank; of a layer that has one rank only
LEAST_RUNGS = 4  # of a group that parts share equally, where it is wide enough
MOST_CP_TAPS = 1152  # the terms of a layer that reads 128 channels in 3x3 are found in a second, of 256 in ten

Counts: TypeAlias = Mapping[str, int]


class Choices:
    """The sizes that each group, and each rank, may have, and the channels that a choice leaves each layer.

    `ranks` names layers that may be factorised, and `bits` those whose weights may have so many bits, beside 32.
    Channels are multiples of `step`, ranks of `rank_step`, which is the same by default; `steps` holds those of items
    that may have any multiple between the sizes that are listed.
    """

    def __init__(
        self,
        net: Net,
        coupling: Coupling,
        step: int,
        ranks: Iterable[str] = (),
        bits: Mapping[str, Sequence[int]] | None = None,
        rank_step: int | None = None,
    ) -> None:
        self.net, self.coupling, self.rank_step = net, coupling, rank_step or step
        self.shapes = {node.name: shape_of(net, node) for node in net.weighted()}
        self.sizes = {group.name: sizes(group.size, step) for group in coupling.groups}
        self.ladders: dict[str, Ladder] = ladders(coupling, lambda size, parts: equal_sizes(size, parts, step))
        self.sizes |= {name: ladder.sizes for name, ladder in self.ladders.items()}
        for name in ranks:
            self.sizes |= self._ranks(name)
        self.sizes |= {BITS + name: [FLOAT32.bits, *few] for name, few in (bits or {}).items()}
        self.steps = {group.name: step for group in coupling.groups if group.name not in self.ladders}
        self.steps |= {item + name: self.rank_step for name in ranks for item in RANKS}
        self.whole = {name: some[0] for name, some in self.sizes.items()}
        self._removed = self._removed_per_channel()
        self.items = {name: self._items(name) for name in self.shapes}

    def coarse(self) -> dict[str, list[int]]:
        """Return the sizes of groups in multiples of `rank_step`, but of those of which layers need equal parts."""
        alone = [group for group in self.coupling.groups if group.name not in self.ladders]
        return {group.name: sizes(group.size, self.rank_step) for group in alone}

    def shape(self, name: str, counts: Counts) -> LayerShape:
        """Return a layer with the channels that a choice leaves it."""
        shape = self.shapes[name]
        left = {"in": shape.in_channels, "out": shape.out_channels}
        for role in left:
            for group, positions in self._removed.get((name, role), {}).items():
                left[role] -= (self.whole[group] - counts[group]) * positions
        return with_channels(shape, left["in"], left["out"])

    def ranks(self, name: str, counts: Counts) -> dict[str, int]:
        """Return the ranks of a layer that a choice sets, by what they are of."""
        return {item: counts[item + name] for item in RANKS if item + name in self.sizes}

    def bits(self, name: str, counts: Counts) -> int:
        """Return how many bits the weights of a layer have."""
        return counts.get(BITS + name, FLOAT32.bits)

    def grid(self, name: str, role: str) -> list[int]:
        """Return a few counts of channels from the least to the whole, each one that a choice can lead to."""
        shape = self.shapes[name]
        unit = shape.groups if shape.groups < shape.in_channels else 1
        whole = shape.in_channels if role == "in" else shape.out_channels
        groups = self._removed.get((name, role), {})
        if len(groups) != 1:
            spread = np.geomspace(max(whole / 8, 1), whole, GRID_POINTS) if groups else [whole]
            reachable = sorted({max(round(size / unit), 1) * unit for size in spread})
        else:
            ((group, positions),) = groups.items()
            reachable = sorted(whole - (self.whole[group] - size) * positions for size in self.sizes[group])
        return reachable if len(reachable) <= GRID_POINTS else _spread(reachable, GRID_POINTS)

    def rank_grid(self, item: str) -> list[int]:
        """Return the ranks at which the layers of an item are measured."""
        ranks = sorted(self.sizes.get(item, [0])[1:])
        return ranks if len(ranks) <= RANK_POINTS else _spread(ranks, RANK_POINTS)

    def _items(self, name: str) -> list[str]:
        """What a layer depends on: groups, and ranks of its own."""
        groups = dict.fromkeys(group for role in ("in", "out") for group in self._removed.get((name, role), {}))
        return [*groups, *(item + name for item in RANKS if item + name in self.sizes)]

    def _removed_per_channel(self) -> dict[tuple[str, str], dict[str, int]]:
        """How many channels a layer loses, on its inputs and on its outputs, with each channel of a group."""
        found: dict[tuple[str, str], dict[str, int]] = {}
        for group in self.coupling.groups:
            for place in group.cuts:
                if place.node in self.shapes:
                    shape, positions = self.shapes[place.node], place.positions.shape[1]
                    each = {"in": positions * shape.in_channels // shape.out_channels, "out": positions}
                    for role, removed in (each if place.role == "each" else {place.role: positions}).items():
                        found.setdefault((place.node, role), {})[group.name] = removed
        return found

    def _ranks(self, name: str) -> dict[str, list[int]]:
        """The items of a layer's ranks: the whole, and those below it at which there are fewer weights."""
        shape = self.shapes[name]
        taps, inputs, outputs = math.prod(shape.kernel), shape.in_channels, shape.out_channels
        most = min(taps * inputs, outputs)
        ranks = sizes(most, self.rank_step, MOST_SIZES if taps > 1 else MOST_RANKS)[1:]
        fewer = [r for r in ranks if r * (taps * inputs + outputs) < taps * inputs * outputs]
        found = {OUT_RANK + name: [most, *fewer]}
        if taps > 1:
            fewer = [
                r for r in sizes(inputs, self.rank_step)[1:] if r * (inputs + taps * outputs) < taps * inputs * outputs
            ]
            found[IN_RANK + name] = [inputs, *fewer]
        if taps > 1 and taps * inputs <= MOST_CP_TAPS:
            most = rank_for_ratio(self.net, name, "cp", 0.0)
            found[CP_RANK + name] = [most + 1, *sizes(most + 1, self.rank_step)[1:]]
        return found


def _spread(numbers: Sequence[int], points: int) -> list[int]:
    """A few of them, from the first to the last, each about as many times the one before: caches fill by factors."""
    wanted = np.geomspace(numbers[0], numbers[-1], points)
    return sorted({min(numbers, key=lambda number: abs(number - aim)) for aim in wanted.tolist()})


def equal_sizes(whole: int, parts: int, step: int) -> list[int]:
    """Return what to ask for of a group that so many parts share equally: multiples of their number, by `sizes`."""
    each = whole // parts
    return [count * parts for count in sizes(each, min(step, max(each // LEAST_RUNGS, 1)))]


def sizes(whole: int, step: int, most: int = MOST_SIZES) -> list[int]:
    """Return what a group of `whole` channels may keep: itself, multiples of `step`, and below it halves down to 4.

    Where that would be more than about `most`, every second, third or so of the multiples has to do.
    """
    stride = step * max(whole // step // most, 1)
    multiples = [*range((whole - 1) // stride * stride, 0, -stride)]
    halves = [step >> shift for shift in range(1, step.bit_length()) if 4 <= step >> shift < whole]
    return [whole, *multiples, *halves]
