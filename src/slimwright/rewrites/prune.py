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

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from slimwright.evidence import THIN, Evidence
from slimwright.graph.channels import ChannelGroup, Coupling, Cut
from slimwright.graph.net import Net

DENSE = 0.8  # share of columns that must be there, or the others are let go
RIDGE = 1e-3  # of the mean variance: bounds the weights where channels repeat each other
THIN_RIDGE = 1e-2


@dataclass(frozen=True)
class Removal:
    """The order in which a group's channels go, first one first, and the predicted damage of each prefix."""

    order: NDArray[np.int64]  # [size]
    damage: NDArray[np.float64]  # [size + 1] nats after removing 0, 1, ... channels; the last is infinite

    def keep(self, count: int) -> NDArray[np.int64]:
        """The `count` channels that go last, in ascending order."""
        return np.sort(self.order[len(self.order) - count :])


def removals(net: Net, evidence: Evidence, coupling: Coupling) -> dict[str, Removal]:
    """Return the removal order of every group whose readers were observed; evidence may hold several classes.

    Groups of which a layer needs equal parts (grouped convolutions and norms) have none yet: they stay whole.
    """
    seen = evidence.summed_for(net)
    return {
        group.name: removal(net, seen, group)
        for group in coupling.groups
        if group.name not in coupling.balanced
        and all(place.node in seen.layers for place in group.of("in"))
        and any(group.of("in"))
    }


def removal(net: Net, evidence: Evidence, group: ChannelGroup) -> Removal:
    """Return one group's removal order and damage, with compensation; `evidence` is summed over classes."""
    readers = [_Reader(net, evidence, place) for place in group.of("in")]
    left = list(range(group.size))
    order, damage, total = [], [0.0], 0.0
    while len(left) > 1:
        loss = torch.stack([reader.losses(left) for reader in readers]).sum(0)
        at = int(loss.argmin())
        total += max(float(loss[at]), 0.0)
        order.append(left.pop(at))
        damage.append(total)
        for reader in readers:
            reader.remove(order[-1])
    return Removal(np.array(order + left), np.array([*damage, np.inf]))


class _Reader:
    """One layer that reads a group: its weights and inverse covariance, as channels go."""

    def __init__(self, net: Net, evidence: Evidence, place: Cut) -> None:
        sums = evidence.layers[place.node]
        node = net[place.node]
        weight = net.tensors[node.tensors["weight"]].double().flatten(1)  # [O, D]
        per_position = weight.shape[1] // net.tensors[node.tensors["weight"]].shape[1]  # kernel taps
        importance = 0.5 * sums.fisher[0] / evidence.images[0]  # [O] nats per squared output error
        self.weight = weight * importance.sqrt()[:, None]
        mean = sums.total[0, 0] / sums.count[0]
        covariance = sums.gram[0, 0] / sums.count[0] - torch.outer(mean, mean)
        thin = sums.count[0] < THIN * len(mean)
        ridge = (THIN_RIDGE if thin else RIDGE) * covariance.diagonal().mean().clamp_min(1e-12)
        self.inverse = torch.linalg.inv(covariance + ridge * torch.eye(len(covariance), dtype=torch.float64))
        taps = torch.arange(per_position)
        first = torch.from_numpy(place.positions) * per_position  # [size, positions]
        self.blocks = (first[:, :, None] + taps).flatten(1)  # [size, columns]
        self.there = torch.ones(len(covariance), dtype=torch.bool)

    def losses(self, channels: list[int]) -> Tensor:
        """What removing each of the channels alone would cost now."""
        at = self.blocks[channels]  # [n, k]
        if at.shape[1] == 1:
            losses: Tensor = self.weight[:, at[:, 0]].square().sum(0) / self.inverse.diagonal()[at[:, 0]]
            return losses
        inner = self.inverse[at[:, :, None], at[:, None, :]]  # [n, k, k]
        weight = self.weight[:, at].permute(1, 2, 0)  # [n, k, O]
        losses = (weight * torch.linalg.solve(inner, weight)).sum((1, 2))
        return losses

    def remove(self, channel: int) -> None:
        """Take a channel out; the others make up for it."""
        at = self.blocks[channel]
        across = self.inverse[:, at]  # [D, k]
        gain = torch.linalg.solve(self.inverse[at[:, None], at], across.T)  # [k, D]
        self.weight.addmm_(self.weight[:, at], gain, alpha=-1)
        self.inverse.addmm_(across, gain, alpha=-1)
        self.there[at] = False
        if int(self.there.sum()) < DENSE * len(self.there):
            self._close_ranks()

    def _close_ranks(self) -> None:
        """Let go of the columns that are not there any more."""
        left = self.there.nonzero()[:, 0]
        self.weight, self.inverse = self.weight[:, left], self.inverse[left][:, left]
        self.blocks = (self.there.cumsum(0) - 1)[self.blocks]
        self.there = torch.ones(len(left), dtype=torch.bool)
