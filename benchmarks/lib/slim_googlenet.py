"""Layer slimming of the scale model of GoogLeNet: merge, solve, shrink by the evidence, tune.

What is kept of each layer is chosen here, on images of the calibration part, and priced as the full network's
multiply-accumulates; the full network is then timed at these shares. Validation images say how good a net is. The test
part is not touched here.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from lib.accuracy import accuracy
from lib.kept_nets import Arrays, as_arrays, as_orders, found_once
from slimwright.cost.latency import LatencyTable, one_by_one
from slimwright.coupling import couple
from slimwright.coupling.channels import Coupling
from slimwright.data import Dataset, labelled, whole
from slimwright.errors import ModelError
from slimwright.evidence import observe
from slimwright.graph import Net, load_net, save_net
from slimwright.graph.net import Node, Ref
from slimwright.progress import Tell
from slimwright.search import Predictor, Problem, solve
from slimwright.tasks import Classification
from slimwright.techniques.fold import fold_batch_norm
from slimwright.techniques.merge import branches, merge_branches, streamline, streamlines
from slimwright.techniques.prune import Removal, removals
from slimwright.techniques.solver.draft import Draft
from slimwright.techniques.solver.refit import refit
from slimwright.train import Schedule, fit, paired

NORM_IMAGES = 500
NORM_MOMENTUM, EPSILON = 0.1, 1e-5  # torch's own


def merged(net: Net) -> Draft:
    """Return a net with poolings and norms taken in by its stem's convolutions, and each block's branches two by two.

    Batch norms must have been folded.
    """
    draft = Draft.of(net)
    for conv in streamlines(net):
        draft = streamline(draft, conv)
    for concat in branches(draft.net):
        draft = merge_branches(draft, concat)
    return draft


def reducers(net: Net, coupling: Coupling) -> list[str]:
    """Return the groups of channels that a pointwise convolution gives to one convolution with a larger kernel."""
    found = []
    for group in coupling.groups:
        makers, readers = ({place.node for place in group.of(role)} for role in ("out", "in"))
        if len(makers) == len(readers) == 1 and _kernel(net, *makers) == 1 < _kernel(net, *readers):
            found.append(group.name)
    return found


def _kernel(net: Net, layer: str) -> int:
    """Taps of a layer's kernel, per channel that it reads."""
    return int(net.tensors[net[layer].tensors["weight"]][0, 0].numel())


@dataclass(frozen=True)
class Choice:
    """How many channels each group of the full network keeps, and which ones those are in the scale model."""

    full: Mapping[str, int]
    kept: Mapping[str, list[int]]
    macs: float  # of the full network

    def share(self, net: Net, groups: Iterable[str]) -> float:
        """Return the share of the channels of some groups that is kept, in the full network."""
        chosen = list(groups)
        return sum(self.full[name] for name in chosen) / sum(net[name].shape[1] for name in chosen)


@dataclass(frozen=True)
class Slim:
    """A shrunk and tuned net of the scale model, and the accuracy, on the validation part, before and after tuning."""

    choice: Choice
    net: Net
    solved: float
    tuned: float
    device: str  # of torch, that tuned it


