"""Solve new weights so that a draft produces, layer by layer, what its reference produced.

Front to back, at each weighted layer that reads or owns something else than the reference's, the weights become the
ridge least-squares solution

    min_W  E |W x' + b - y|^2 + r |W - W0|^2

where x' is what the draft feeds in, y what the reference gave there (`layer_targets.py`) and W0 the weights so far
(`ridge.py`). The mean is over some positions of every image (`positions.py`).

- Where activations cut off what is wished, y is relaxed in a few rounds: what is made will do where it is cut off too.
- A layer that is called several times is solved at all its calls at once (`jobs.py`).
- Where weights may not be what they like (`Constraint` in `held.py`), those of a layer are chosen once they are solved:
  whole multiples of a step (`rounding.py`), a sparse pattern (`sparsity.py`). What is free then is solved again, in the
  rounds above; the layers behind correct what that did.
- Where a layer stands for nothing and feeds a pointwise one alone, the two are solved as one of that rank: least
  squares for their product, cut down to the leading directions of what it gives (reduced-rank regression, Izenman
  1975).

Batch norms behind are given the statistics of what they read now, weight and bias so that their function stays.

Each layer also corrects the errors of those before it. Exact where the reference lies in the new layer's span. Where
the images are too few for a layer's weights (`ridge.py` judges) only its bias is solved; `Draft.unsolved` tells.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from slimwright.compute import placed, usable
from slimwright.data import Inputs, tensors_of
from slimwright.errors import DataError
from slimwright.graph.net import Node
from slimwright.progress import Event, Tell, silent
from slimwright.techniques.fold import affine
from slimwright.techniques.solver.activations import Activation, Activations
from slimwright.techniques.solver.draft import Draft, Origin
from slimwright.techniques.solver.drift import drifted, shared
from slimwright.techniques.solver.held import BiasAlone, Constraint
from slimwright.techniques.solver.jobs import Call, Job, can_be_stated, jobs_of, looked_at
from slimwright.techniques.solver.layer_targets import Wish, Wishes
from slimwright.techniques.solver.positions import Positions, look, of_layer, of_norm, values_at
from slimwright.techniques.solver.ridge import LayerRidge

RELU_ROUNDS = 3  # our measurement of 2026-11-21: 1 to 5 points at 90 % of the channels removed, more rounds add little


def refit(
    draft: Draft,
    inputs: Inputs,
    *,
    constraints: Mapping[str, Constraint] | None = None,
    device: str = "cpu",
    tell: Tell = silent,
) -> Draft:
    """Return the draft with its weights solved on calibration inputs, each [N, ...]; the same one if nothing differs.

    The layers of `constraints` get weights that these allow, whether anything else differs or not.

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
        return Solver(draft, [tensor.to(device) for tensor in tensors], device, tell, constraints or {}).solved()


def with_biases(draft: Draft, also: Set[str] = frozenset()) -> Draft:
    """Return the draft in the form that solving gives it: layers have the biases that they would get.

    Their values mean nothing. They are not zeros, which converters leave out, and no two layers have the same, which
    would be stored once. The layers `also` are solved whether anything else differs or not.
    """
    net, tied = draft.net, shared(draft.net)
    jobs, _ = jobs_of(draft, drifted(draft, also), also)
    tensors: dict[str, Tensor] = {}
    changed: dict[str, Node] = {}
    for number, job in enumerate(job for job in jobs if job.calls and job.behind is None):
        if net.tensor(job.node, "bias") is None and _takes_bias(_norm_of(job), tied):
            name = f"{net.paths[job.node.name]}.bias"
            tensors[name] = torch.arange(1, 1 + len(net.tensors[job.node.tensors["weight"]])) + number / len(jobs)
            for call in net.layers[job.node.name]:
                changed[call] = replace(net[call], tensors={**net[call].tensors, "bias": name})
    return draft.changed(net.edited(changed, tensors=tensors), {}) if changed else draft


def _norm_of(job: Job) -> Node | None:
    """The batch norm behind a layer that is called once."""
    return job.calls[0].target.norm if len(job.calls) == 1 else None


def _takes_bias(norm: Node | None, tied: Set[str]) -> bool:
    """True where a layer without a bias gets one; where a batch norm of its own follows, its mean takes it."""
    return norm is None or norm.name in tied


