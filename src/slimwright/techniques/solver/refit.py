"""Solve new weights so that a draft produces, layer by layer, what its reference produced.

Front to back, at each weighted layer that reads or owns something else than the reference's, the weights become the
ridge least-squares solution

    min_W  E |W x' + b - y|^2 + r |W - W0|^2

where x' is what the draft feeds in, y what the reference gave there (`layer_targets.py`) and W0 the weights so far
(`ridge.py`). The mean is over some positions of every image (`positions.py`).

- Where activations cut off what is wished, y is relaxed in a few rounds: what is made will do where it is cut off too.
- Where a layer stands for nothing and feeds a pointwise one alone, the two are solved as one of that rank: least
  squares for their product, cut down to the leading directions of what it gives (reduced-rank regression, Izenman
  1975).

Batch norms behind are given the statistics of what they read now, weight and bias so that their function stays.

Each layer also corrects the errors of those before it. Exact where the reference lies in the new layer's span. Where
the images are too few for a layer's weights (`ridge.py` judges) only its bias is solved; `Draft.unsolved` tells.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from slimwright.compute import placed, usable
from slimwright.data import Inputs, tensors_of
from slimwright.errors import DataError
from slimwright.evidence import MOST_TAPS, taps
from slimwright.graph.net import Node
from slimwright.graph.ops import op_of
from slimwright.progress import Event, Tell, silent
from slimwright.techniques.fold import affine
from slimwright.techniques.solver.activations import Activation, Activations
from slimwright.techniques.solver.draft import Draft
from slimwright.techniques.solver.drift import drifted, is_part, shared
from slimwright.techniques.solver.layer_targets import FREE, LayerTarget, Wish, pointwise_behind, target_of
from slimwright.techniques.solver.positions import Positions, look, of_layer, of_norm, values_at
from slimwright.techniques.solver.ridge import LayerRidge

RELU_ROUNDS = 3  # our measurement of 2026-11-21: 1 to 5 points at 90 % of the channels removed, more rounds add little


def refit(draft: Draft, inputs: Inputs, *, device: str = "cpu", tell: Tell = silent) -> Draft:
    """Return the draft with its weights solved on calibration inputs, each [N, ...]; the same one if nothing differs.

    Time and memory grow with N, so that candidates can be ranked on a few images. `device` computes; it must know
    float64. Raises DataError where there are no images, or not one tensor for each input of the net, and RequestError
    where there is no such device.
    """
    tensors = tensors_of(inputs)
    count = sum(node.op == "input" for node in draft.net.nodes)
    if len(tensors) != count:
        raise DataError(f"there are {len(tensors)} calibration inputs; the net takes {count}")
    if not len(tensors[0]):
        raise DataError("there are no calibration images to solve the weights on")
    with placed(usable(device)), torch.no_grad():
        return Solver(draft, [tensor.to(device) for tensor in tensors], device, tell).solved()


@dataclass(frozen=True)
class Job:
    """A layer to solve against its target, together with the one `behind`; or a batch norm to state anew."""

    node: Node
    target: LayerTarget | None = None
    behind: Node | None = None

    def states(self, norm: Node) -> bool:
        """True where solving the layer shows the statistics of a batch norm: it reads the layer."""
        stated = self.target.norm if self.target is not None else None
        return stated is not None and stated.name == norm.name and norm.source == self.node.name


class Solver:
    """A draft whose weights are solved, front to back."""

    def __init__(self, draft: Draft, inputs: Sequence[Tensor], device: str, tell: Tell) -> None:
        self.draft, self.tell = draft, tell
        self.net = draft.net.on(device)  # its weights change on the way
        self.drifted, self.shared = drifted(draft), shared(draft.net)
        self.values = Activations(draft.reference.on(device), self.net, self.drifted, inputs)
        self.tensors: dict[str, Tensor] = {}  # solved so far
        self.unsolved: dict[str, str] = {}

    def solved(self) -> Draft:
        """Return the draft with every weight that can be solved; the same one where nothing drifted."""
        if not self.drifted:
            return self.draft
        jobs = self.jobs()
        keys = [self._keys(job) for job in jobs]
        for number, job in enumerate(jobs):
            later = list(dict.fromkeys(key for some in keys[number + 1 :] for key in some))
            positions = self._positions(job)
            chunks = self._chunks(positions, keys[number], later)
            if job.target is None:
                self._state_norm(job.node, positions, chunks)
            else:
                self._solve(job, job.target, positions, chunks)
        steps = len(self.net.nodes)
        self.tell(Event("solve", steps, steps))
        net = self.net.edited(self._with_biases(), tensors=self.tensors)
        return replace(self.draft, net=net.on("cpu"), unsolved=self.unsolved)

    # what is to be done

    def jobs(self) -> list[Job]:
        """Return what is to be done, in the order of the net, and note what cannot be solved."""
        jobs: list[Job] = []
        for node in self.draft.net.nodes:
            if node.name not in self.drifted:
                continue
            if (
                node.op in ("batch_norm", "batch_norm1d")
                and self._can_be_stated(node)
                and not any(job.states(node) for job in jobs)
            ):
                jobs.append(Job(node))
            is_layer = op_of(node.op).channels == "mix"
            if is_layer and (node.source in self.drifted or not is_part(self.draft, node)):
                job = self._job(node)
                if job.target is not None:
                    jobs.append(job)
        return jobs

    def _job(self, node: Node) -> Job:
        """What is to be done about a layer; without a target, nothing can be."""
        target, behind = target_of(self.draft, node), None
        if target is None:
            behind = pointwise_behind(self.draft, node)
            target = target_of(self.draft, behind) if behind is not None else None
        why = ""
        if target is None:
            why = "nothing in the original stands for what it gives"
        elif not self.shared.isdisjoint({node.name, *([behind.name] if behind is not None else [])}):
            why = "other layers own its weights too"
        elif "weight" in node.fixed:
            why = "its weights are fixed"
        elif (size := taps(self.net, node)) > MOST_TAPS:
            why = f"each output has {size} weights, more than the {MOST_TAPS} that are solved for"
        if why:
            self.unsolved[node.name] = why
        return Job(node, None if why else target, behind)

    def _can_be_stated(self, norm: Node) -> bool:
        return norm.name not in self.shared and {"weight", "bias"} <= norm.tensors.keys()

    def _keys(self, job: Job) -> list[Activation]:
        """The values that a job looks at: what the node reads, the reference's, and the other side of a sum."""
        keys = [self.values.key("draft", job.node.source)]
        if job.target is not None:
            keys += [self.values.key("reference", name) for name in job.target.origin.values]
            keys += [self.values.key("draft", job.target.other)] if job.target.other is not None else []
        return keys

    def _positions(self, job: Job) -> Positions:
        images, at_once = self.values.images, self.values.at_once
        if job.target is None:
            return of_norm(job.node, images, at_once)
        return of_layer(self.net, job.node, images, at_once)

    def _chunks(
        self, positions: Positions, keys: Sequence[Activation], later: Sequence[Activation]
    ) -> Iterator[list[Tensor]]:
        """The values of those keys for one chunk of images after another, telling of it."""
        names = [node.name for node in self.net.nodes]
        event = Event("solve", names.index(positions.node.name), len(names), self.net.paths[positions.node.name])
        for values in self.values.walk(list(dict.fromkeys(keys)), later, positions.images):
            yield [values[key] for key in keys]
            self.tell(event)

    # one layer

    def _solve(self, job: Job, target: LayerTarget, positions: Positions, chunks: Iterator[list[Tensor]]) -> None:
        """Solve a layer, or one and the pointwise one behind it as one of limited rank."""
        seen = look(self.net, positions, target.origin, chunks)
        wish = Wish.of(self.net, target, seen.wanted, seen.other)
        ridge = LayerRidge(seen.columns, positions.images)
        if job.behind is None:
            self._solve_one(job.node, target.norm, ridge, wish)
        else:
            self._solve_two(job.node, job.behind, ridge, wish)

    def _solve_one(self, node: Node, norm: Node | None, ridge: LayerRidge, wish: Wish) -> None:
        before, bias_before = self.net.tensors[node.tensors["weight"]], self.net.tensor(node, "bias")
        start = before.flatten(1)
        weight, mean = solution(ridge, start, wish)
        if ridge.thin and torch.equal(weight, start):
            self.unsolved[node.name] = (
                f"{ridge.positions} positions in the images are too few for {start.shape[1]} weights an output; "
                "only its bias was solved"
            )
        weight = torch.where(wish.alive, weight, start)
        bias = mean - ridge.level(weight)
        bias = torch.where(wish.alive[:, 0], bias, torch.zeros_like(bias) if bias_before is None else bias_before)
        self._keep(node.tensors["weight"], weight.reshape(before.shape))
        module = self.net.module_of(node)
        given = ridge.level(weight)
        if bias_before is None and norm is not None and norm.name not in self.shared:
            # a batch norm follows: its mean takes the bias
            name = norm.tensors["running_mean"]
            self._keep(name, self.net.tensors[name] - bias)
        else:
            self._keep(node.tensors.get("bias", f"{self.net.paths[node.name]}.bias"), bias)
            module.bias, given = nn.Parameter(bias), given + bias
        self.values.place(node.name, module)
        if norm is not None and norm.source == node.name and self._can_be_stated(norm):
            self._state(norm, given, ridge.variance(weight))

    def _solve_two(self, node: Node, behind: Node, ridge: LayerRidge, wish: Wish) -> None:
        one, two = (self.net.tensors[each.tensors["weight"]] for each in (node, behind))
        scale = wish.scale.abs()[:, 0].expand(len(two))

        def limited(weight: Tensor) -> Tensor:
            first, last = ridge.factors(weight, scale, len(one))
            return last @ first

        weight, _ = solution(ridge, two.flatten(1) @ one.flatten(1), wish, limited)
        first, last = ridge.factors(weight, scale, len(one))
        self._keep(node.tensors["weight"], first.reshape(one.shape))
        self._keep(behind.tensors["weight"], last.reshape(two.shape))
        if "bias" in node.tensors:
            self._keep(node.tensors["bias"], torch.zeros(len(one)))

    def _state_norm(self, norm: Node, positions: Positions, chunks: Iterator[list[Tensor]]) -> None:
        """Give a batch norm the statistics of what it reads, seen anew."""
        rows = torch.cat([values_at(x, positions.channel, positions.drawn(x)) for (x,) in chunks])
        variance, mean = torch.var_mean(rows, 0, correction=0)
        self._state(norm, mean, variance)

    def _state(self, norm: Node, mean: Tensor, variance: Tensor) -> None:
        """Give a batch norm these statistics; its function stays, and a training begins with it."""
        scale, shift = affine(self.net, norm)
        mean, variance = mean.double(), variance.double()
        deviation = (variance + float(str(norm.arguments["eps"]))).sqrt()
        stated = {
            "running_mean": mean,
            "running_var": variance,
            "weight": scale * deviation,
            "bias": shift + scale * mean,
        }
        for role, tensor in stated.items():
            self._keep(norm.tensors[role], tensor.to(self.net.tensors[norm.tensors[role]].dtype))

    def _keep(self, name: str, tensor: Tensor) -> None:
        self.tensors[name] = self.net.tensors[name] = tensor.contiguous()  # type: ignore[index]

    def _with_biases(self) -> dict[str, Node]:
        """The layers that got a bias they did not have."""
        changed = {}
        for node in self.net.weighted():
            name = f"{self.net.paths[node.name]}.bias"
            if name in self.tensors and "bias" not in node.tensors:
                changed[node.name] = replace(node, tensors={**node.tensors, "bias": name})
        return changed


def solution(
    ridge: LayerRidge, start: Tensor, wish: Wish, limited: Callable[[Tensor], Tensor] = lambda weight: weight
) -> tuple[Tensor, Tensor]:
    """Return weight [O, D] and mean output [O]; in rounds, what activations cut off of the wish is let go.

    Between rounds weights are `limited` to what the layer can be.
    """
    outputs = ridge.outputs(start)
    rest = wish.rest(outputs)
    weight, mean = start + ridge.change(rest), rest.mean(1)
    for _ in range(RELU_ROUNDS if wish.bounds != FREE else 0):
        weight = limited(weight)
        rest = wish.rest(ridge.outputs(weight) + mean[:, None], eased=True)
        weight, mean = weight + ridge.change(rest), mean + rest.mean(1)
    return weight, mean
