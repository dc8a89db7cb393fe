"""Structured channel pruning: in which order a group's channels go, and what each step costs.

Removing channel c from a layer that reads covariance H = E[(x-m)(x-m)^T] with weights W, and letting the remaining
weights make up for it, raises the squared output error by tr(W_c [H^-1]_cc^-1 W_c^T) and moves the weights by
-W_c [H^-1]_cc^-1 [H^-1]_c: (the optimal brain surgeon, Hassibi and Stork 1993, over blocks of one channel's kernel
taps). Greedy: the channel with the least such error goes, weights and inverse are updated, and so on to the last one.
Near-duplicates go first, because the one can stand in for the other. Rows are weighted by the Fisher information of
the output, so errors of different layers add up in nats of loss. Exact for one linear layer without ridge; the sum
over layers neglects how errors combine. Where the evidence is thin for the weights, what they make up for on
these images would promise too much: the ridge is larger.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from slimwright.coupling.balance import Ladder
from slimwright.coupling.channels import ChannelGroup, Coupling, Cut
from slimwright.evidence import THIN, Evidence, groups_of
from slimwright.graph.net import Net
from slimwright.techniques.knobs import Choice, Knob, Observed
from slimwright.techniques.technique import Step, Technique, Work

DENSE = 0.8  # share of columns that must be there, or the others are let go
RIDGE = 1e-3  # of the mean variance: bounds the weights where channels repeat each other
THIN_RIDGE = 1e-2


class Prune(Step):
    """Keep these channels of these groups."""

    step: Literal["prune"] = "prune"
    keep: dict[str, list[int]]  # group -> channels that stay, ascending


def _apply(step: Prune, work: Work) -> Work:
    keep = {name: np.array(kept, np.int64) for name, kept in step.keep.items()}
    return replace(work, draft=work.draft.cut(keep))


def _sentence(step: Prune) -> str:
    kept = ", ".join(f"{name}: {len(channels)}" for name, channels in step.keep.items())
    return f"Prune. Channels that stay, by group: {kept}."


@dataclass(frozen=True)
class Removal:
    """The order in which a group's channels go, first one first, and the predicted damage of each prefix."""

    order: NDArray[np.int64]  # [size]
    damage: NDArray[np.float64]  # [size + 1] nats after removing 0, 1, ... channels; infinite where that cannot be

    def keep(self, count: int) -> NDArray[np.int64]:
        """The `count` channels that go last, in ascending order."""
        return np.sort(self.order[len(self.order) - count :])


@dataclass(frozen=True)
class ChannelKnob(Knob):
    """The channels of one group, and the order in which they go."""

    order: Removal | None = None


def _knobs(observed: Observed) -> list[ChannelKnob]:
    """A knob for each group whose readers were observed."""
    orders = removals(observed.net, observed.evidence, observed.coupling, observed.ladders)
    return [
        ChannelKnob(name, observed.settings[name], partial(_damage, order), order=order)
        for name, order in orders.items()
    ]


def _damage(order: "Removal", count: int) -> float:
    return float(order.damage[len(order.order) - count])


def _steps(_: Observed, knobs: Sequence[ChannelKnob], choice: Choice) -> list[Prune]:
    """The channels that a choice keeps of each group that it cuts."""
    kept = {
        str(knob.key): knob.order.keep(choice[knob.key]).tolist()
        for knob in knobs
        if knob.order is not None and choice[knob.key] < knob.settings[0]
    }
    return [Prune(keep=kept)] if kept else []


PRUNE = Technique(Prune, _apply, _sentence, knobs=_knobs, steps=_steps, done="pruned")


def removals(
    net: Net, evidence: Evidence, coupling: Coupling, ladders: Mapping[str, Ladder] | None = None
) -> dict[str, Removal]:
    """Return the removal order of every group whose readers were observed; evidence may hold several classes.

    Groups of which a layer needs equal parts (grouped convolutions and norms) go down their `ladders`, and have no
    order without.
    """
    seen = evidence.summed_for(net)
    ladders = ladders or {}
    return {
        group.name: removal(net, seen, group, ladders.get(group.name))
        for group in coupling.groups
        if (group.name not in coupling.balanced or _goes_down(ladders.get(group.name)))
        and all(place.node in seen.layers and _in_one_part(net, place) for place in group.of("in"))
        and any(group.of("in"))
    }


def removal(net: Net, evidence: Evidence, group: ChannelGroup, ladder: Ladder | None = None) -> Removal:
    """Return one group's removal order and damage, with compensation; `evidence` is summed over classes.

    Down a ladder only the counts of its rungs can be; those between cost infinitely much.
    """
    readers = [_Reader(net, evidence, place) for place in group.of("in")]
    whole = tuple((size,) for size in range(group.size, 0, -1))
    ladder = ladder or Ladder((np.arange(group.size)[:, None],), whole)
    units = [(cell, unit.tolist()) for cell, members in enumerate(ladder.cells) for unit in members]
    count = np.array(ladder.rungs[0])
    order: list[int] = []
    damage, total = np.full(group.size + 1, np.inf), 0.0
    damage[0] = 0.0
    for rung in ladder.rungs[1:]:
        while (over := count > rung).any():
            open_ = units if over.all() else [unit for unit in units if over[unit[0]]]
            at = _least(readers, [channels for _, channels in open_])
            cell, channels = open_[at]
            for channel in channels:
                total += max(float(_losses(readers, [channel])), 0.0)
                order.append(channel)
                for reader in readers:
                    reader.remove(channel)
            units.remove(open_[at])
            count[cell] -= 1
        damage[len(order)] = total
    return Removal(np.array(order + [channel for _, channels in units for channel in channels]), damage)


