"""Solve new weights so that a changed net produces, layer by layer, what the original produced.

Both nets walk side by side over the calibration images, one node at a time. At each weighted layer whose input
differs from the original's, the weights become the ridge least-squares solution

    min_W  E |W x' + b - y|^2 + r |W - W0|^2

where x' is what the changed net feeds in, y what the original gave there and W0 the weights so far (`ridge.py`).
Where the layer's result runs through a batch norm into a sum whose other side is already known, y is what makes the
*sum* equal the original's, so a residual stream does not drift. Where only ReLUs read the result, y is relaxed in a
few rounds: below zero any value will do, as long as it stays there (compare the nonlinear case of Zhang et al. 2015,
arXiv 1505.06798). Front to back, so that each layer also corrects the errors of those before it. Exact where the
original lies in the new layer's span.
"""

import copy
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from slimwright.errors import ModelError
from slimwright.evidence import MOST_TAPS, taps
from slimwright.graph.channels import Coupling
from slimwright.graph.net import Net, Node, compute
from slimwright.graph.ops import op_of
from slimwright.progress import Event, Tell, silent
from slimwright.rewrites.fold import affine
from slimwright.rewrites.ridge import LayerRidge

RELU_ROUNDS = 3  # our measurement of 2026-11-21: 1 to 5 points at 90 % of the channels removed, more rounds add little
DEAD = 1e-3  # channels whose batch norm scales them by less than this share of the largest are left as they are
BATCH = 64


def refit(original: Net, changed: Net, kept: Mapping[str, Tensor], images: Tensor, *, tell: Tell = silent) -> Net:
    """Return `changed` with its weights solved against `original` on `images` [N, C, H, W].

    Both nets have the same node names; `kept` maps a node to the original's output channels it still has (missing:
    all). Raises ModelError where the nets do not match.
    """
    if [node.name for node in original.nodes] != [node.name for node in changed.nodes]:
        raise ModelError("the two nets do not have the same nodes; refit a net against the one that it was cut from")
    return _Walk(original, changed, kept, images.split(BATCH)).solved(tell)


def kept_channels(coupling: Coupling, keep: Mapping[str, Tensor], original: Net) -> dict[str, Tensor]:
    """Return, for every weighted layer that lost outputs, the original's output channels that are left."""
    gone: dict[str, Tensor] = {}
    for group in coupling.groups:
        if group.name not in keep:
            continue
        dropped = torch.ones(group.size, dtype=torch.bool)
        dropped[keep[group.name]] = False
        for cut in group.cuts:
            if cut.role != "in" and op_of(original[cut.node].op).channels == "mix":
                size = original.tensors[original[cut.node].tensors["weight"]].shape[0]
                mask = gone.setdefault(cut.node, torch.ones(size, dtype=torch.bool))
                mask[torch.from_numpy(cut.positions)[dropped].reshape(-1)] = False
    return {name: mask.nonzero()[:, 0] for name, mask in gone.items()}


@dataclass(frozen=True)
class _Target:
    """What a layer shall reproduce behind `norm`: `value` of the original, less `other` of the changed net."""

    value: str
    other: str | None
    norm: Node | None


