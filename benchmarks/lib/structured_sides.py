"""The sides of `structured_vs_peers`: each makes of one trained net a model of at most so many multiply-accumulates.

All see the same calibration images. Where a method has a knob (a share of channels, a share of ranks), it is set by
bisection so that the count, taken by slimwright on a fresh capture for all alike, comes as near to the wanted one as it
can from below. Counts are torch's own, of convolutions and linear layers; slimwright's agree with them exactly.
"""

import copy
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TypeAlias

import numpy as np
import tensorly
import torch
from numpy.typing import NDArray
from tensorly.decomposition import parafac, partial_tucker
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from lib.grail import RIDGES, SELECTORS, Grams, Scores, channel_scores, compensated, inner_groups, input_grams
from lib.kept_nets import Arrays, as_arrays, as_orders, found_once
from lib.torch_pruning_side import IMPORTANCES, SCOPES, by_torch_pruning
from slimwright.cost import count
from slimwright.cost.latency import LatencyTable, one_by_one
from slimwright.coupling import Coupling, cut
from slimwright.coupling.views import Ids
from slimwright.data import Labelled
from slimwright.evidence import Evidence, observe
from slimwright.graph import Net
from slimwright.search import Plan, Predictor, Problem, factorisable, problem, solve
from slimwright.tasks import Classification
from slimwright.techniques.importance import keep_by_score, scores
from slimwright.techniques.low_rank import factorise
from slimwright.techniques.prune import Removal, removals
from slimwright.techniques.ranks import rank_damages
from slimwright.techniques.solver.draft import Draft
from slimwright.techniques.solver.refit import refit

OURS, GRAIL = "slimwright", "GRAIL"
CHANNEL_WEIGHTS = (None, 1.0, 10.0)  # how much a removed channel counts beside a lost rank
STEP = 2  # channels and ranks are multiples of it: no runtime is asked here
BISECTIONS = 9
RANK = "ranks of "
RULES = (("l1", "layer"), ("apoz", "layer"), ("dropnet", "global"), ("dropnet", "layer"))


# What a method makes of a net at one share of its MACs, by setting: the best counts for it. Most have one setting, "".
Made: TypeAlias = Mapping[str, nn.Module]
Side: TypeAlias = Callable[["Subject", float], Made]


@dataclass(frozen=True)
class Choices:
    """The channels that may go, in order, and the ranks that may fall, with what each is predicted to cost."""

    orders: Mapping[str, Removal]
    ranks: Mapping[str, NDArray[np.float64]]
    predictor: Predictor

    def problem(self, channel_weight: float | None) -> Problem:
        """Return the choice of channels and ranks under a limit on MACs; with None of channels alone."""

        def costs(counts: Mapping[str, int]) -> Mapping[str, float]:
            return {"macs": float(self.predictor.macs(counts))}

        if channel_weight is None:
            return problem(self.orders, self.predictor, costs)
        return problem(self.orders, self.predictor, costs, ranks=self.ranks, channel_weight=channel_weight)

    def keep(self, plan: Plan) -> dict[str, NDArray[np.int64]]:
        """Return the channels that a plan keeps of each group it cuts."""
        return {
            name: removal.keep(plan.counts[name])
            for name, removal in self.orders.items()
            if plan.counts[name] < len(removal.order)
        }


@dataclass(frozen=True)
class Subject:
    """A trained net and what was observed of it, once for all sides."""

    net: Net
    coupling: Coupling
    evidence: Evidence
    calibration: Labelled  # on the device that computes
    held_out: Tensor  # images of the validation part, there too
    seed: int
    folder: Path  # where what the evidence says is kept

    @property
    def device(self) -> str:
        """The device of torch that computes."""
        return str(self.held_out.device)

    def whole(self) -> nn.Module:
        """The net as a module, where it computes."""
        return self.net.to_module().to(self.device)

    @cached_property
    def grams(self) -> Grams:
        """What GRAIL observes: of each layer, the Gram matrix over the channels that it reads."""
        return input_grams(self.net, self.calibration[0])

    @cached_property
    def choices(self) -> Choices:
        """What a plan chooses from, for all shares; what the evidence says of it is found once, on the processor."""
        ranks = factorisable(self.net, self.evidence, STEP)
        predictor = Predictor(self.net, self.coupling, LatencyTable(one_by_one(_untimed), None, {}), STEP, ranks=ranks)

        def find() -> Arrays:
            orders, damages = (
                removals(self.net, self.evidence, self.coupling),
                rank_damages(self.net, self.evidence, predictor.sizes),
            )
            return as_arrays(orders) | {RANK + name: damage for name, damage in damages.items()}

        found = found_once(self.folder / f"damages-{self.net.digest[:12]}.npz", find)
        damages = {name.removeprefix(RANK): array for name, array in found.items() if name.startswith(RANK)}
        return Choices(as_orders(found), damages, predictor)


