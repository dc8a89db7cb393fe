"""How important each channel of a group is, by the rules that are in use: one number per channel, higher for more.

    random    uniform, from a seed
    l1, l2    norm of the weights that write the channel (Li et al. 2017, arXiv 1608.08710), over the mean norm in its
              layer so that layers compare; the mean over all layers that write the group
    taylor    how much the loss changes, to first order, without the channel (Molchanov et al. 2017, arXiv 1611.06440)
    apoz      1 - the share of zeros among the channel's values (Hu et al. 2016, arXiv 1607.03250)
    dropnet   mean |value| (Tan and Motani 2020, arXiv 2207.06646)

The last three come from evidence, which is taken where the group's first observed layer reads it: behind the
activation, and behind pooling where there is some. `orders` makes removal orders of any scores, for the planner;
`keep_by_score` a choice at one share, for `cut`. Either may be followed by the refit or not.
"""

from collections.abc import Mapping
from typing import Literal, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from slimwright.coupling.balance import choose
from slimwright.coupling.channels import ChannelGroup, Coupling, Cut
from slimwright.coupling.views import Ids
from slimwright.errors import DataError, RequestError
from slimwright.evidence import Evidence
from slimwright.graph.net import Net
from slimwright.graph.ops import op_of
from slimwright.techniques.prune import Removal

Rule = Literal["random", "l1", "l2", "taylor", "apoz", "dropnet"]
Scope = Literal["layer", "global"]
Score: TypeAlias = NDArray[np.float64]  # [size of the group]


def scores(
    net: Net, coupling: Coupling, rule: Rule, *, evidence: Evidence | None = None, seed: int = 0
) -> dict[str, Score]:
    """Return the scores [size] of every group that the rule can judge; evidence may hold several classes.

    Left out are groups that no observed layer reads or, by `l1` and `l2`, that no weight matrix writes. Raises
    DataError where the rule needs evidence and there is none, or where it is another net's.
    """
    if rule == "random":
        rng = np.random.default_rng(seed)
        return {group.name: rng.random(group.size) for group in coupling.groups}
    if rule in ("l1", "l2"):
        norms = {group.name: weight_norms(net, group, 1 if rule == "l1" else 2) for group in coupling.groups}
        return {name: norm.numpy() for name, norm in norms.items() if norm is not None}
    if evidence is None:
        raise DataError(f"importance by '{rule}' is computed from evidence; observe this net first")
    seen = evidence.summed_for(net)
    judge = {"taylor": taylor_losses, "apoz": shares_of_nonzeros, "dropnet": activation_means}[rule]
    return {group.name: judge(seen, group).numpy() for group in coupling.groups if _reader(seen, group) is not None}


def weight_norms(net: Net, group: ChannelGroup, power: int) -> Tensor | None:
    """Return each channel's norm of writing weights over its layer's mean norm, mean over layers [size]; or None."""
    found = []
    for place in group.of("out"):
        node = net[place.node]
        if op_of(node.op).channels == "mix":
            rows = net.tensors[node.tensors["weight"]].detach().double().flatten(1).norm(power, dim=1)  # [C_out]
            found.append((rows / rows.mean().clamp_min(1e-30))[torch.from_numpy(place.positions)].mean(1))
    return torch.stack(found).mean(0) if found else None


def activation_means(evidence: Evidence, group: ChannelGroup) -> Tensor:
    """Return each channel's mean |value| [size] where it is read."""
    place = _first_reader(evidence, group)
    sums = evidence.all().layers[place.node]
    return (sums.magnitude[0] / sums.places[0])[torch.from_numpy(place.positions)].mean(1)


def shares_of_nonzeros(evidence: Evidence, group: ChannelGroup) -> Tensor:
    """Return the share of each channel's values that are not zero [size] where it is read."""
    place = _first_reader(evidence, group)
    sums = evidence.all().layers[place.node]
    return 1 - (sums.zeros[0] / sums.places[0])[torch.from_numpy(place.positions)].mean(1)


