"""At which ranks layers are factorised: by sensitivity, by a ratio, or by what each rank is predicted to cost.

**By sensitivity** (Astrid and Lee 2017, arXiv 1701.07148): each layer alone is factorised at a small rank and the loss
measured; convolutions share one total of ranks, linear layers another, in proportion to how much the loss rose.
**By a ratio**: the largest rank at which no more than a share of the weights is left; for cp it is
floor((1 - c) O I K^2 / (O + I + K^2)), as in nnabla. **Aligned**: rounded up to what a runtime likes; the paper's own
ranks are not, and cost ONNX Runtime most of what they save (`benchmarks/low_rank.py`). **By damage**: the error of the
outputs, weighted by half their Fisher information, in nats of loss, as that of a removed channel is (`prune.py`); the
sum over layers neglects how errors combine. Exact for one layer of kind svd or output; for input that of a start from
which `factorise` goes on; for cp and cp4 scaled to what it was found to be at three ranks.
"""

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from math import prod

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from slimwright.compute import placed
from slimwright.errors import DataError, RequestError
from slimwright.evidence import Evidence
from slimwright.graph.net import Net, Node
from slimwright.progress import Event, Tell, silent
from slimwright.techniques.decompose import Metric, input_errors, pair_errors
from slimwright.techniques.low_rank import (
    Factors,
    Kind,
    decomposed,
    factorise,
    groups_of,
    kernels,
    metrics,
    most_ranks,
    pieces,
)
from slimwright.techniques.polyadic import polyadic_errors

IN_RANK, OUT_RANK, CP_RANK = "input rank of ", "output rank of ", "CP rank of "
RANKS = (IN_RANK, OUT_RANK, CP_RANK)  # and a layer's name: knobs beside the groups
KIND_OF: Mapping[str, Kind] = {IN_RANK: "input", OUT_RANK: "output", CP_RANK: "cp"}
TRIAL_RANK = 5  # what a reproduction of Astrid and Lee uses


