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

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import blas

from slimwright.coupling.balance import Ladder
from slimwright.coupling.channels import ChannelGroup, Coupling, Cut
from slimwright.evidence import THIN, Evidence, groups_of
from slimwright.graph.net import Net
from slimwright.progress import Event, Tell, silent
from slimwright.techniques.elimination import Elimination, Floats, elimination, inverted
from slimwright.techniques.knobs import Choice, Knob, Observed
from slimwright.techniques.technique import Step, Technique, Work

RIDGE = 1e-3  # of the mean variance: bounds the weights where channels repeat each other
THIN_RIDGE = 1e-2
TOLD = 16  # channels between two tellings


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
    orders = removals(observed.net, observed.evidence, observed.coupling, observed.ladders, tell=observed.tell)
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
    net: Net,
    evidence: Evidence,
    coupling: Coupling,
    ladders: Mapping[str, Ladder] | None = None,
    *,
    tell: Tell = silent,
) -> dict[str, Removal]:
    """Return the removal order of every group whose readers were observed; evidence may hold several classes.

    Groups of which a layer needs equal parts (grouped convolutions and norms) go down their `ladders`, and have no
    order without.
    """
    seen, ladders = evidence.summed_for(net), ladders or {}
    groups = [
        group
        for group in coupling.groups
        if (group.name not in coupling.balanced or _goes_down(ladders.get(group.name)))
        and all(place.node in seen.layers and _in_one_part(net, place) for place in _readers(net, group))
        and _readers(net, group)
    ]
    inverses = _Inverses(seen, Counter(place.node for group in groups for place in _readers(net, group)))
    found: dict[str, Removal] = {}
    done, total = 0, sum(group.size for group in groups)
    for group in groups:
        path = net.paths[next(group.of("in")).node]
        tell(Event("price channels", done, total, path))
        parts = [part for place in _readers(net, group) for part in _parts(net, seen, place, inverses.of(place.node))]
        went = partial(_told, tell, done, total, path)
        found[group.name] = _ordered(parts, ladders.get(group.name) or _one_by_one(group.size), went)
        done += group.size
    tell(Event("price channels", total, total))
    return found


def removal(net: Net, evidence: Evidence, group: ChannelGroup, ladder: Ladder | None = None) -> Removal:
    """Return one group's removal order and damage, with compensation; `evidence` is summed over classes.

    Down a ladder only the counts of its rungs can be; those between cost infinitely much.
    """
    parts = [
        part for place in _readers(net, group) for part in _parts(net, evidence, place, _inverse(evidence, place.node))
    ]
    return _ordered(parts, ladder or _one_by_one(group.size), lambda _: None)


def _readers(net: Net, group: ChannelGroup) -> list[Cut]:
    """The layers that read a group, each once: all calls of one read it at the same places."""
    return [place for place in group.of("in") if net.layer_called.get(place.node, place.node) == place.node]


def _told(tell: Tell, done: int, total: int, path: str, gone: int) -> None:
    """Tell how many channels of a group are gone, now and then."""
    if gone % TOLD == 0:
        tell(Event("price channels", done + gone, total, path))


def _one_by_one(size: int) -> Ladder:
    return Ladder((np.arange(size)[:, None],), tuple((left,) for left in range(size, 0, -1)))


def _ordered(parts: Sequence["_Part"], ladder: Ladder, went: Callable[[int], None]) -> Removal:
    """Down a ladder, the unit first whose channels, each by itself, would cost the least; all readers together."""
    size = sum(members.size for members in ladder.cells)
    order: list[int] = []
    damage, total = np.full(size + 1, np.inf), 0.0
    damage[0] = 0.0
    count, until = np.array(ladder.rungs[0]), 0
    for rung in ladder.rungs[1:]:
        while (over := count > rung).any():
            open_ = range(len(ladder.cells)) if over.all() else np.flatnonzero(over).tolist()
            cell, unit, loss = _cheapest(ladder, open_, _losses(parts, size))
            if len(order) >= until or not np.isfinite(loss):
                until = len(order) + _look(parts, ladder, size)
                cell, unit, _ = _cheapest(ladder, open_, _losses(parts, size))
            for channel in ladder.cells[cell][unit].tolist():
                total += max(float(_losses(parts, size)[channel]), 0.0)
                order.append(channel)
                for part in parts:
                    part.remove(channel)
                went(len(order))
            count[cell] -= 1
        damage[len(order)] = total
    gone = set(order)
    last = [channel for members in ladder.cells for channel in members.ravel().tolist() if channel not in gone]
    return Removal(np.array(order + last), damage)


def _cheapest(ladder: Ladder, cells: Sequence[int], losses: Floats) -> tuple[int, int, float]:
    """The cell and the unit whose channels cost the least, and what they cost."""
    sums = {cell: losses[ladder.cells[cell]].sum(1) for cell in cells}
    cell = min(cells, key=lambda cell: float(sums[cell].min()))
    return cell, int(sums[cell].argmin()), float(sums[cell].min())