class _Walk:
    def __init__(self, original: Net, changed: Net, kept: Mapping[str, Tensor], batches: Sequence[Tensor]) -> None:
        self.original, self.changed, self.kept, self.batches = original, changed, kept, batches
        self.old: dict[str, list[Tensor]] = {original.input.name: list(batches)}
        self.new: dict[str, list[Tensor]] = {changed.input.name: list(batches)}
        self.drifted: set[str] = set()  # values of the changed net that are not the original's
        self.tensors: dict[str, Tensor] = {}
        owners = Counter(tensor for node in changed.nodes for tensor in node.tensors.values())
        self.shared = {n.name for n in changed.nodes if any(owners[t] > 1 for t in n.tensors.values())}

    @torch.no_grad()
    def solved(self, tell: Tell) -> Net:
        nodes = self.changed.nodes
        last = {name: step for step, node in enumerate(nodes) for name in (node.name, *node.reads)}
        for step, node in enumerate(nodes):
            if node.op != "input":
                self._advance(node)
            tell(Event("solve", step + 1, len(nodes), self.changed.paths[node.name]))
            for values in (self.new, self.old):
                for name in [n for n in values if last[n] <= step]:
                    del values[name]
        return self.changed.edited(self._with_biases(), tensors=self.tensors)

    def _advance(self, node: Node) -> None:
        weighted = op_of(node.op).channels == "mix"
        if self._resized(node) or any(name in self.drifted for name in node.reads):
            self.drifted.add(node.name)
        module = self.changed.module_of(node) if op_of(node.op).module else None
        solvable = weighted and node.name not in self.shared and taps(self.changed, node) <= MOST_TAPS
        if solvable and node.source in self.drifted:
            module = self._refitted(node, module)
        self.new[node.name] = self._run(self.changed, node, module, self.new)
        if node.name in self.drifted:
            self._original(node.name)  # before what it reads is let go
        else:
            self.old[node.name] = self.new[node.name]

    def _resized(self, node: Node) -> bool:
        return any(self.original.tensors[t].shape != self.changed.tensors[t].shape for t in node.tensors.values())

    def _refitted(self, node: Node, module: nn.Module | None) -> nn.Module:
        """Solve one layer: `module` computes it from now on, and `tensors` holds its weights."""
        assert isinstance(module, (nn.Conv2d, nn.Linear))
        target = self._target(node)
        weight, bias = self._solved_layer(node, module, target)
        alive = torch.ones(len(bias), dtype=torch.bool)
        if target.norm is not None:
            scale, _ = affine(self.changed, target.norm)
            alive = scale.abs() > DEAD * scale.abs().max()
        old_bias = self.changed.tensor(node, "bias")
        weight = torch.where(alive[:, None], weight, self.changed.tensors[node.tensors["weight"]].flatten(1))
        bias = torch.where(alive, bias, torch.zeros_like(bias) if old_bias is None else old_bias)
        self.tensors[node.tensors["weight"]] = weight.reshape(module.weight.shape)
        module.weight.copy_(self.tensors[node.tensors["weight"]])
        if old_bias is None and target.norm is not None and target.norm.name not in self.shared:
            # a batch norm follows: its mean takes the bias
            name = target.norm.tensors["running_mean"]
            self.tensors[name] = self.changed.tensors[name] - bias
            self.changed = self.changed.edited(tensors={name: self.tensors[name]})
        else:
            name = node.tensors.get("bias", f"{self.changed.paths[node.name]}.bias")
            self.tensors[name] = bias
            module.bias = nn.Parameter(bias)
        return module

    def _solved_layer(self, node: Node, module: nn.Conv2d | nn.Linear, target: _Target) -> tuple[Tensor, Tensor]:
        """Return weight [O, D] and bias [O]; where only ReLUs read the target, what they cut off is let go."""
        inputs, wanted = self.new[node.source], self._wanted(node, target)
        ridge = LayerRidge(self.changed, node, inputs)
        weight, bias = ridge.solve(wanted, module.weight.flatten(1))
        readers = self.changed.readers[target.value]
        if readers and all(self.changed[name].op == "relu" for name in readers):
            trial = copy.deepcopy(module)
            for _ in range(RELU_ROUNDS):
                trial.weight.copy_(weight.reshape(module.weight.shape))
                trial.bias = nn.Parameter(bias)
                weight, bias = ridge.solve(self._eased(wanted, [trial(x) for x in inputs], target), weight)
        return weight, bias

    def _eased(self, wanted: Sequence[Tensor], made: Sequence[Tensor], target: _Target) -> list[Tensor]:
        """Wish for what is made, wherever both that and the wish come out at or below zero behind norm and sum."""
        scale, shift = torch.ones(()), torch.zeros(())
        if target.norm is not None:
            scale, shift = (s[:, None, None].float() for s in affine(self.changed, target.norm))
        others = self.new[target.other] if target.other is not None else [torch.zeros(())] * len(wanted)
        return [
            torch.where((y * scale + shift + other <= 0) & (x * scale + shift + other <= 0), x, y)
            for y, x, other in zip(wanted, made, others, strict=True)
        ]

    def _target(self, node: Node) -> _Target:
        """Follow the layer's result through a batch norm into a sum whose other side is known by now."""
        value, norm = node.name, None
        readers = self.changed.readers[value]
        if len(readers) == 1 and self.changed[readers[0]].op == "batch_norm":
            norm = self.changed[readers[0]]
            value = norm.name
            readers = self.changed.readers[value]
        if len(readers) == 1 and self.changed[readers[0]].op == "add" and value not in self.changed.outputs:
            add = self.changed[readers[0]]
            others = [name for name in add.reads if name != value]
            alike = len(others) == 1 and self.changed[others[0]].shape == self.changed[value].shape
            if alike and others[0] in self.new and add.arguments["alpha"] == 1:
                return _Target(add.name, others[0], norm)
        return _Target(value, None, norm)

    def _wanted(self, node: Node, target: _Target) -> list[Tensor]:
        """The layer's outputs, per batch, that would make the target equal the original's."""
        axis = 1 if node.op == "conv2d" else -1
        values = self._original(target.value)
        if node.name in self.kept:
            values = [v.index_select(axis, self.kept[node.name]) for v in values]
        if target.other is not None:
            values = [v - o for v, o in zip(values, self.new[target.other], strict=True)]
        if target.norm is not None:
            scale, shift = (s[:, None, None].float() for s in affine(self.changed, target.norm))
            scale = torch.where(scale.abs() > DEAD * scale.abs().max(), scale, torch.ones_like(scale))
            values = [(v - shift) / scale for v in values]
        return values

    def _original(self, name: str) -> list[Tensor]:
        """A value of the original net, computed as far ahead as it takes."""
        waiting = [name]
        while waiting:
            node = self.original[waiting[-1]]
            missing = [r for r in node.reads if r not in self.old]
            if node.name in self.old:
                waiting.pop()
            elif missing:
                waiting.extend(missing)
            else:
                module = self.original.module_of(node) if op_of(node.op).module else None
                self.old[node.name] = self._run(self.original, node, module, self.old)
        return self.old[name]

    def _run(self, net: Net, node: Node, module: nn.Module | None, values: Mapping[str, list[Tensor]]) -> list[Tensor]:
        return [compute(net, node, module, _nth(values, i)) for i in range(len(self.batches))]

    def _with_biases(self) -> dict[str, Node]:
        """The layers that got a bias they did not have."""
        changed = {}
        for node in self.changed.weighted():
            name = f"{self.changed.paths[node.name]}.bias"
            if name in self.tensors and "bias" not in node.tensors:
                changed[node.name] = Node(node.name, node.op, node.arguments, {**node.tensors, "bias": name})
        return changed


def _nth(values: Mapping[str, list[Tensor]], index: int) -> Callable[[str], Tensor]:
    return lambda name: values[name][index]
