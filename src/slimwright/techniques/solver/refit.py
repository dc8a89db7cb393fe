"""Solve new weights so that a draft produces, layer by layer, what its reference produced.

Both nets walk side by side over the calibration images, one node at a time. At each weighted layer that reads or owns
something else than the reference's, the weights become the ridge least-squares solution

    min_W  E |W x' + b - y|^2 + r |W - W0|^2

where x' is what the draft feeds in, y what the reference gave there and W0 the weights so far (`ridge.py`).

- Where the result runs through a batch norm into a sum whose other side is already known, y is what makes the *sum*
  equal the reference's, so a residual stream does not drift.
- Where only ReLUs read the result, y is relaxed in a few rounds: below zero (or above six) any value will do, as long
  as it stays there (compare the nonlinear case of Zhang et al. 2015, arXiv 1505.06798). So a layer may also be solved
  against a value that lies behind its ReLU, such as that of a pooling it took the place of.
- Where a layer stands for nothing and feeds a pointwise one alone, the two are solved as one of that rank: least
  squares for their product, cut down to the leading directions of what it gives (reduced-rank regression, Izenman
  1975).

Batch norms behind are given the statistics of what they read now, weight and bias so that their function stays.

Front to back, so that each layer also corrects the errors of those before it. Exact where the reference lies in the
new layer's span. Where the images are too few for a layer's weights (`ridge.py` judges) only its bias is solved;
`Draft.unsolved` tells.
"""

import copy
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from slimwright.compute import placed, usable
from slimwright.data import Inputs, tensors_of
from slimwright.errors import DataError
from slimwright.evidence import MOST_TAPS, taps
from slimwright.graph.net import Net, Node, compute
from slimwright.graph.ops import op_of
from slimwright.progress import Event, Tell, silent
from slimwright.techniques.fold import affine
from slimwright.techniques.solver.draft import Draft, Origin
from slimwright.techniques.solver.ridge import LayerRidge

RELU_ROUNDS = 3  # our measurement of 2026-11-21: 1 to 5 points at 90 % of the channels removed, more rounds add little
DEAD = 1e-3  # channels whose batch norm scales them by less than this share of the largest are left as they are
BATCH = 32


def refit(draft: Draft, inputs: Inputs, *, device: str = "cpu", tell: Tell = silent) -> Draft:
    """Return the draft with its weights solved on `inputs`, each [N, ...]; the same one where nothing differs.

    `device` computes; it must know float64. Raises DataError where there are no images, and RequestError where there
    is no such device.
    """
    given = tensors_of(inputs)
    if not len(given[0]):
        raise DataError("there are no calibration images to solve the weights on")
    with placed(usable(device)):
        return _Walk(draft, [tensor.to(device).split(BATCH) for tensor in given]).solved(tell)


@dataclass(frozen=True)
class _Target:
    """What a layer shall reproduce behind `norm`: `origin`, less `other` of the draft, between the bounds."""

    origin: Origin
    value: str  # of the draft: the node that the origin is of
    norm: Node | None = None
    other: str | None = None
    free: tuple[float, float] = (float("-inf"), float("inf"))  # outside of which activations cut off what is wished


