"""Fold batch norm into the convolution that feeds it.

gamma * (w*x + b - mean) / sqrt(var + eps) + beta is again a convolution, so inference can skip an op and a tensor.
The same function up to float32 rounding. Source: Jacob et al. 2018 (arXiv 1712.05877), sec. 3.2.
"""

from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor

from slimwright.graph.net import Net, Node
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


def fold_batch_norm(net: Net) -> Net:
    """Return the net, every batch norm folded whose convolution feeds nothing else; the same object if none is."""
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


def folded(draft: Draft) -> Draft:
    """Return the draft with batch norms folded: a convolution then stands for what the norm behind it stood for."""
    net = fold_batch_norm(draft.net)
    behind = {node.source: node.name for node in draft.net.nodes if node.name not in net.readers}
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