def by_slimwright(subject: Subject, share: float) -> Net:
    """Channels and ranks by plan, then solved: of some plans the net whose scores on held-out images stray least."""
    with torch.no_grad():
        wanted = subject.whole()(subject.held_out).log_softmax(1)

    def strayed(net: Net) -> float:
        with torch.no_grad():
            found = net.to_module().to(subject.device)(subject.held_out).log_softmax(1)
        return float(F.kl_div(found, wanted, reduction="batchmean", log_target=True))

    return min((_planned(subject, share, weight) for weight in CHANNEL_WEIGHTS), key=strayed)


def _planned(subject: Subject, share: float, channel_weight: float | None) -> Net:
    """The net of one plan. None: layers keep their ranks."""
    net, choices = subject.net, subject.choices
    predictor = choices.predictor
    task = choices.problem(channel_weight)
    plan = solve(task, {"macs": share * count(net).macs})
    draft = Draft.of(net).cut(choices.keep(plan), subject.coupling)
    factors = predictor.factors(plan.counts)
    seen = evidence_on(draft.net, subject) if factors else None
    thin = factorise(draft.net, factors, seen, device=subject.device)
    return refit(draft.changed(thin, {}), subject.calibration[0], device=subject.device).net


def evidence_on(net: Net, subject: Subject) -> Evidence:
    """Evidence of a net on the calibration images, added up over classes."""
    images, labels = (part.cpu() for part in subject.calibration)
    batches = zip(images.split(64), torch.zeros_like(labels).split(64), strict=True)
    return observe(net, batches, task=_together(net), seed=subject.seed, device=subject.device)


def _together(net: Net) -> Classification:
    """The task of a classifier: all labels are zero, so that its sums are kept as one."""
    return Classification(tuple(map(str, range(net[net.outputs[0]].shape[1]))))


def _untimed(_: object) -> float:
    return 0.0


def by_rule(subject: Subject, share: float, rule: str, scope: str, *, solved: bool) -> Net:
    """Channels by one of the papers' scores, and the weights as they are, or solved again."""
    found = scores(subject.net, subject.coupling, rule, evidence=subject.evidence, seed=subject.seed)  # type: ignore[arg-type]

    def pruned(left: float) -> Net:
        keep = keep_by_score(subject.coupling, found, left, scope=scope, seed=subject.seed)  # type: ignore[arg-type]
        return cut(subject.net, keep, subject.coupling)

    left = bisected(lambda left: count(pruned(left)).macs / count(subject.net).macs, share)
    if not solved:
        return pruned(left)
    keep = keep_by_score(subject.coupling, found, left, scope=scope, seed=subject.seed)  # type: ignore[arg-type]
    draft = Draft.of(subject.net).cut(keep, subject.coupling)
    return refit(draft, subject.calibration[0], device=subject.device).net


def by_grail(subject: Subject, share: float, selector: str) -> dict[str, nn.Module]:
    """Channels by a selector, and readers that reconstruct them: all groups or inner ones alone, by several ridges."""
    orders = subject.choices.orders if selector == SELECTORS[-1] else {}
    every = channel_scores(subject.net, subject.coupling, selector, grams=subject.grams, orders=orders)
    inner = inner_groups(subject.coupling)
    scopes = {"all groups": every, "inner groups": {name: score for name, score in every.items() if name in inner}}
    if inner.issuperset(every):
        del scopes["inner groups"]  # the same
    made: dict[str, nn.Module] = {}
    for scope, judged in scopes.items():
        pruned, keep = _pruned_to(subject, judged, share)
        if made and count(pruned).macs > share * count(subject.net).macs:
            continue  # inner groups alone do not come down so far
        for ridge in RIDGES:
            small = compensated(subject.net, subject.coupling, keep, subject.grams, ridge)
            made[f"{scope}, ridge {ridge:g}"] = small.to_module()
    return made


def _pruned_to(subject: Subject, judged: Scores, share: float) -> tuple[Net, dict[str, Ids]]:
    """The net with the same share of each judged group, at most at `share` of its MACs, and the channels it keeps."""
    net, coupling = subject.net, subject.coupling

    def kept(left: float) -> dict[str, Ids]:
        return keep_by_score(coupling, judged, left, seed=subject.seed)

    whole = count(net).macs
    keep = kept(bisected(lambda left: count(cut(net, kept(left), coupling)).macs / whole, share))
    return cut(net, keep, coupling), keep


def by_peer(subject: Subject, share: float, importance: str, scope: str) -> nn.Module:
    """Channels by torch-pruning."""
    whole, image = subject.whole(), subject.calibration[0][:1]

    def pruned(left: float) -> nn.Module:
        return by_torch_pruning(whole, subject.calibration, 1 - left, importance=importance, scope=scope)

    before = count(subject.net).macs
    return pruned(bisected(lambda left: macs_of(pruned(left), image) / before, share))


