"""What a round drops: so many units, chosen by a rule from what the trained net does.

    minimum, maximum, random    the lowest mean |activation| E, the highest, any: of all units together
    ..._layer                   as many of every layer as its share
    apoz, apoz_layer            the highest share of zeros (Hu et al. 2016, arXiv 1607.03250)
    oracle                      the one without which the training loss is least, every removal tried on the trained
                                weights without retraining, unit after unit

Source: Tan and Motani 2020 (arXiv 2207.06646), sec. 3 and the authors' code. Ties are broken at random.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor

from slimwright.coupling.balance import choose
from slimwright.coupling.channels import ChannelGroup, Coupling, couple
from slimwright.coupling.cut import cut
from slimwright.data import Dataset
from slimwright.errors import RequestError
from slimwright.graph.net import Net, without_dead_ends
from slimwright.graph.ops import op_of
from slimwright.tasks import Metric, Task, returned
from slimwright.techniques.dropnet.rounds import Keep, Round
from slimwright.techniques.dropnet.training import AS_PUBLISHED, module_of
from slimwright.techniques.importance import Score, counts_left, ranked
from slimwright.train import Schedule, mean_loss

Rule = Literal[
    "minimum", "maximum", "random", "minimum_layer", "maximum_layer", "random_layer", "apoz", "apoz_layer", "oracle"
]  # fmt: skip


@dataclass(frozen=True)
class Loop:
    """What a round drops, and when to stop. The defaults are the paper's.

    `share` of the units that are left goes per round, at least one; 0 drops one at a time. The loop ends with at most
    `least` of all units, or with the round after one whose validation metric has `fallen` to `kappa` times the first's.
    """

    rule: Rule = "minimum_layer"
    share: float = 0.2
    least: float = 0.1
    kappa: float = 0.0
    seed: int = 0
    training: Schedule = AS_PUBLISHED

    def __post_init__(self) -> None:
        if self.rule not in get_args(Rule):
            raise RequestError(f"there is no rule '{self.rule}'; the rules are {', '.join(get_args(Rule))}")
        if not (0 <= self.share < 1 and 0 <= self.least < 1 and 0 <= self.kappa <= 1):
            raise RequestError(
                f"share ({self.share}) and least ({self.least}) must be at least 0 and below 1, "
                f"kappa ({self.kappa}) between 0 and 1"
            )

    @property
    def by_layer(self) -> bool:
        """True where every layer drops its own share."""
        return self.rule.endswith("_layer")

    def fallen(self, now: Round, first: Round, metric: Metric) -> bool:
        """True where the metric is at most `kappa` times the first round's, or at least 1 / `kappa` of an error."""
        worse, better = now.validation_score, first.validation_score
        return worse <= self.kappa * better if metric.higher_is_better else better <= self.kappa * worse


def filters_of(net: Net, coupling: Coupling) -> list[str]:
    """Return the names of the groups that a convolution makes; of all groups where none does."""
    made = [group.name for group in coupling.groups if net[next(group.of("out")).node].op == "conv2d"]
    return made or [group.name for group in coupling.groups]


def counts_per_round(sizes: Sequence[int], loop: Loop) -> list[tuple[int, ...]]:
    """Return how many units each round has: of every layer, or of all together, as the rule drops them.

    A step takes the whole part of the share, at least one unit, and never a layer's last.
    """
    counts = tuple(sizes) if loop.by_layer else (sum(sizes),)
    fewest = 1 if loop.by_layer else len(sizes)
    plan = [counts]
    while sum(counts) > loop.least * sum(sizes) and max(counts) > fewest:
        counts = tuple(max(n - max(int(loop.share * n), 1), fewest) for n in counts)
        plan.append(counts)
    return plan


def without(last: Round, coupling: Coupling, counts: Sequence[int], data: Dataset, loop: Loop, *, task: Task) -> Keep:
    """Return what the round after `last` keeps: `counts` of every layer or in all. `coupling` is the whole net's."""
    if loop.rule == "oracle":
        return _greedy(last, coupling, counts[0], data, task)
    rng = np.random.default_rng((loop.seed, last.units))
    sizes = {group.name: group.size for group in coupling.groups}
    every = {name: np.full(sizes[name], -np.inf) for name in last.keep}  # what is gone goes first
    for name, score in _scores(last, coupling, data, loop, rng).items():
        every[name][last.keep[name]] = score
    left = dict(zip(every, counts, strict=True)) if loop.by_layer else counts_left(every, counts[0], rng)
    return choose(coupling, {name: left[name] / sizes[name] for name in every}, scores=ranked(every, rng))


