"""Fold batch norm into the convolution, or transposed convolution, that feeds it.

gamma * (w*x + b - mean) / sqrt(var + eps) + beta is again a convolution, so inference can skip an op and a tensor.
The same function up to float32 rounding. Source: Jacob et al. 2018 (arXiv 1712.05877), sec. 3.2.
"""

from collections.abc import Iterator
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
    norm: Node
    add: Node | None
    offsets: tuple[str, ...]  # parameters [C] that are added to what it gives: its own bias, and the sum's


def _without_norms_of_transposed(net: Net) -> Net:
    """The net with batch norms folded into transposed convolutions, which get a bias."""
    changed: dict[str, Node] = {}
    removed: dict[str, str] = {}
    added: list[Node] = []
    tensors: dict[str, Tensor] = {}
    for conv, norm, add, offsets in _transposed_before_norms(net):
        scale, shift = affine(net, norm)
        weight = net.tensors[_value(net, conv.arguments["weight"])]
        groups = int(str(conv.arguments["groups"]))
        scaled = weight.double().unflatten(0, (groups, -1)).transpose(1, 2).flatten(0, 1)  # [O, I, ...]
        scaled = scaled * scale.reshape(-1, *[1] * (scaled.ndim - 1))
        scaled = scaled.unflatten(0, (groups, -1)).transpose(1, 2).flatten(0, 1).contiguous() + 0.0
        tensors[_value(net, conv.arguments["weight"])] = scaled.to(weight.dtype)
        for offset in offsets:
            shift = shift + scale * net.tensors[offset].double().flatten()
        bias = Node(f"{conv.name}_bias", "parameter", {}, {"value": f"{net.paths[norm.name]}.folded"}, (len(shift),))
        tensors[bias.tensors["value"]] = shift.to(weight.dtype)
        added.append(bias)
        changed[conv.name] = replace(conv, arguments={**conv.arguments, "bias": Ref(bias.name)})
        removed |= {node.name: conv.name for node in (norm, add) if node}
    return without_dead_ends(net.edited(changed, removed=removed, added=added, tensors=tensors)) if removed else net


def _transposed_before_norms(net: Net) -> Iterator[_Transposed]:
    for norm in net.nodes:
        if norm.op != "batch_norm":
            continue
        offsets: tuple[str, ...] = ()
        add, conv = None, net[norm.source]
        if conv.op == "add":
            add, sides = conv, [net[name] for name in conv.reads]
            offsets = tuple(_value(net, Ref(one.name)) for one in sides if _is_per_channel(net, one, norm))
            conv = next((one for one in sides if one.op in TRANSPOSED), conv)
            if len(offsets) != 1 or conv is add or add.arguments.get("alpha", 1) != 1 or not _is_read_once(net, add):
                continue
        if conv.op not in TRANSPOSED or not _is_read_once(net, conv):
            continue
        weights = [conv.arguments[role] for role in ("weight", "bias") if conv.arguments.get(role) is not None]
        if all(isinstance(one, Ref) and net[one.name].op == "parameter" for one in weights) and all(
            _is_read_once(net, net[one.name]) for one in weights if isinstance(one, Ref)
        ):
            own = tuple(_value(net, one) for one in weights[1:])
            yield _Transposed(conv, norm, add, (*own, *offsets))


def _value(net: Net, of: object) -> str:
    """The name of the tensor that a parameter holds."""
    assert isinstance(of, Ref)
    return net[of.name].tensors["value"]


def _is_read_once(net: Net, node: Node) -> bool:
    return len(net.readers[node.name]) == 1 and node.name not in net.outputs


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
    """True where one node reads the layer's output, and no other layer owns its weights."""
    owners = [n for n in net.nodes if set(n.tensors.values()) & set(layer.tensors.values())]
    return len(net.readers[layer.name]) == 1 and len(owners) == 1 and layer.name not in net.outputs