def by_tensorly(subject: Subject, share: float, kind: str) -> nn.Module:
    """Every convolution above 1x1 decomposed by TensorLy (Kossaifi et al. 2019), at the same share of its ranks."""
    whole = subject.whole()
    tensorly.set_backend("pytorch")
    image, before = subject.calibration[0][:1], count(subject.net).macs

    def decomposed(left: float, *, fast: bool) -> nn.Module:
        small = copy.deepcopy(whole)
        for name, module in list(small.named_modules()):
            if isinstance(module, nn.Conv2d) and _is_thick(module):
                made = (_tucker if kind == "Tucker" else _polyadic)(module, left, fast=fast, seed=subject.seed)
                parent, _, last = name.rpartition(".")
                setattr(small.get_submodule(parent), last, made)
        return small.eval().to(subject.device)

    left = bisected(lambda left: macs_of(decomposed(left, fast=True), image) / before, share)
    return decomposed(left, fast=False)


def _is_thick(conv: nn.Conv2d) -> bool:
    return conv.groups == 1 and conv.kernel_size != (1, 1) and conv.in_channels >= 8


def _tucker(conv: nn.Conv2d, left: float, *, fast: bool, seed: int) -> nn.Module:
    outputs, inputs = (max(round(n * left), 1) for n in (conv.out_channels, conv.in_channels))
    first, last = nn.Conv2d(conv.in_channels, inputs, 1, bias=False), nn.Conv2d(outputs, conv.out_channels, 1)
    middle = _like(conv, inputs, outputs)
    if not fast:
        (core, factors), _ = partial_tucker(
            conv.weight.detach(), rank=[outputs, inputs], modes=[0, 1], random_state=seed
        )
        middle.weight.data.copy_(core)
        last.weight.data.copy_(factors[0][:, :, None, None])
        first.weight.data.copy_(factors[1].T[:, :, None, None])
    return _with_bias(nn.Sequential(first, middle, last), conv)


def _polyadic(conv: nn.Conv2d, left: float, *, fast: bool, seed: int) -> nn.Module:
    rank = max(round(2 * max(conv.out_channels, conv.in_channels) * left), 1)
    first, last = nn.Conv2d(conv.in_channels, rank, 1, bias=False), nn.Conv2d(rank, conv.out_channels, 1)
    middle = _like(conv, rank, rank, groups=rank)
    if not fast:
        kernel = conv.weight.detach().flatten(2)
        weights, factors = parafac(kernel, rank=rank, init="random", random_state=seed, n_iter_max=100)
        last.weight.data.copy_((factors[0] * weights)[:, :, None, None])
        first.weight.data.copy_(factors[1].T[:, :, None, None])
        middle.weight.data.copy_(factors[2].T.reshape(middle.weight.shape))
    return _with_bias(nn.Sequential(first, middle, last), conv)


def _like(conv: nn.Conv2d, inputs: int, outputs: int, *, groups: int = 1) -> nn.Conv2d:
    """A convolution that slides as `conv` does."""
    made = nn.Conv2d(inputs, outputs, 1, groups=groups, bias=False)
    made.kernel_size, made.stride, made.padding, made.dilation = (
        conv.kernel_size, conv.stride, conv.padding, conv.dilation,
    )  # fmt: skip
    made.weight = nn.Parameter(torch.zeros(outputs, inputs // groups, *conv.kernel_size))
    return made


def _with_bias(layers: nn.Sequential, conv: nn.Conv2d) -> nn.Sequential:
    last = layers[-1]
    assert isinstance(last, nn.Conv2d) and last.bias is not None
    last.bias.data.copy_(torch.zeros(conv.out_channels) if conv.bias is None else conv.bias.detach())
    return layers


def macs_of(model: nn.Module, image: Tensor) -> int:
    """Multiply-accumulates of convolutions and linear layers for one image, as torch counts them."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(image)
    return int(counter.get_total_flops()) // 2


def bisected(share_at: Callable[[float], float], wanted: float) -> float:
    """The largest setting of a knob, 0..1, at which the share of the MACs is at most what is wanted."""
    low, high = 0.02, 1.0
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        low, high = (middle, high) if share_at(middle) <= wanted else (low, middle)
    return low


def sides(*, quick: bool) -> Iterator[tuple[str, Side]]:
    """Every method by name: ours first, then the peers, then the papers' rules with and without our solver."""
    yield OURS, lambda s, share: {"": by_slimwright(s, share).to_module()}
    for kind in IMPORTANCES:
        for scope in [""] if quick else SCOPES:
            yield f"torch-pruning {kind}{scope}", _bound(by_peer, kind, scope)
    for kind in ["Tucker"] if quick else ["Tucker", "CP"]:
        yield f"TensorLy {kind}", _bound(by_tensorly, kind)
    for selector in SELECTORS[1:2] if quick else SELECTORS:
        yield f"{GRAIL}, {selector}", _grail(selector)
    for rule, scope in () if quick else RULES:
        for solved in (False, True):
            name = f"{rule}, {scope}{', solved' if solved else ''}"
            yield name, _rule(rule, scope, solved=solved)


def _bound(make: Callable[..., nn.Module], *options: str) -> Side:
    return lambda subject, share: {"": make(subject, share, *options)}


def _grail(selector: str) -> Side:
    return lambda subject, share: by_grail(subject, share, selector)


def _rule(rule: str, scope: str, *, solved: bool) -> Side:
    return lambda subject, share: {"": by_rule(subject, share, rule, scope, solved=solved).to_module()}