def activations(last: Round, coupling: Coupling, data: Dataset) -> dict[str, tuple[Score, Score]]:
    """Return, per group, mean |a| and the share of a that is not zero, of each unit left: two of [kept].

    a is what comes out of the activation behind the first layer that makes the units, before any pooling: over the
    images of the train part, plain and in eval mode, and over all positions.
    """
    groups = [group for group in coupling.groups if group.name in last.keep]
    values = {group.name: _behind_activation(last.net, group) for group in groups}
    sums = _sums(last.net, tuple(dict.fromkeys(values.values())), data)
    alive = coupling.alive(last.keep)
    found = {}
    for group in groups:
        components = coupling.values[values[group.name]]  # of the whole net: [1, ...], 1 where none are told apart
        alike = tuple(axis for axis, size in enumerate(components.shape) if axis and size == 1)
        means = sums[values[group.name]].numpy().mean(alike).reshape(2, -1)  # [2, positions left]
        left = components[alive[components]]
        of_unit = np.equal.outer(group.components[last.keep[group.name]], left)  # [kept, positions left]
        size, nonzero = (means @ of_unit.T) / of_unit.sum(1)
        found[group.name] = size, nonzero
    return found


def _sums(net: Net, values: tuple[str, ...], data: Dataset) -> dict[str, Tensor]:
    """Mean |a| and share of a != 0 over the train part, per element of each value: [2, *value]."""
    module = module_of(without_dead_ends(replace(net, outputs=values)))
    sums = {name: torch.zeros(2, *net[name].shape[1:], dtype=torch.float64) for name in values}
    with torch.no_grad():
        for inputs, _ in data.batches("train", 128):
            for name, value in zip(values, returned(module, inputs), strict=True):
                sums[name] += torch.stack([value.abs().sum(0), (value != 0).sum(0)])
    return {name: total / data.size("train") for name, total in sums.items()}


def _behind_activation(net: Net, group: ChannelGroup) -> str:
    """The value of the first elementwise operator that follows the group's first layer, perhaps behind a norm."""
    name = next(group.of("out")).node
    while len(net.readers[name]) == 1:
        reader = net[net.readers[name][0]]
        passage = op_of(reader.op).channels
        if passage not in ("each", "norm", "join") or len(reader.reads) != 1:
            break
        name = reader.name
        if passage == "join":
            break
    return name


def _scores(last: Round, coupling: Coupling, data: Dataset, loop: Loop, rng: np.random.Generator) -> dict[str, Score]:
    """The scores of the units that are left; the lowest will go."""
    rule = loop.rule.removesuffix("_layer")
    if rule == "random":
        return {name: rng.random(len(kept)) for name, kept in last.keep.items()}
    seen = activations(last, coupling, data)
    if rule == "apoz":
        return {name: nonzero for name, (_, nonzero) in seen.items()}
    sign = -1 if rule == "maximum" else 1
    return {name: sign * size for name, (size, _) in seen.items()}


def _greedy(last: Round, coupling: Coupling, left: int, data: Dataset, task: Task) -> Keep:
    """Try every single removal, keep the best, and so on until `left` units are left."""
    net, keep = last.net, last.keep
    while sum(map(len, keep.values())) > left:
        tries = _removals(net, keep, coupling)
        net, keep = min(tries, key=lambda tried: mean_loss(module_of(tried[0]), data, "train", task))
    return keep


def _removals(net: Net, keep: Keep, coupling: Coupling) -> Iterator[tuple[Net, Keep]]:
    """The net, which has the units `keep`, without each single one of them; no group loses its last."""
    units = {
        int(group.components[unit]): (group.name, unit)
        for group in coupling.groups
        for unit in keep.get(group.name, ())
        if len(keep[group.name]) > 1
    }
    alive, small = coupling.alive(keep), couple(net)
    for group in small.groups:
        place = next(group.of("out"))
        components = coupling.places[place.node, "out"]
        origins = components[alive[components]][place.positions[:, 0]]  # [size] of the whole net's
        for channel, origin in enumerate(origins.tolist()):
            if origin in units:
                name, unit = units[origin]
                without = cut(net, {group.name: np.delete(np.arange(group.size), channel)}, small)
                yield without, {**keep, name: keep[name][keep[name] != unit]}