def taylor_losses(evidence: Evidence, group: ChannelGroup) -> Tensor:
    """Return each channel's mean |x dL/dx| over images [size]; a channel that is read as several features adds them."""
    place, seen = _first_reader(evidence, group), evidence.all()
    if not int(seen.taylor_images):
        raise DataError("this evidence was observed without taylor; observe again with it, or rank by another rule")
    return (seen.layers[place.node].taylor[0] / seen.taylor_images[0])[torch.from_numpy(place.positions)].sum(1)


def orders(coupling: Coupling, scores: Mapping[str, Score], *, seed: int = 0) -> dict[str, Removal]:
    """Return removal orders, least important channel first; ties are broken by `seed`.

    The damage of a step is the share of the group's score that is gone: 0 to 1, not nats. Groups of which a layer needs
    equal parts are left out, as in `removals`. Raises RequestError for scores that are negative or no numbers.
    """
    found = {}
    rng = np.random.default_rng(seed)
    for name, score in scores.items():
        if not np.isfinite(score).all() or score.min() < 0:
            raise RequestError(f"scores of group '{name}' must be numbers of at least 0; the least is {score.min()}")
        order = np.lexsort((rng.random(len(score)), score))
        gone = np.cumsum(score[order])
        damage = np.concatenate([[0.0], gone[:-1] / max(gone[-1], 1e-30), [np.inf]])
        if name not in coupling.balanced:
            found[name] = Removal(order, damage)
    return found


def keep_by_score(
    coupling: Coupling, scores: Mapping[str, Score], share: float, *, scope: Scope = "layer", seed: int = 0
) -> dict[str, Ids]:
    """Return which channels each scored group keeps, for `cut`: `share` (0..1) of them, those with the highest scores.

    By "layer" every group keeps that share; "global" ranks the channels of all groups together. Every group keeps one
    at least; groups of which a layer needs equal parts keep the share whatever the scope; ties are broken by `seed`.
    To drop the highest scores, give them negative. Raises RequestError for a share outside 0..1.
    """
    rng = np.random.default_rng(seed)
    shares = dict.fromkeys(scores, share)
    if scope == "global":
        free = {name: score for name, score in scores.items() if name not in coupling.balanced}
        counts = counts_left(free, round(share * sum(map(len, free.values()))), rng)
        shares |= {name: count / len(scores[name]) for name, count in counts.items()}
    return choose(coupling, shares, scores=ranked(scores, rng))


def counts_left(scores: Mapping[str, Score], left: int, rng: np.random.Generator) -> dict[str, int]:
    """Return how many channels of each group are among the `left` best of all; the best of each group always is."""
    ranks = ranked(scores, rng)
    for rank in ranks.values():
        rank[rank == rank.max()] = np.inf
    every = np.concatenate(list(ranks.values()) or [np.zeros(0)])
    names = np.repeat(np.arange(len(ranks)), [len(rank) for rank in ranks.values()])
    best = names[np.argsort(-every, kind="stable")[: max(left, len(ranks))]]
    return dict(zip(ranks, np.bincount(best, minlength=len(ranks)).tolist(), strict=True))


def ranked(scores: Mapping[str, Score], rng: np.random.Generator) -> dict[str, Score]:
    """Return the place of each channel among those of all groups, from the lowest score up; ties in random order."""
    every = np.concatenate(list(scores.values()) or [np.zeros(0)])
    places = np.empty(len(every))
    places[np.lexsort((rng.random(len(every)), every))] = np.arange(len(every))
    ends = np.cumsum([len(score) for score in scores.values()])[:-1]
    return dict(zip(scores, np.split(places, ends), strict=True)) if scores else {}


def _reader(evidence: Evidence, group: ChannelGroup) -> Cut | None:
    return next((place for place in group.of("in") if place.node in evidence.layers), None)


def _first_reader(evidence: Evidence, group: ChannelGroup) -> Cut:
    place = _reader(evidence, group)
    if place is None:
        raise DataError(f"no layer that reads group '{group.name}' was observed; rank it by its weights ('l1', 'l2')")
    return place