@dataclass(frozen=True)
class Look:
    """What is looked at: what a node reads, what the reference gave behind it, and the other side of a sum.

    `origins` say which channels of the reference stand for the first and the last, where they are not the draft's.
    """

    read: tuple[Activation, ...]
    wanted: tuple[Activation, ...] = ()
    other: tuple[Activation, ...] = ()
    origins: tuple[Origin, ...] = ()

    @property
    def keys(self) -> tuple[Activation, ...]:
        """All the values."""
        return (*self.read, *self.wanted, *self.other)

    def of(self, values: Mapping[Activation, Tensor]) -> list[Tensor]:
        """Return what is read, each value of the reference, and the other side, if there is one."""
        given = [[values[key] for key in keys] for keys in (self.read, self.other) if keys]
        stand_in = [origin.of(some) for origin, some in zip(self.origins, given, strict=False)]
        read, *other = stand_in or [value for (value,) in given]
        return [read, *(values[key] for key in self.wanted), *other]


class Solver:
    """A draft whose weights are solved, front to back."""

    def __init__(
        self, draft: Draft, inputs: Sequence[Tensor], device: str, tell: Tell, constraints: Mapping[str, Constraint]
    ) -> None:
        self.draft, self.tell, self.constraints = draft, tell, constraints
        self.net = draft.net.on(device)  # its weights change on the way
        self.drifted, self.shared = drifted(draft, constraints.keys()), shared(draft.net)
        self.values = Activations(draft.reference.on(device), self.net, self.drifted, inputs)
        self.tensors: dict[str, Tensor] = {}  # solved so far
        self.unsolved: dict[str, str] = {}

    def solved(self) -> Draft:
        """Return the draft with every weight that can be solved; the same one where nothing drifted."""
        if not self.drifted:
            return self.draft
        jobs, self.unsolved = jobs_of(self.draft, self.drifted, self.constraints.keys())
        looks = [self._looks(job) for job in jobs]
        for number, job in enumerate(jobs):
            later = [look for some in looks[number + 1 :] for look in some]
            if job.calls:
                self._solve(job, looks[number], later)
            else:
                self._state_norm(job.node, looks[number][0], later)
        steps = len(self.net.nodes)
        self.tell(Event("solve", steps, steps))
        net = self.net.edited(self._with_biases(), tensors=self.tensors)
        return replace(self.draft, net=net.on("cpu"), unsolved=self.unsolved)

    # what is looked at

    def _looks(self, job: Job) -> list[Look]:
        """What is seen of a job: at each call of a layer, or what a norm reads."""
        if not job.calls:
            return [Look((self.values.key("draft", job.node.source),))]
        return [self._look(call) for call in job.calls]

    def _look(self, call: Call) -> Look:
        """What a call reads, what the reference gave there, and the other side of a sum."""
        names = looked_at(call)
        origins = tuple(self.draft.origins[name] for name in names if call.foreseen)
        keys = [tuple(self.values.key("reference", name) for name in origin.values) for origin in origins]
        read, *other = keys or [(self.values.key("draft", name),) for name in names]
        wanted = tuple(self.values.key("reference", name) for name in call.target.origin.values)
        return Look(read, wanted, other[0] if other else (), origins)

    def _chunks(self, positions: Positions, look: Look, later: Sequence[Look]) -> Iterator[list[Tensor]]:
        """What is looked at, of one chunk of images after another, telling of it."""
        names = [node.name for node in self.net.nodes]
        event = Event("solve", names.index(positions.node.name), len(names), self.net.paths[positions.node.name])
        waiting = list(dict.fromkeys(key for one in later for key in one.keys))
        for values in self.values.walk(list(dict.fromkeys(look.keys)), waiting, positions.images):
            yield look.of(values)
            self.tell(event)

    # one layer

    def _solve(self, job: Job, looks: Sequence[Look], later: Sequence[Look]) -> None:
        """Solve a layer at all its calls, or one and the pointwise one behind it as one of limited rank."""
        images, at_once = self.values.images, self.values.at_once
        columns: list[Tensor] = []
        wishes: list[Wish] = []
        for number, call in enumerate(job.calls):
            positions = of_layer(self.net, call.node, images, at_once, calls=len(job.calls))
            chunks = self._chunks(positions, looks[number], [*looks[number + 1 :], *later])
            seen = look(self.net, positions, call.target.origin, chunks)
            wishes.append(Wish.of(self.net, call.target, seen.wanted, seen.other))
            columns.append(seen.columns)
        wish = wishes[0] if len(wishes) == 1 else Wishes(tuple(wishes))
        ridge = LayerRidge(columns[0] if len(columns) == 1 else torch.cat(columns, 2), positions.images)
        if job.behind is None:
            self._solve_one(job, ridge, wish)
        else:
            self._solve_two(job.node, job.behind, ridge, wish)

    def _solve_one(self, job: Job, ridge: LayerRidge, wish: Wish | Wishes) -> None:
        node, norm = job.node, _norm_of(job)
        before, bias_before = self.net.tensors[node.tensors["weight"]], self.net.tensor(node, "bias")
        start = before.flatten(1)
        constraint = self.constraints.get(node.name)
        alone = isinstance(constraint, BiasAlone)
        weight, mean = (start, mean_output(ridge, start, wish)) if alone else solution(ridge, start, wish)
        if ridge.thin and not alone and torch.equal(weight, start):
            self.unsolved[node.name] = (
                f"{ridge.positions} positions in the images are too few for {start.shape[1]} weights an output; "
                "only its bias was solved"
            )
        weight = torch.where(wish.alive, weight, start)
        if constraint and not alone:
            weight, mean = allowed(ridge, weight, mean, wish, constraint)
        bias = mean - ridge.level(weight)
        bias = torch.where(wish.alive[:, 0], bias, torch.zeros_like(bias) if bias_before is None else bias_before)
        if constraint:
            bias = constraint.bias(bias)
        self._keep(node.tensors["weight"], weight.reshape(before.shape))
        given, own_bias = ridge.level(weight), bias_before is not None or _takes_bias(norm, self.shared)
        if own_bias:
            self._keep(node.tensors.get("bias", f"{self.net.paths[node.name]}.bias"), bias)
            given = given + bias
        else:  # a batch norm follows: its mean takes the bias
            assert norm is not None
            name = norm.tensors["running_mean"]
            self._keep(name, self.net.tensors[name] - bias)
        for call in self.net.layers[node.name]:
            module = self.net.module_of(self.net[call])
            if own_bias:
                module.bias = nn.Parameter(bias)
            self.values.place(call, module)
        if norm is not None and norm.source == node.name and can_be_stated(norm, self.shared):
            self._state(norm, given, ridge.variance(weight))

    def _solve_two(self, node: Node, behind: Node, ridge: LayerRidge, wish: Wish | Wishes) -> None:
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

    def _state_norm(self, norm: Node, look: Look, later: Sequence[Look]) -> None:
        """Give a batch norm the statistics of what it reads, seen anew."""
        positions = of_norm(norm, self.values.images, self.values.at_once)
        chunks = self._chunks(positions, look, later)
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
        for first, calls in self.net.layers.items():
            name = f"{self.net.paths[first]}.bias"
            for node in (self.net[call] for call in calls):
                if name in self.tensors and "bias" not in node.tensors:
                    changed[node.name] = replace(node, tensors={**node.tensors, "bias": name})
        return changed