class ScaleModel:
    """The trained net, what the evidence says of it once it is merged, and what was found before, in `folder`.

    `outline` is the full network with merged layers, and `step` the multiple of channels that its runtime likes.
    """

    def __init__(self, net: Net, full: Net, data: Dataset, step: int, folder: Path, *, device: str = "cpu") -> None:
        self.net, self.data, self.step, self.folder, self.device = net, data, step, folder, device
        self.outline = merged(full).net
        self.reducers = reducers(self.outline, couple(self.outline))
        self.groups = [group.name for group in couple(self.outline).groups]
        self.accuracy = accuracy(net.to_module().to(device), data, "validation")

    @cached_property
    def start(self) -> Draft:
        """Merged, with every channel, and solved."""
        place = self.folder / f"merged-{self.net.digest[:12]}"
        draft = merged(self.net)
        try:
            return replace(draft, net=load_net(place))
        except ModelError:
            solved = refit(draft, labelled(whole(self.data, "calibration"))[0], device=self.device)
            save_net(solved.net, place)
            return solved

    @cached_property
    def orders(self) -> dict[str, Removal]:
        """In which order the channels of the merged net go, and what that is predicted to cost."""
        net, task = self.start.net, Classification(self.data.labels)

        def find() -> Arrays:
            batches = self.data.batches("calibration", 64)
            evidence = observe(net, batches, task=task, taylor=False, device=self.device)
            return as_arrays(removals(net, evidence, couple(net)))

        return as_orders(found_once(self.folder / f"orders-{net.digest[:12]}.npz", find))

    def choose(self, most_macs: float, groups: Iterable[str]) -> Choice:
        """Choose how many channels `groups` keep so that the full network takes no more than `most_macs`."""
        table = LatencyTable(one_by_one(lambda _: 0.0), None, {})
        predictor = Predictor(self.outline, couple(self.outline), table, self.step)
        free = set(groups) & self.orders.keys()
        sizes = {name: s if name in free else s[:1] for name, s in predictor.sizes.items()}
        damage = {name: self._damage(name, s[0]) if name in free else _none for name, s in sizes.items()}
        task = Problem(sizes, damage, lambda counts: {"macs": float(predictor.macs(counts))})
        plan = solve(task, {"macs": most_macs})
        kept = {
            name: self.orders[name].keep(self._narrow(name, count, sizes[name][0])).tolist()
            for name, count in plan.counts.items()
            if count < sizes[name][0]
        }
        return Choice(dict(plan.counts), kept, plan.predicted["macs"])

    def _narrow(self, name: str, count: int, size: int) -> int:
        """The scale model's count of channels for one of the full network, where the group has `size`."""
        return round(len(self.orders[name].order) * count / size)

    def _damage(self, name: str, size: int) -> Callable[[int], float]:
        order = self.orders[name]
        return lambda count: float(order.damage[len(order.order) - self._narrow(name, count, size)])

    def slim(
        self, most_macs: float, groups: Iterable[str], schedule: Schedule, *, as_published: bool = False, tell: Tell
    ) -> Slim:
        """Choose, cut, solve and tune, or give back what was found before.

        `as_published` gives all new layers random weights, and ten times the rate of the others.
        """
        place = self._place(schedule, most_macs, sorted(groups), as_published, self.step)
        try:
            net, found = load_net(place), json.loads(place.with_suffix(".json").read_text())
            return Slim(Choice(**found["choice"]), net, found["solved"], found["tuned"], found["device"])
        except (ModelError, FileNotFoundError):
            pass
        if as_published:
            choice = self.slim(most_macs, groups, schedule, tell=tell).choice
            draft, paths = at_random(self._cut(choice), self.net, seed=schedule.seed or 0)
            schedule = replace(schedule, rate=schedule.rate / 10, faster=dict.fromkeys([*paths, "norms"], 10.0))
        else:
            choice = self.choose(most_macs, groups)
            draft = refit(self._cut(choice), labelled(whole(self.data, "calibration"))[0], device=self.device)
        checkpoint = place.with_suffix(".partial")
        done = tuned(draft, self.data, schedule, device=self.device, checkpoint=checkpoint, tell=tell)
        before, after = (
            accuracy(each.net.to_module().to(self.device), self.data, "validation") for each in (draft, done)
        )
        save_net(done.net, place)
        told = {"choice": asdict(choice), "solved": before, "tuned": after, "device": self.device}
        place.with_suffix(".json").write_text(json.dumps(told))
        return Slim(choice, done.net, before, after, self.device)

    def as_long(self, schedule: Schedule, *, tell: Tell) -> Net:
        """Return the original itself tuned as every size is, itself the teacher, or what was found before."""
        place = self._place(schedule, "original")
        try:
            return load_net(place)
        except ModelError:
            checkpoint = place.with_suffix(".partial")
            draft = Draft.of(self.net)
            done = tuned(draft, self.data, schedule, device=self.device, checkpoint=checkpoint, tell=tell)
            save_net(done.net, place)
            return done.net

    def _place(self, schedule: Schedule, *what: object) -> Path:
        """Where something is kept that was tuned on this data by a schedule."""
        said = [self.net.digest, self.data.name, asdict(schedule), *what]
        return self.folder / hashlib.sha256(json.dumps(said).encode()).hexdigest()[:16]

    def _cut(self, choice: Choice) -> Draft:
        return self.start.cut({name: np.array(kept) for name, kept in choice.kept.items()})