def _look(parts: Sequence["_Part"], ladder: Ladder, size: int) -> int:
    """Look at the units of each cell that cost the least, and return how many to take of them before the next look.

    They are twice as many. Which of them goes next is decided one by one, and what they cost together is exact. That
    no other would cost less by then is a guess, where not all are looked at.
    """
    for part in parts:
        part.losses = part.columns.losses()
    losses = _losses(parts, size)
    taken = min(part.columns.at_once for part in parts)
    seen = np.zeros(size, bool)
    for members in ladder.cells:
        sums = losses[members].sum(1)
        most = -(-2 * taken // (len(ladder.cells) * members.shape[1]))
        seen[members[np.argsort(sums, kind="stable")[:most]].ravel()] = True
    seen &= np.isfinite(losses)
    for part in parts:
        part.look_at(seen)
    return taken if seen.sum() < np.isfinite(losses).sum() else size


def _losses(parts: Sequence["_Part"], size: int) -> Floats:
    """What removing each channel alone would cost now [size]; infinite for those that are gone, or not looked at."""
    found = np.zeros(size)
    for part in parts:
        found[part.channels] += part.losses
    return found


def _goes_down(ladder: Ladder | None) -> bool:
    return ladder is not None and len(ladder.rungs) > 1


def _in_one_part(net: Net, place: Cut) -> bool:
    """True where each channel is read by one group of a grouped layer only."""
    parts = place.positions // _inputs_per_part(net, place.node)
    return bool((parts == parts[:, :1]).all())


def _inputs_per_part(net: Net, name: str) -> int:
    """Input channels of each group of a layer."""
    return int(net.tensors[net[name].tensors["weight"]].shape[1])


class _Part:
    """The channels of a group that one part of a layer reads, its weights and inverse covariance, as they go."""

    def __init__(self, channels: NDArray[np.int64], columns: Elimination) -> None:
        self.channels, self.columns = channels, columns  # [n]; n blocks, of one channel each
        self.losses = np.full(len(channels), np.inf)  # of those that are looked at

    def look_at(self, channels: NDArray[np.bool_]) -> None:
        """Take the next channels out of these, of a group's [size]."""
        self.columns.look_at(np.flatnonzero(channels[self.channels]))
        self.losses = self.columns.losses_seen()

    def remove(self, channel: int) -> None:
        """Take a channel out, if it is read here; the others make up for it."""
        for at in np.flatnonzero(self.channels == channel):
            self.columns.eliminate(int(at))
            self.losses = self.columns.losses_seen()


class _Inverses:
    """The inverse covariances of layers, each found once and kept as long as a group that reads it is to come."""

    def __init__(self, evidence: Evidence, readers: Counter[str]) -> None:
        self.evidence, self.readers = evidence, readers
        self.known: dict[str, list[Floats]] = {}

    def of(self, name: str) -> list[Floats]:
        """Return that of each of a layer's parts."""
        found = self.known.pop(name) if name in self.known else _inverse(self.evidence, name)
        self.readers[name] -= 1
        if self.readers[name]:
            self.known[name] = found
        return found


def _inverse(evidence: Evidence, name: str) -> list[Floats]:
    """The inverse covariance [D, D] of what each of a layer's parts reads, with a ridge."""
    sums = evidence.layers[name]
    count = float(sums.count[0])
    relative = THIN_RIDGE if count < THIN * sums.total.shape[2] else RIDGE
    found = []
    for total, gram in zip(sums.total[0].numpy(), sums.gram[0].numpy(), strict=True):
        mean = total / count
        covariance = blas.dsyr(-1.0, mean, a=(gram / count).T, lower=1, overwrite_a=1).T  # above the diagonal
        found.append(inverted(covariance, relative * max(float(covariance.diagonal().mean()), 1e-12)))
    return found


def _parts(net: Net, evidence: Evidence, place: Cut, inverses: Sequence[Floats]) -> list[_Part]:
    """One layer that reads a group, in each of its own G parts that does."""
    node = net[place.node]
    weight = net.tensors[node.tensors["weight"]].double().flatten(1)
    inputs, count = _inputs_per_part(net, place.node), groups_of(node)
    per_position = weight.shape[1] // inputs  # kernel taps
    importance = evidence.importance(place.node)
    weights = (weight * importance.sqrt()[:, None]).detach().numpy().reshape(count, -1, weight.shape[1])
    part = place.positions[:, 0] // inputs  # [size]
    blocks = (place.positions[:, :, None] % inputs * per_position + np.arange(per_position)).reshape(len(part), -1)
    found = []
    for number in np.unique(part):
        channels = np.flatnonzero(part == number)
        found.append(_Part(channels, elimination(weights[number], inverses[number], blocks[channels])))
    return found