def mean_output(ridge: LayerRidge, weight: Tensor, wish: Wish | Wishes) -> Tensor:
    """Return the mean output [O] with which weights [O, D] as they are give what is wished, in the mean."""
    outputs = ridge.outputs(weight)
    mean = wish.rest(outputs).mean(1)
    for _ in range(RELU_ROUNDS if wish.is_bounded else 0):
        mean = mean + wish.rest(outputs + mean[:, None], eased=True).mean(1)
    return mean


def solution(
    ridge: LayerRidge, start: Tensor, wish: Wish | Wishes, limited: Callable[[Tensor], Tensor] = lambda weight: weight
) -> tuple[Tensor, Tensor]:
    """Return weight [O, D] and mean output [O]; in rounds, what activations cut off of the wish is let go.

    Between rounds weights are `limited` to what the layer can be.
    """
    outputs = ridge.outputs(start)
    rest = wish.rest(outputs)
    weight, mean = start + ridge.change(rest), rest.mean(1)
    for _ in range(RELU_ROUNDS if wish.is_bounded else 0):
        weight = limited(weight)
        rest = wish.rest(ridge.outputs(weight) + mean[:, None], eased=True)
        weight, mean = weight + ridge.change(rest), mean + rest.mean(1)
    return weight, mean


def allowed(
    ridge: LayerRidge, weight: Tensor, mean: Tensor, wish: Wish | Wishes, constraint: Constraint
) -> tuple[Tensor, Tensor]:
    """Return weight [O, D] and mean output [O] that the constraint allows, near to those that were solved.

    Where activations cut off, what is free is solved in rounds again, since other parts of the wish may be let go now.
    """
    weight = constraint.nearest(weight, ridge.curvature)
    held = constraint.held(weight) if wish.is_bounded else None
    for _ in range(RELU_ROUNDS if held else 0):
        assert held is not None
        rest = wish.rest(ridge.outputs(weight) + mean[:, None], eased=True)
        weight = held.nearest(weight + ridge.change(rest), ridge.curvature)
        mean = mean + rest.mean(1)
    return weight, mean