def _none(_: int) -> float:
    return 0.0


def tuned(
    draft: Draft, data: Dataset, schedule: Schedule, *, device: str = "cpu", checkpoint: Path, tell: Tell
) -> Draft:
    """Return the draft trained with its reference as teacher: of its scores, and of what its blocks give.

    Without norms a net as deep as this one hardly trains. So each convolution gets a batch norm that at first changes
    nothing, and loses it in the end: both are exact.
    """
    matches = [match for match in draft.matches() if draft.net[match.value].op == "concat"]
    net = normalised(draft.net, labelled(whole(data, "calibration"))[0][:NORM_IMAGES])
    student, teacher = (module.to(device) for module in paired(net, draft.reference, matches))
    fit(student, data, schedule, task=Classification(data.labels), teacher=teacher, checkpoint=checkpoint, tell=tell)
    return replace(draft, net=fold_batch_norm(net.trained(student)))


def normalised(net: Net, images: Tensor) -> Net:
    """Return the net with a batch norm between each convolution and its ReLU that undoes its own normalisation.

    Rows of weights are scaled to the size that they have at the start of a training (He et al. 2015, arXiv 1502.01852):
    behind a norm that changes nothing but how fast they learn.
    """
    pairs = [(net[n.source], n) for n in net.nodes if n.op == "relu" and net[n.source].op == "conv2d"]
    tapped = replace(net, outputs=tuple(conv.name for conv, _ in pairs)).to_module()
    with torch.no_grad():
        values = tapped(images)
    tensors: dict[str, Tensor] = {}
    norms, behind = [], {}
    for (conv, relu), value in zip(pairs, values, strict=True):
        weight, bias = net.tensors[conv.tensors["weight"]], net.tensors[conv.tensors["bias"]]
        scale = 2**0.5 / weight.flatten(1).norm(dim=1).clamp_min(1e-6)  # [C_out]
        mean, deviation = value.mean((0, 2, 3)), value.std((0, 2, 3)).clamp_min(1e-3)
        name = f"{conv.name}_norm"
        roles = {role: f"norms.{conv.name}.{role}" for role in ("weight", "bias", "running_mean", "running_var")}
        given = (deviation, mean, mean * scale, (deviation * scale).square() - EPSILON)
        tensors |= {
            conv.tensors["weight"]: weight * scale[:, None, None, None],
            conv.tensors["bias"]: bias * scale,
            **dict(zip(roles.values(), given, strict=True)),
        }
        norms.append(
            Node(name, "batch_norm", {"input": Ref(conv.name), "momentum": NORM_MOMENTUM, "eps": EPSILON}, roles)
        )
        behind[relu.name] = replace(relu, arguments={"self": Ref(name)})
    return net.edited(behind, added=norms, tensors=tensors)


def at_random(draft: Draft, merged_from: Net, *, seed: int) -> tuple[Draft, list[str]]:
    """Return the draft with every new layer Xavier-initialised, and the paths of these layers (Li et al. 2018)."""
    generator, net = torch.Generator().manual_seed(seed), draft.net
    drawn: dict[str, Tensor] = {}
    paths = []
    for node in net.weighted():
        was = merged_from.tensors[merged_from[node.name].tensors["weight"]]
        now = net.tensors[node.tensors["weight"]]
        alike = was.shape == now.shape and merged_from[node.name].arguments == node.arguments
        if alike or node.op != "conv2d":
            continue
        drawn[node.tensors["weight"]] = nn.init.xavier_uniform_(torch.empty(now.shape), generator=generator)
        drawn[node.tensors["bias"]] = torch.zeros(len(now))
        paths.append(net.paths[node.name])
    return replace(draft, net=net.edited(tensors=drawn)), paths
