"""Take whole layers out.

- A residual block, or a gate: the sum or product is left with its shortcut, and the branch is gone.
- A residual block collapsed: one convolution stands for the sum, at first the identity.
- A single layer: what reads it reads what it read. Where it changed the number of channels, the layers behind take its
  centre tap into their weights, so that they fit.

What is left is a start that `refit` solves against the values behind. Which layers may go follows the walk of Pahwa et
al. 2019 (arXiv 1911.12740): all but the first, those with a stride, average poolings, and linear layers.
"""

from dataclasses import replace
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from slimwright.errors import RequestError
from slimwright.graph.net import Net, Node, Ref, Value, without_dead_ends
from slimwright.graph.ops import op_of
from slimwright.techniques.solver.draft import Draft
from slimwright.techniques.technique import Step, Technique, Work

SINGLE = ("conv2d", "batch_norm", "relu", "hardtanh", "silu", "hardswish", "gelu", "max_pool2d", "lrn")


class Remove(Step):
    """Take layers, or the branches of sums, out; put one convolution in the place of residual blocks."""

    step: Literal["remove"] = "remove"
    layers: tuple[str, ...] = ()
    collapse: tuple[str, ...] = ()
    kernel: int = Field(3, gt=0)


def _apply(step: Remove, work: Work) -> Work:
    draft = work.draft
    for name in step.collapse:
        draft = collapsed(draft, name, step.kernel)
    for name in step.layers:
        draft = removed(draft, name)
    return replace(work, draft=draft)


def _sentence(step: Remove) -> str:
    size = f"{step.kernel}x{step.kernel}"
    said = [f"Remove {', '.join(step.layers)}."] if step.layers else []
    said += [f"Collapse {', '.join(step.collapse)} to a {size} convolution each."] if step.collapse else []
    return " ".join(said) or "Remove nothing."


REMOVE = Technique(Remove, _apply, _sentence)


def removable(net: Net) -> list[str]:
    """Names of the sums and products whose branch can go, and of the layers that can, in execution order."""
    first = next((node.name for node in net.nodes if op_of(node.op).channels == "mix"), "")
    return [node.name for node in net.nodes if node.name != first and _way_out(net, node)]


def removed(draft: Draft, name: str) -> Draft:
    """Return the draft without a layer, or without the branch of a sum. Raises RequestError where it must stay."""
    net = draft.net
    if name not in removable(net):
        raise RequestError(f"'{name}' is no layer that can be removed; there are {', '.join(removable(net)) or 'none'}")
    node = net[name]
    way = _way_out(net, node)
    if way == "identity":
        kept = _kept_side(net, node) if node.op in ("add", "mul") else node.source
        return draft.changed(without_dead_ends(net.edited(removed={name: kept})), {})
    behind, norms = _behind(net, node)
    taken = {net[reader].tensors["weight"]: _through(net, node, net[reader]) for reader in behind}
    gone = {name: node.source, **{norm: net[norm].source for norm in norms}}
    return draft.changed(net.edited(removed=gone, tensors=taken), {})


def collapsible(net: Net) -> list[str]:
    """Names of the residual sums that one convolution could stand for, in execution order."""
    return [n.name for n in net.nodes if n.op == "add" and len(n.shape) == 4 and _way_out(net, n) == "identity"]


def collapsed(draft: Draft, name: str, kernel: int = 3) -> Draft:
    """Return the draft with one `kernel` x `kernel` convolution, at first the identity, in place of a residual block.

    Raises RequestError where `name` is no such sum, the kernel is even, or no image is large enough for it.
    """
    net = draft.net
    if name not in collapsible(net) or kernel % 2 == 0:
        raise RequestError(
            f"'{name}' cannot collapse to a {kernel}x{kernel} convolution; the kernel must be odd, and the sums are "
            f"{', '.join(collapsible(net)) or 'none'}"
        )
    node = net[name]
    most = 2 * max(node.shape[2:]) - 1
    if kernel > most:
        raise RequestError(
            f"'{name}' cannot collapse to a {kernel}x{kernel} convolution: its images are "
            f"{node.shape[2]}x{node.shape[3]}, and of a kernel larger than {most} the rest meets padding alone"
        )
    channels, weight, bias = node.shape[1], f"{name}.weight", f"{name}.bias"
    identity = torch.zeros(channels, channels, kernel, kernel)
    identity[range(channels), range(channels), kernel // 2, kernel // 2] = 1
    knobs: dict[str, Value] = {"stride": (1, 1), "padding": (kernel // 2,) * 2, "dilation": (1, 1), "groups": 1}
    conv = Node(name, "conv2d", {"input": Ref(_kept_side(net, node)), **knobs}, {"weight": weight, "bias": bias})
    small = net.edited({name: conv}, tensors={weight: identity, bias: torch.zeros(channels)})
    return draft.changed(without_dead_ends(small), {})


def _way_out(net: Net, node: Node) -> str:
    """How a node can go: "identity" (its readers read its source), "through" (they take its weights in), or ""."""
    if node.op in ("add", "mul"):
        return "identity" if _kept_side(net, node) else ""
    if node.op not in SINGLE or _is_strided(node):
        return ""
    if net[node.source].shape == node.shape:
        return "identity"
    fits = node.op == "conv2d" and net[node.source].shape[2:] == node.shape[2:] and node.arguments["groups"] == 1
    return "through" if fits and _behind(net, node)[0] else ""


def _kept_side(net: Net, node: Node) -> str:
    """Of the two values that a sum or product joins, the one that the other is computed from; "" where neither is."""
    if len(node.reads) != 2 or node.reads[0] == node.reads[1]:
        return ""
    for kept, branch in (node.reads, node.reads[::-1]):
        if net[kept].shape == node.shape and kept in ancestors(net, branch):
            return kept
    return ""


def ancestors(net: Net, name: str) -> set[str]:
    """Return the nodes that a value is computed from."""
    found: set[str] = set()
    waiting = [name]
    while waiting:
        for read in net[waiting.pop()].reads:
            if read not in found:
                found.add(read)
                waiting.append(read)
    return found


def _is_strided(node: Node) -> bool:
    return node.arguments.get("stride", (1, 1)) not in ((1, 1), 1)


def _behind(net: Net, conv: Node) -> tuple[list[str], list[str]]:
    """The convolutions that read a layer through its norm and activations, and those norms; none where others do."""
    readers: list[str] = []
    norms: list[str] = []
    waiting = [conv.name]
    while waiting:
        name = waiting.pop()
        if name in net.outputs:
            return [], []
        for reader in (net[r] for r in net.readers[name]):
            if reader.op == "batch_norm":
                norms.append(reader.name)
                waiting.append(reader.name)
            elif reader.op == "conv2d" and reader.arguments["groups"] == 1:
                readers.append(reader.name)
            elif op_of(reader.op).module is not None and reader.shape == net[name].shape and not reader.tensors:
                waiting.append(reader.name)
            else:
                return [], []
    return readers, norms


def _through(net: Net, conv: Node, reader: Node) -> Tensor:
    """The reader's weight for what `conv` reads: [C_out, C_in, k, k], by way of the centre of `conv`'s kernel."""
    weight = net.tensors[conv.tensors["weight"]]
    centre = weight[:, :, weight.shape[2] // 2, weight.shape[3] // 2]
    return torch.einsum("omhw,mi->oihw", net.tensors[reader.tensors["weight"]], centre)