def _losses(readers: Sequence["_Reader"], channels: list[int]) -> Tensor:
    """What removing each of the channels alone would cost now, all readers together."""
    return torch.stack([reader.losses(channels) for reader in readers]).sum(0)


def _least(readers: Sequence["_Reader"], units: Sequence[list[int]]) -> int:
    """The place of the unit whose channels, each by itself, would cost the least."""
    loss = _losses(readers, [channel for unit in units for channel in unit])
    if len(loss) > len(units):
        loss = torch.stack([part.sum() for part in loss.split([len(unit) for unit in units])])
    return int(loss.argmin())


def _goes_down(ladder: Ladder | None) -> bool:
    return ladder is not None and len(ladder.rungs) > 1


def _in_one_part(net: Net, place: Cut) -> bool:
    """True where each channel is read by one group of a grouped layer only."""
    parts = place.positions // _inputs_per_part(net, place.node)
    return bool((parts == parts[:, :1]).all())


def _inputs_per_part(net: Net, name: str) -> int:
    """Input channels of each group of a layer."""
    return int(net.tensors[net[name].tensors["weight"]].shape[1])


class _Reader:
    """One layer that reads a group: its weights and inverse covariance, in each of its own G parts, as channels go."""

    def __init__(self, net: Net, evidence: Evidence, place: Cut) -> None:
        sums = evidence.layers[place.node]
        node = net[place.node]
        weight = net.tensors[node.tensors["weight"]].double().flatten(1)
        inputs, parts = _inputs_per_part(net, place.node), groups_of(node)
        per_position = weight.shape[1] // inputs  # kernel taps
        importance = 0.5 * sums.fisher[0] / evidence.images[0]  # [O] nats per squared output error
        self.weight = (weight * importance.sqrt()[:, None]).reshape(parts, -1, weight.shape[1])  # [G, O / G, D]
        mean = sums.total[0] / sums.count[0]  # [G, D]
        covariance = sums.gram[0] / sums.count[0] - mean[:, :, None] * mean[:, None, :]
        thin = sums.count[0] < THIN * mean.shape[1]
        ridge = (THIN_RIDGE if thin else RIDGE) * covariance.diagonal(0, 1, 2).mean(1).clamp_min(1e-12)
        eye = torch.eye(mean.shape[1], dtype=torch.float64)
        self.inverse = torch.linalg.inv(covariance + ridge[:, None, None] * eye)  # [G, D, D]
        taps = torch.arange(per_position)
        positions = torch.from_numpy(place.positions)  # [size, positions]
        self.part = positions[:, 0] // inputs  # [size]
        self.blocks = (positions[:, :, None] % inputs * per_position + taps).flatten(1)  # [size, columns]
        self.there = torch.ones(len(eye), dtype=torch.bool)

    def losses(self, channels: list[int]) -> Tensor:
        """What removing each of the channels alone would cost now."""
        at, part = self.blocks[channels], self.part[channels]  # [n, k], [n]
        if at.shape[1] == 1:
            losses: Tensor = self.weight[part, :, at[:, 0]].square().sum(1) / self.inverse[part, at[:, 0], at[:, 0]]
            return losses
        inner = self.inverse[part[:, None, None], at[:, :, None], at[:, None, :]]  # [n, k, k]
        weight = self.weight[part[:, None], :, at]  # [n, k, O / G]
        losses = (weight * torch.linalg.solve(inner, weight)).sum((1, 2))
        return losses

    def remove(self, channel: int) -> None:
        """Take a channel out; the others make up for it."""
        at, part = self.blocks[channel], int(self.part[channel])
        weight, inverse = self.weight[part], self.inverse[part]
        across = inverse[:, at]  # [D, k]
        gain = torch.linalg.solve(inverse[at[:, None], at], across.T)  # [k, D]
        weight.addmm_(weight[:, at], gain, alpha=-1)
        inverse.addmm_(across, gain, alpha=-1)
        if len(self.inverse) == 1:
            self.there[at] = False
            if int(self.there.sum()) < DENSE * len(self.there):
                self._close_ranks()

    def _close_ranks(self) -> None:
        """Let go of the columns that are not there any more; for a layer that is not grouped."""
        left = self.there.nonzero()[:, 0]
        self.weight, self.inverse = self.weight[:, :, left], self.inverse[:, left][:, :, left]
        self.blocks = (self.there.cumsum(0) - 1)[self.blocks]
        self.there = torch.ones(len(left), dtype=torch.bool)
