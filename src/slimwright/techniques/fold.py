"""Fold batch norms, and products and sums with constants, into the layer that feeds them.

gamma * (w*x + b - mean) / sqrt(var + eps) + beta is again a convolution, so inference can skip an op and a tensor.
The same function up to float32 rounding. Source: Jacob et al. 2018 (arXiv 1712.05877), sec. 3.2. Some nets have learned
numbers in such places (PaddleOCR's), and some exporters write norms or biases as products and sums.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from slimwright.graph.net import Net, Node, Ref, Value, without_dead_ends
from slimwright.graph.ops import op_of
from slimwright.techniques.solver.draft import Draft
from slimwright.techniques.technique import Step, Technique, Work


class Fold(Step):
    """Fold batch norms and constants into the layers before them."""

    step: Literal["fold_batch_norm"] = "fold_batch_norm"


def _apply(step: Fold, work: Work) -> Work:
    return replace(work, draft=folded(work.draft))


def _sentence(step: Fold) -> str:
    return "Fold batch norms and constants into the layers before them: the same function, fewer operations."


FOLD = Technique(Fold, _apply, _sentence, ends=True)
TRANSPOSED = {"aten.conv_transpose1d.default": -2, "aten.conv_transpose2d.input": -3, "aten.conv_transpose3d.input": -4}
CHANNELS_AT = {"conv2d": -3, "linear": -1, **TRANSPOSED}  # in what a layer makes
DIVIDE = "aten.div.Tensor"
NORMS = ("batch_norm", "batch_norm1d")
CONSTANT = ("mul", "add", "sub", DIVIDE)


class _Affine(NamedTuple):
    """Nodes behind a layer that scale and shift its channels, and how they do so together, in float64."""

    nodes: tuple[Node, ...]
    scale: Tensor  # [C]
    shift: Tensor  # [C]


class _New(NamedTuple):
    """What folding makes of a layer; the parameter is a new bias of a transposed convolution."""

    layer: Node
    tensors: Mapping[str, Tensor]
    bias: Node | None = None


def fold_batch_norm(net: Net) -> Net:
    """Return the net, batch norms and constants folded whose layer feeds nothing else; the same object if none is."""
    changed: dict[str, Node] = {}
    removed: dict[str, str] = {}
    added: list[Node] = []
    tensors: dict[str, Tensor] = {}
    for layer in net.nodes:
        behind = _behind(net, layer)
        if behind is None:
            continue
        new = (_scaled_transposed if layer.op in TRANSPOSED else _scaled)(net, layer, behind)
        changed[layer.name] = new.layer
        removed |= {node.name: layer.name for node in behind.nodes}
        added += [new.bias] if new.bias else []
        tensors |= new.tensors
    return without_dead_ends(net.edited(changed, removed=removed, added=added, tensors=tensors)) if removed else net


def _behind(net: Net, layer: Node) -> _Affine | None:
    """What scales and shifts a layer's channels and nothing else reads; None where nothing does, or it must not."""
    if layer.op not in CHANNELS_AT or (layer.op in TRANSPOSED and not _has_weights_alone(net, layer)):
        return None
    axis = CHANNELS_AT[layer.op]
    scale, shift = (torch.full((layer.shape[axis],), start, dtype=torch.float64) for start in (1.0, 0.0))
    nodes: list[Node] = []
    last = layer
    while readers := net.readers[last.name]:
        node = net[readers[0]]
        found = _affine(net, node, last, axis)
        if found is None or not alone(net, last):
            break
        scale, shift = scale * found[0], shift * found[0] + found[1]
        nodes.append(node)
        last = node
    return _Affine(tuple(nodes), scale, shift) if nodes else None


def _affine(net: Net, node: Node, before: Node, axis: int) -> tuple[Tensor, Tensor] | None:
    """Return how a node scales and shifts the channels of what it reads, in float64; None where it does not."""
    if (node.shape, node.dtype) != (before.shape, before.dtype):
        return None
    if node.op in NORMS:
        return affine(net, node) if axis + len(node.shape) == 1 else None
    if node.op not in CONSTANT:
        return None
    first, second = node.arguments["self"], node.arguments["other"]
    is_first = first == Ref(before.name)
    number = _numbers(net, second if is_first else first, axis, before.shape[axis])
    if number is None or not (is_first or second == Ref(before.name)):
        return None
    found = _of_constant(node, number, is_first=is_first)
    return found if found is not None and all(bool(part.isfinite().all()) for part in found) else None


def _of_constant(node: Node, number: Tensor, *, is_first: bool) -> tuple[Tensor, Tensor] | None:
    """The same of a product, quotient, sum or difference with a constant; None for a constant over what is read."""
    none, alpha = torch.zeros_like(number), float(str(node.arguments.get("alpha", 1)))
    if node.op == "mul":
        return number, none
    if node.op == DIVIDE:
        return (1 / number, none) if is_first else None
    sign = alpha if node.op == "add" else -alpha
    return (none + 1, sign * number) if is_first else (none + sign, number)