class _Walk:
    def __init__(self, draft: Draft, inputs: Sequence[Sequence[Tensor]]) -> None:
        device = str(inputs[0][0].device)
        self.draft, self.reference = draft, draft.reference.on(device)
        self.net = draft.net.on(device)  # its weights change on the way
        self.count = len(inputs[0])
        self.old: dict[str, list[Tensor]] = _ends(self.reference, inputs)
        self.new: dict[str, list[Tensor]] = _ends(self.net, inputs)
        self.drifted: set[str] = set()  # values of the draft that are not the reference's of that name
        self.tensors: dict[str, Tensor] = {}
        self.unsolved: dict[str, str] = {}
        owners = Counter(tensor for node in self.net.nodes for tensor in node.tensors.values())
        self.shared = {n.name for n in self.net.nodes if any(owners[t] > 1 for t in n.tensors.values())}
        self.step = {node.name: step for step, node in enumerate(self.net.nodes)}
        self.last = {name: s for s, n in enumerate(self.net.nodes) for name in (n.name, *n.reads)}
        self.targets = {node.name: self._target(node) for node in self.net.weighted()}
        self.wanted = self._uses()

    @torch.no_grad()
    def solved(self, tell: Tell) -> Draft:
        for step, node in enumerate(self.net.nodes):
            if node.op != "input":
                self._advance(node)
            tell(Event("solve", step + 1, len(self.step), self.net.paths[node.name]))
            for name in [n for n in self.new if self.last[n] <= step]:
                del self.new[name]
        if not self.drifted:
            return self.draft
        net = self.net.edited(self._with_biases(), tensors=self.tensors)
        return replace(self.draft, net=net.on("cpu"), unsolved=self.unsolved)

    def _advance(self, node: Node) -> None:
        if self._differs(node) or any(name in self.drifted for name in node.reads):
            self.drifted.add(node.name)
            if node.op in ("batch_norm", "batch_norm1d"):
                self._restate(node)
        module = self.net.module_of(node) if op_of(node.op).module else None
        target = self.targets.get(node.name)
        if node.name in self.drifted and op_of(node.op).channels == "mix" and not self._is_part_of_its_own(node):
            module = self._layer(node, module, target)
        self.new[node.name] = self._run(self.net, node, module, self.new, self.step[node.name])
        if self.wanted[node.name] > 0 and node.name not in self.drifted and node.name not in self.old:
            self.old[node.name] = list(self.new[node.name])
            for name in node.reads:
                self._used(name)
        for value in target.origin.values if target is not None else ():
            self._used(value)

    def _restate(self, norm: Node) -> None:
        """Give a batch norm the statistics of what it reads now; its function stays, and a training begins with it."""
        if norm.name in self.shared or not {"weight", "bias"} <= norm.tensors.keys():
            return
        scale, shift = affine(self.net, norm)
        axes = (0, *range(2, len(norm.shape)))
        count = sum(batch.numel() // batch.shape[1] for batch in self.new[norm.source])
        mean, variance = torch.zeros_like(scale), torch.zeros_like(scale)
        for batch in self.new[norm.source]:
            mean += batch.sum(axes, dtype=torch.float64) / count
        about = mean.reshape(-1, *[1] * (len(norm.shape) - 2))
        for batch in self.new[norm.source]:
            variance += (batch - about).square().sum(axes) / count
        deviation = (variance + float(str(norm.arguments["eps"]))).sqrt()
        stated = {
            "running_mean": mean,
            "running_var": variance,
            "weight": scale * deviation,
            "bias": shift + scale * mean,
        }
        for role, tensor in stated.items():
            self._keep(norm.tensors[role], tensor.to(self.net.tensors[norm.tensors[role]].dtype))

    def _differs(self, node: Node) -> bool:
        """True where a node is not the one of its name in the reference."""
        if node.name not in self.reference.readers or self.reference[node.name].op != node.op:
            return True
        was = self.reference[node.name]
        if was.arguments != node.arguments or was.tensors.keys() != node.tensors.keys():
            return True
        return any(
            not torch.equal(self.reference.tensors[was.tensors[role]], self.net.tensors[name])
            for role, name in node.tensors.items()
        )

    def _is_part_of_its_own(self, node: Node) -> bool:
        """True for a layer that gives some of the reference's outputs as they were: nothing to solve."""
        origin = self.draft.origins.get(node.name)
        if node.source in self.drifted or origin is None or len(origin.values) > 1:
            return False
        was = self.reference[origin.values[0]]
        if was.tensors.keys() != node.tensors.keys() or was.op != node.op:
            return False
        rows = slice(None) if origin.kept is None else origin.kept
        return all(
            torch.equal(self.reference.tensors[was.tensors[role]][rows], self.net.tensors[name])
            for role, name in node.tensors.items()
        )

    # one layer

    def _layer(self, node: Node, module: nn.Module | None, target: _Target | None) -> nn.Module:
        """The layer that computes a node from now on: solved if it can be."""
        assert isinstance(module, (nn.Conv2d, nn.Linear))
        behind = self._pointwise_behind(node) if target is None else None
        end = self.targets[behind.name] if behind is not None else target
        why = self._why_not(node, end)
        if why:
            self.unsolved[node.name] = why
            return module
        assert end is not None
        if behind is not None:
            return self._first_of_two(node, module, behind, end)
        return self._refitted(node, module, end)

    def _why_not(self, node: Node, target: _Target | None) -> str:
        if target is None:
            return "nothing in the original stands for what it gives"
        if node.name in self.shared:
            return "other layers own its weights too"
        if "weight" in node.fixed:
            return "its weights are fixed"
        if taps(self.net, node) > MOST_TAPS:
            return f"each output has {taps(self.net, node)} weights, more than the {MOST_TAPS} that are solved for"
        return ""

    def _refitted(self, node: Node, module: nn.Conv2d | nn.Linear, target: _Target) -> nn.Module:
        """Solve one layer: `module` computes it from now on, and `tensors` holds its weights."""
        ridge = LayerRidge(self.net, node, self.new[node.source])
        weight, bias = self._solution(node, module, target, ridge)
        alive = torch.ones(len(bias), dtype=torch.bool)
        if target.norm is not None:
            scale, _ = affine(self.net, target.norm)
            alive = scale.abs() > DEAD * scale.abs().max()
        old_bias = self.net.tensor(node, "bias")
        weight = torch.where(alive[:, None], weight, module.weight.flatten(1))
        bias = torch.where(alive, bias, torch.zeros_like(bias) if old_bias is None else old_bias)
        self._keep(node.tensors["weight"], weight.reshape(module.weight.shape))
        module.weight.copy_(self.tensors[node.tensors["weight"]])
        if old_bias is None and target.norm is not None and target.norm.name not in self.shared:
            # a batch norm follows: its mean takes the bias
            name = target.norm.tensors["running_mean"]
            self._keep(name, self.net.tensors[name] - bias)
        else:
            self._keep(node.tensors.get("bias", f"{self.net.paths[node.name]}.bias"), bias)
            module.bias = nn.Parameter(bias)
        return module

    def _solution(
        self, node: Node, module: nn.Conv2d | nn.Linear, target: _Target, ridge: LayerRidge
    ) -> tuple[Tensor, Tensor]:
        """Return weight [O, D] and bias [O]; what activations cut off of the target is let go."""
        wanted, start = self._wanted(target), module.weight.flatten(1)
        weight, bias = ridge.solve(wanted, start)
        if target.free != _Target.free:
            trial = copy.deepcopy(module)
            for _ in range(RELU_ROUNDS):
                trial.weight.copy_(weight.reshape(module.weight.shape))
                trial.bias = nn.Parameter(bias)
                made = (trial(x) for x in self.new[node.source])
                weight, bias = ridge.solve(self._eased(wanted, made, target), weight)
        if ridge.thin and torch.equal(weight, start):
            self.unsolved[node.name] = (
                f"{ridge.positions} positions in the images are too few for {start.shape[1]} weights an output; "
                "only its bias was solved"
            )
        return weight, bias

    def _first_of_two(self, node: Node, module: nn.Conv2d | nn.Linear, behind: Node, target: _Target) -> nn.Module:
        """Solve a layer and the pointwise one behind it as one of limited rank."""
        ridge = LayerRidge(self.net, node, self.new[node.source])
        second = self.net.tensors[behind.tensors["weight"]]
        start = second.flatten(1) @ module.weight.flatten(1)
        wanted = self._wanted(target)
        weight, bias = ridge.solve(wanted, start)
        scale = torch.ones(len(start)) if target.norm is None else affine(self.net, target.norm)[0].abs().float()
        for _ in range(RELU_ROUNDS if target.free != _Target.free else 0):
            first, last = ridge.factors(weight, scale, len(module.weight))
            made = self._given_by(node, module, last @ first, bias)
            weight, bias = ridge.solve(self._eased(wanted, made, target), weight)
        first, last = ridge.factors(weight, scale, len(module.weight))
        self._keep(node.tensors["weight"], first.reshape(module.weight.shape))
        self._keep(behind.tensors["weight"], last.reshape(second.shape))
        module.weight.copy_(self.tensors[node.tensors["weight"]])
        if module.bias is not None:
            self._keep(node.tensors["bias"], torch.zeros_like(module.bias))
            module.bias.zero_()
        return module

    def _keep(self, name: str, tensor: Tensor) -> None:
        self.tensors[name] = self.net.tensors[name] = tensor.contiguous()  # type: ignore[index]

    def _given_by(self, node: Node, module: nn.Conv2d | nn.Linear, weight: Tensor, bias: Tensor) -> Iterator[Tensor]:
        """What a layer of this geometry would give with other weights [O, D]."""
        one = copy.deepcopy(module)
        one.weight = nn.Parameter(weight.reshape(len(weight), *module.weight.shape[1:]))
        one.bias = nn.Parameter(bias)
        return (one(x) for x in self.new[node.source])

    def _pointwise_behind(self, node: Node) -> Node | None:
        """The one layer that reads a node, where the two are one layer of limited rank."""
        readers = self.net.readers[node.name]
        if len(readers) != 1 or node.arguments.get("groups", 1) != 1 or node.name in self.net.outputs:
            return None
        behind = self.net[readers[0]]
        if behind.op != node.op or self.targets.get(behind.name) is None or behind.name in self.shared:
            return None
        weight = self.net.tensors[behind.tensors["weight"]]
        plain = {"stride": (1, 1), "padding": (0, 0), "groups": 1}
        alike = behind.op == "linear" or {k: behind.arguments[k] for k in plain} == plain
        return behind if alike and weight[0, 0].numel() == 1 else None

    # what is wished for

    def _target(self, node: Node) -> _Target | None:
        """Follow a layer's result through a batch norm, a sum whose other side is known by then, and activations."""
        value, norm, other = node.name, None, None
        found: _Target | None = None
        if value in self.draft.origins:
            found = _Target(self.draft.origins[value], value)
        reader = self._only_reader(value)
        if reader is not None and reader.op == "batch_norm":
            norm, value = reader, reader.name
            if value in self.draft.origins:
                found = _Target(self.draft.origins[value], value, norm)
            reader = self._only_reader(value)
        if reader is not None and reader.op == "add" and reader.name in self.draft.origins:
            others = [name for name in reader.reads if name != value]
            alike = len(others) == 1 and self.net[others[0]].shape == self.net[value].shape
            if alike and self.step[others[0]] < self.step[node.name] and reader.arguments["alpha"] == 1:
                value, other = reader.name, others[0]
                found = _Target(self.draft.origins[value], value, norm, other)
        if found is not None:
            return replace(found, free=self._bounds(found.value))
        reader = self._only_reader(value)
        if reader is not None and reader.name in self.draft.origins and self._cuts(reader) != _Target.free:
            return _Target(self.draft.origins[reader.name], reader.name, norm, other, self._cuts(reader))
        return None

    def _only_reader(self, value: str) -> Node | None:
        readers = self.net.readers[value]
        return self.net[readers[0]] if len(readers) == 1 and value not in self.net.outputs else None

    def _bounds(self, value: str) -> tuple[float, float]:
        """Outside of which no reader of a value sees a difference."""
        readers = [self.net[name] for name in self.net.readers[value]]
        if not readers or value in self.net.outputs:
            return _Target.free
        bounds = [self._cuts(reader) for reader in readers]
        return min(low for low, _ in bounds), max(high for _, high in bounds)

    def _cuts(self, node: Node) -> tuple[float, float]:
        """Below and above which an activation gives the same for every input."""
        if node.op == "relu":
            return 0.0, float("inf")
        if node.op == "hardtanh":
            return float(str(node.arguments["min_val"])), float(str(node.arguments["max_val"]))
        return _Target.free

    def _wanted(self, target: _Target) -> list[Tensor]:
        """The layer's outputs, per batch, that would make the target equal the reference's."""
        parts = zip(*(self._original(value) for value in target.origin.values), strict=True)
        values = [target.origin.of(part) for part in parts]
        if target.other is not None:
            values = [v - o for v, o in zip(values, self.new[target.other], strict=True)]
        if target.norm is not None:
            scale, shift = (s[:, None, None].float() for s in affine(self.net, target.norm))
            scale = torch.where(scale.abs() > DEAD * scale.abs().max(), scale, torch.ones_like(scale))
            values = [(v - shift) / scale for v in values]
        return values

    def _eased(self, wanted: Sequence[Tensor], made: Iterable[Tensor], target: _Target) -> list[Tensor]:
        """Wish for what is made, wherever both that and the wish come out beyond the same bound."""
        scale, shift = torch.ones(()), torch.zeros(())
        if target.norm is not None:
            scale, shift = (s[:, None, None].float() for s in affine(self.net, target.norm))
        others = self.new[target.other] if target.other is not None else [torch.zeros(())] * len(wanted)
        low, high = target.free
        eased = []
        for y, x, other in zip(wanted, made, others, strict=True):
            wish, gift = y * scale + shift + other, x * scale + shift + other
            eased.append(torch.where(((wish <= low) & (gift <= low)) | ((wish >= high) & (gift >= high)), x, y))
        return eased

    # values

    def _uses(self) -> Counter[str]:
        """How often each value of the reference is still needed: by a target, or to compute what a target needs."""
        uses = Counter(value for t in self.targets.values() if t is not None for value in t.origin.values)
        for node in reversed(self.reference.nodes):
            if uses[node.name]:
                uses.update(node.reads)
        return uses

    def _used(self, name: str) -> None:
        """A value of the reference has one use less. After the last it goes or, if never made, uses others no more."""
        waiting = [name]
        while waiting:
            value = waiting.pop()
            self.wanted[value] -= 1
            if not self.wanted[value] and self.old.pop(value, None) is None:
                waiting.extend(self.reference[value].reads)

    def _original(self, name: str) -> list[Tensor]:
        """A value of the reference, computed as far ahead as it takes."""
        waiting = [name]
        while waiting:
            node = self.reference[waiting[-1]]
            missing = [r for r in node.reads if r not in self.old]
            if node.name in self.old:
                waiting.pop()
            elif missing:
                waiting.extend(missing)
            else:
                module = self.reference.module_of(node) if op_of(node.op).module else None
                self.old[node.name] = self._run(self.reference, node, module, self.old)
                for read in node.reads:
                    self._used(read)
        return self.old[name]

    def _run(
        self, net: Net, node: Node, module: nn.Module | None, values: Mapping[str, list[Tensor]], step: int = -1
    ) -> list[Tensor]:
        """A node's value for every batch; what nothing reads after `step` is let go batch by batch."""
        made = []
        for i in range(self.count):
            made.append(compute(net, node, module, _nth(values, i)))
            for name in node.reads if step >= 0 else ():
                if self.last[name] <= step:
                    values[name][i] = torch.empty(0)
        return made

    def _with_biases(self) -> dict[str, Node]:
        """The layers that got a bias they did not have."""
        changed = {}
        for node in self.net.weighted():
            name = f"{self.net.paths[node.name]}.bias"
            if name in self.tensors and "bias" not in node.tensors:
                changed[node.name] = replace(node, tensors={**node.tensors, "bias": name})
        return changed


def _nth(values: Mapping[str, list[Tensor]], index: int) -> Callable[[str], Tensor]:
    return lambda name: values[name][index]


def _ends(net: Net, inputs: Sequence[Sequence[Tensor]]) -> dict[str, list[Tensor]]:
    """The batches of each input of a net, by the node's name."""
    return {node.name: list(batches) for node, batches in zip(net.inputs, inputs, strict=True)}
