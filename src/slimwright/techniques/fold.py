"""Fold batch norm into the convolution, or transposed convolution, that feeds it.

gamma * (w*x + b - mean) / sqrt(var + eps) + beta is again a convolution, so inference can skip an op and a tensor.
The same function up to float32 rounding. Source: Jacob et al. 2018 (arXiv 1712.05877), sec. 3.2.
"""

from dataclasses import replace
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from slimwright.graph.net import Net, Node, Ref, without_dead_ends
from slimwright.techniques.solver.draft import Draft
from slimwright.techniques.technique import Step, Technique, Work


class Fold(Step):
    """Fold batch norms into their convolutions."""

    step: Literal["fold_batch_norm"] = "fold_batch_norm"


def _apply(step: Fold, work: Work) -> Work:
    return replace(work, draft=folded(work.draft))


def _sentence(step: Fold) -> str:
    return "Fold batch norms into the convolutions before them: the same function, fewer operations."


FOLD = Technique(Fold, _apply, _sentence, ends=True)
TRANSPOSED = ("aten.conv_transpose1d.default", "aten.conv_transpose2d.input", "aten.conv_transpose3d.input")


def fold_batch_norm(net: Net) -> Net:
    """Return the net, every batch norm folded whose convolution feeds nothing else; the same object if none is."""
    net = _without_norms_of_transposed(net)
    changed: dict[str, Node] = {}
    removed: dict[str, str] = {}
    tensors: dict[str, Tensor] = {}
    for norm in net.nodes:
        conv = net[norm.source] if norm.op == "batch_norm" else norm
        if norm.op != "batch_norm" or conv.op != "conv2d" or not alone(net, conv):
            continue
        scale, shift = affine(net, norm)
        weight = net.tensors[conv.tensors["weight"]]
        bias = net.tensor(conv, "bias")
        bias_name = conv.tensors.get("bias", f"{net.paths[conv.name]}.bias")
        scaled = weight.double() * scale[:, None, None, None] + 0.0  # a zero has no sign: packed files know one alone
        tensors[conv.tensors["weight"]] = scaled.to(weight.dtype)
        tensors[bias_name] = (shift + (0 if bias is None else bias.double() * scale)).to(weight.dtype)
        changed[conv.name] = replace(conv, tensors={**conv.tensors, "bias": bias_name})
        removed[norm.name] = conv.name
    return net.edited(changed, removed=removed, tensors=tensors) if removed else net


class _Transposed(NamedTuple):
    """A transposed convolution that feeds a batch norm alone, perhaps by way of a sum with one number per channel."""

    conv: Node
    add: Node | None
    weight: str
    offsets: tuple[str, ...]  # what is added to each channel [C]: the convolution's own bias, and the sum's


def _without_norms_of_transposed(net: Net) -> Net:
    """The net with batch norms folded into transposed convolutions, which get a bias."""
    changed: dict[str, Node] = {}
    removed: dict[str, str] = {}
    added: list[Node] = []
    tensors: dict[str, Tensor] = {}
    for norm in net.nodes:
        before = _transposed_before(net, norm)
        if before is None:
            continue
        scale, shift = affine(net, norm)
        conv, weight = before.conv, net.tensors[before.weight]
        groups = int(str(conv.arguments["groups"]))
        scales = scale.reshape(groups, 1, -1, *[1] * (weight.ndim - 2))
        scaled = (weight.double().unflatten(0, (groups, -1)) * scales).flatten(0, 1) + 0.0
        shift = shift + sum(scale * net.tensors[offset].double().flatten() for offset in before.offsets)
        name = f"{conv.name}_bias"
        while name in net.readers:
            name += "_"
        bias = Node(name, "parameter", {}, {"value": f"{net.paths[norm.name]}.folded"}, (len(shift),))
        tensors |= {before.weight: scaled.to(weight.dtype), bias.tensors["value"]: shift.to(weight.dtype)}
        added.append(bias)
        changed[conv.name] = replace(conv, arguments={**conv.arguments, "bias": Ref(name)})
        removed |= {node.name: conv.name for node in (norm, before.add) if node}
    return without_dead_ends(net.edited(changed, removed=removed, added=added, tensors=tensors)) if removed else net


def _transposed_before(net: Net, norm: Node) -> _Transposed | None:
    """The transposed convolution whose norm this is, with weights of its own; None where the node is no such norm."""
    if norm.op != "batch_norm":
        return None
    conv, add = net[norm.source], None
    offsets: list[Node] = []
    if conv.op == "add" and conv.arguments.get("alpha", 1) == 1 and alone(net, conv):
        add = conv
        offsets = [net[name] for name in add.reads if _is_per_channel(net, net[name], norm)]
        conv = next((net[name] for name in add.reads if net[name].op in TRANSPOSED), add)
        if len(offsets) != 1:
            return None
    if conv.op not in TRANSPOSED or not alone(net, conv):
        return None
    own = [net[value.name] for role in ("weight", "bias") if isinstance(value := conv.arguments[role], Ref)]
    if any(one.op != "parameter" for one in own) or not alone(net, own[0]):
        return None
    weight, *added = (one.tensors["value"] for one in (*own, *offsets))
    return _Transposed(conv, add, weight, tuple(added))


def _is_per_channel(net: Net, node: Node, norm: Node) -> bool:
    """True for a parameter with one number for each channel of a norm, and nothing else."""
    if node.op != "parameter":
        return False
    shape, after = net.tensors[node.tensors["value"]].shape, len(norm.shape) - 2
    return len(shape) > after and shape[len(shape) - after - 1] == norm.shape[1] == shape.numel()


def folded(draft: Draft) -> Draft:
    """Return the draft with batch norms folded: a convolution then stands for what the norm behind it stood for."""
    net = fold_batch_norm(draft.net)
    behind: dict[str, str] = {}
    into: dict[str, str] = {}
    for node in draft.net.nodes:
        if node.name not in net.readers and node.op != "parameter":
            source = next(name for name in node.reads if draft.net[name].op != "parameter")
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