def _numbers(net: Net, value: Value, axis: int, channels: int) -> Tensor | None:
    """A constant as a number for each channel [C], or one [1], in float64; None for others. `axis` is negative."""
    if isinstance(value, int | float):
        return torch.tensor([float(value)], dtype=torch.float64)
    if not isinstance(value, Ref) or not _is_held(net[value.name]):
        return None
    held = net.tensors[net[value.name].tensors["value"]]
    if held.numel() == 1 or (held.ndim >= -axis and held.shape[axis] == channels == held.numel()):
        return held.double().flatten()
    return None


def _is_held(node: Node) -> bool:
    """True for a tensor of the net that is used as it is, trained or not."""
    return op_of(node.op).channels == "parameter"


def _scaled(net: Net, layer: Node, behind: _Affine) -> _New:
    """A layer that gives what came out behind it."""
    weight = net.tensors[layer.tensors["weight"]]
    bias = net.tensor(layer, "bias")
    name = layer.tensors.get("bias", f"{net.paths[layer.name]}.bias")
    scaled = weight.double() * behind.scale.reshape(-1, *[1] * (weight.ndim - 1))
    shifted = behind.shift + (0 if bias is None else bias.double() * behind.scale)
    tensors = {layer.tensors["weight"]: _stored(scaled, weight), name: shifted.to(weight.dtype)}
    return _New(replace(layer, tensors={**layer.tensors, "bias": name}), tensors)


def _read_beside(net: Net, layer: Node) -> list[Node]:
    """The nodes that give a transposed convolution its weights and, if it has one, its bias."""
    return [net[value.name] for role in ("weight", "bias") if isinstance(value := layer.arguments[role], Ref)]


def _has_weights_alone(net: Net, layer: Node) -> bool:
    """True for a transposed convolution whose weights lie in the net and serve nothing else."""
    own = _read_beside(net, layer)
    return all(map(_is_held, own)) and alone(net, own[0])


def _scaled_transposed(net: Net, layer: Node, behind: _Affine) -> _New:
    """The same of a transposed convolution, whose weights are nodes; its bias becomes another one."""
    own = _read_beside(net, layer)
    weight, *bias = (net.tensors[one.tensors["value"]] for one in own)
    groups = int(str(layer.arguments["groups"]))
    scales = behind.scale.reshape(groups, 1, -1, *[1] * (weight.ndim - 2))
    scaled = (weight.double().unflatten(0, (groups, -1)) * scales).flatten(0, 1)
    shifted = behind.shift + sum(behind.scale * one.double() for one in bias)
    name = f"{layer.name}_bias"
    while name in net.readers:
        name += "_"
    node = Node(name, "parameter", {}, {"value": f"{net.paths[behind.nodes[0].name]}.folded"}, (len(shifted),))
    tensors = {own[0].tensors["value"]: _stored(scaled, weight), node.tensors["value"]: shifted.to(weight.dtype)}
    return _New(replace(layer, arguments={**layer.arguments, "bias": Ref(name)}), tensors, node)


def _stored(scaled: Tensor, weight: Tensor) -> Tensor:
    """Weights in the form of others; a zero has no sign, since packed files know one alone."""
    return (scaled + 0.0).to(weight.dtype)


def folded(draft: Draft) -> Draft:
    """Return the draft with batch norms and constants folded: a layer then stands for what was behind it."""
    net = fold_batch_norm(draft.net)
    behind: dict[str, str] = {}
    into: dict[str, str] = {}
    for node in draft.net.nodes:
        if node.name not in net.readers and not _is_held(node):
            source = next(name for name in node.reads if not _is_held(draft.net[name]))
            into[node.name] = into.get(source, source)
            behind[into[node.name]] = node.name
    return draft.changed(net, {conv: draft.origins.get(norm) for conv, norm in behind.items()})


def affine(net: Net, norm: Node) -> tuple[Tensor, Tensor]:
    """Return the scale and shift [C], in float64, that a batch norm applies in eval mode."""
    mean, variance = (
        net.tensors[norm.tensors["running_mean"]].double(),
        net.tensors[norm.tensors["running_var"]].double(),
    )
    scale = torch.rsqrt(variance + float(str(norm.arguments["eps"])))
    weight, bias = net.tensor(norm, "weight"), net.tensor(norm, "bias")
    scale = scale if weight is None else scale * weight.double()
    return scale, -mean * scale + (0 if bias is None else bias.double())


def alone(net: Net, layer: Node) -> bool:
    """True where one node reads the output of a layer, or of a parameter, and no other owns its weights."""
    owners = [n for n in net.nodes if set(n.tensors.values()) & set(layer.tensors.values())]
    return len(net.readers[layer.name]) == 1 and len(owners) <= 1 and layer.name not in net.outputs