def ranks_by_sensitivity(
    net: Net,
    kinds: Mapping[str, Kind],
    loss: Callable[[Net], float],
    *,
    totals: Mapping[str, int],
    trial: int = TRIAL_RANK,
    tell: Tell = silent,
) -> dict[str, Factors]:
    """Return the factors of each layer of `kinds`, their ranks in proportion to how its trial raises the loss.

    `loss` measures a net, on images that are neither taught nor tested: its mean loss, or the share it gets wrong.
    `totals` gives the sum of the ranks for each op, "conv2d" and "linear". Ranks are multiples of a layer's groups, and
    as near to the total as these allow. Raises RequestError, naming the layer or the op, where a layer cannot be
    factorised so or a total is missing or too small.
    """
    whole, rises = loss(net), {}
    for done, (name, kind) in enumerate(kinds.items(), 1):
        (limit,), groups = _one_rank(net, name, kind), groups_of(net[name])
        rank = min(-(-trial // groups) * groups, limit)
        rises[name] = max(loss(factorise(net, {name: Factors(kind, (rank,))})) - whole, 0.0)
        tell(Event("sensitivity", done, len(kinds), f"{net.paths[name]}: {rises[name]:+.3f}"))
    ranks: dict[str, int] = {}
    for op in dict.fromkeys(net[name].op for name in kinds):
        if op not in totals:
            raise RequestError(f"there are {op} layers to factorise, but no total of their ranks; give one for '{op}'")
        ranks |= _apportioned(totals[op], net, {n: (kinds[n], rises[n]) for n in kinds if net[n].op == op})
    return {name: Factors(kind, (ranks[name],)) for name, kind in kinds.items()}


def rank_for_ratio(net: Net, name: str, kind: Kind, removed: float) -> int:
    """Return the largest rank at which at least the share `removed` of a layer's weights is gone.

    It is 1 in each group at least. Raises RequestError, naming the layer, where it cannot be factorised so.
    """
    (limit,), groups = _one_rank(net, name, kind), groups_of(net[name])
    each = sum(prod(piece.weight) for piece in pieces(net, name, Factors(kind, (groups,))))  # one rank in each group
    left = (1 - removed) * net.tensors[net[name].tensors["weight"]].numel()
    return min(max(int(left // each), 1) * groups, limit)


def aligned(net: Net, factors: Mapping[str, Factors], step: int) -> dict[str, Factors]:
    """Return the factors with ranks rounded up to multiples of `step` in each group, or to the largest there are.

    A runtime that works on blocks of channels can take longer for fewer of them; see `LatencyTable.step`.
    """
    found = {}
    for name, wanted in factors.items():
        whole = step * groups_of(net[name])
        most = most_ranks(net, name, wanted.kind)
        ranks = (min(-(-rank // whole) * whole, limit) for rank, limit in zip(wanted.ranks, most, strict=True))
        found[name] = Factors(wanted.kind, tuple(ranks))
    return found


def damages(
    net: Net, evidence: Evidence, kinds: Mapping[str, Kind], *, device: str = "cpu", tell: Tell = silent
) -> dict[str, NDArray[np.float64]]:
    """Return the predicted damage of each layer of `kinds`, in nats, at ranks 0, g, 2g ... where g is its groups.

    The last is that of the largest rank that costs no more weights than the layer has. At rank 0 the layer gives its
    mean. `device` computes. Raises RequestError, naming the layer, where it cannot be factorised so, and DataError
    where it was not observed.
    """
    every = damages_by_kind(net, evidence, {name: (kind,) for name, kind in kinds.items()}, device=device, tell=tell)
    return {name: every[name][kind] for name, kind in kinds.items()}


def damages_by_kind(
    net: Net, evidence: Evidence, kinds: Mapping[str, Sequence[Kind]], *, device: str = "cpu", tell: Tell = silent
) -> dict[str, dict[Kind, NDArray[np.float64]]]:
    """Return what `damages` does for several kinds of each layer."""
    there, seen = net.on(device), evidence.summed_for(net).on(device)
    found: dict[str, dict[Kind, NDArray[np.float64]]] = {}
    for done, (name, wanted) in enumerate(kinds.items()):
        tell(Event("price ranks", done, len(kinds), net.paths[name]))
        with placed(device):
            node = there[name]
            pairs = zip(kernels(there, node), _observed(there, node, seen), strict=True)
            parts = [(kernel, metric, metric.covariance @ kernel.double().flatten(1).T) for kernel, metric in pairs]
            found[name] = {}
            for kind in wanted:
                steps = rank_for_ratio(there, name, kind, 0.0) // groups_of(node)
                errors = [_errors(kernel, kind, steps, metric, pull) for kernel, metric, pull in parts]
                found[name][kind] = torch.stack(errors).sum(0).cpu().numpy()
    tell(Event("price ranks", len(kinds), len(kinds)))
    return found


def damage(net: Net, evidence: Evidence, factors: Mapping[str, Factors]) -> dict[str, float]:
    """Return the predicted damage of each layer, in nats, by these factors, of any kind; each is decomposed for it.

    Raises RequestError, naming the layer, where it cannot be factorised so, and DataError where it was not observed.
    """
    seen = evidence.summed_for(net)
    found = {}
    for name, wanted in factors.items():
        pieces(net, name, wanted)
        parts = zip(
            kernels(net, net[name]),
            decomposed(net, net[name], wanted, seen),
            _observed(net, net[name], seen),
            strict=True,
        )
        found[name] = sum(m.error(kernel.double().flatten(1) - part.composed()) for kernel, part, m in parts)
    return found


def _one_rank(net: Net, name: str, kind: Kind) -> tuple[int, ...]:
    most = most_ranks(net, name, kind)
    if len(most) != 1:
        raise RequestError(f"layer '{name}': {kind} has {len(most)} ranks, which no single number can give")
    return most


def _observed(net: Net, node: Node, seen: Evidence) -> list[Metric]:
    found = [metric for metric in metrics(net, node, seen) if metric is not None]
    if not found:
        raise DataError(f"layer '{node.name}' was not observed: nothing says what factorising it costs")
    return found


def _errors(kernel: Tensor, kind: Kind, most: int, metric: Metric, pull: Tensor) -> Tensor:
    """The error [most + 1] of one group's weights at each rank; `pull` is the covariance times them."""
    if kind in ("svd", "output"):
        return pair_errors(kernel.flatten(1), metric, pull)[: most + 1]
    if kind == "input":
        return input_errors(kernel.flatten(2), metric, pull)[: most + 1]
    return polyadic_errors(kernel if kind == "cp4" else kernel.flatten(2), most, metric, pull)


def _apportioned(total: int, net: Net, layers: Mapping[str, tuple[Kind, float]]) -> dict[str, int]:
    """Ranks in proportion to each layer's rise, by steps of its groups: the next step goes where most is missing."""
    steps = {name: groups_of(net[name]) for name in layers}
    limits = {name: most_ranks(net, name, kind)[0] for name, (kind, _) in layers.items()}
    if total < sum(steps.values()):
        raise RequestError(
            f"ranks that sum to {total} are too few for {', '.join(layers)}: give {sum(steps.values())} or more"
        )
    rise = sum(rise for _, rise in layers.values())
    shares = {name: total * (r / rise if rise else 1 / len(layers)) for name, (_, r) in layers.items()}
    ranks = dict(steps)
    while True:
        left = total - sum(ranks.values())
        open_to = [n for n in layers if steps[n] <= left and ranks[n] + steps[n] <= limits[n]]
        if not open_to:
            return ranks
        name = max(open_to, key=lambda n: (shares[n] - ranks[n]) / steps[n])
        ranks[name] += steps[name]


def rank_kinds(net: Net, settings: Iterable[Hashable]) -> dict[str, dict[str, Kind]]:
    """Return which kind of factors each key of `settings` that is a rank belongs to: by layer, and what it is of."""
    wanted = set(settings)
    kinds: dict[str, dict[str, Kind]] = {}
    for node in net.weighted():
        of: dict[str, Kind] = {item: kind for item, kind in KIND_OF.items() if item + node.name in wanted}
        if of:
            kinds[node.name] = {item: "svd" if node.op == "linear" else kind for item, kind in of.items()}
    return kinds


def rank_damages(
    net: Net, evidence: Evidence, settings: Iterable[Hashable], *, device: str = "cpu", tell: Tell = silent
) -> dict[str, NDArray[np.float64]]:
    """Return the predicted damage in nats [R + 1], at rank 0, 1, 2 ..., of every key of `settings` that is a rank.

    `device` computes. Raises DataError where a layer was not observed.
    """
    kinds = rank_kinds(net, settings)
    found = damages_by_kind(
        net, evidence, {name: tuple(of.values()) for name, of in kinds.items()}, device=device, tell=tell
    )
    return {item + name: found[name][kind] for name, of in kinds.items() for item, kind in of.items()}
