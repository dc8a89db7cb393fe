"""Layers spelled out in operators that more runtimes have.

**Local response normalisation**, x / (k + alpha/n * (sum of x^2 over n neighbouring channels))^beta, as a square, a
1x1 convolution whose constant weight has alpha/n in a band of n channels and whose bias is k, a power and a product:

    s = band(x * x)      beta 1/2: x * rsqrt(s)      beta 3/4: x * (r * sqrt(r)), r = rsqrt(s)      else: x * s^-beta

**Attention** as products and a softmax, for exporters that know it only in some shapes.

**The hard sigmoid** as min(max(x + 3, 0), 6) / 6, and **means over height and width** with a reshape behind them:
ExecuTorch's decompositions of them are not XNNPACK's (1.4.1, measured 2026-11-21).

**Averages over a whole picture** as means, which is what exporters decompose them into.

**The logarithm of a sum of exponentials** as m + log(sum(exp(x - m))), m the largest: MNN reduces over every dimension,
whichever is asked for (3.6.1, measured 2026-11-21).

**Channels that are picked**, which is what a channel shuffle becomes once channels are cut, as a 1x1 convolution whose
weights are one and zero: ncnn has no layer for them (pnnx 20261020, measured 2026-11-22). The same bits.

**The only entry along a dimension**, picked, as the dimension dropped: pnnx makes a layer of it that ncnn cannot load
(pnnx 20261020, measured 2026-11-28). The same bits.

**A layer that is called several times** as several with the same weights: XNNPACK's bias is in steps of the input's
scale times the weight's, which differ from call to call (ExecuTorch 1.4.1, measured 2026-11-28). The same bits.

The last node of what replaces a layer has the layer's name. The same up to float32 rounding: 1e-6 of the result's
largest value.
Source: Krizhevsky et al. 2012, sec. 3.3; Vaswani et al. 2017, sec. 3.2.1.
"""

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from slimwright.graph.net import Net, Node, Ref, Value
from slimwright.graph.ops import pair_of


def with_lrn_spelled_out(net: Net) -> Net:
    """Return the net with every local response normalisation as a banded convolution and a power, or the same net."""
    found = [node for node in net.nodes if node.op == "lrn"]
    if not found:
        return net
    steps = {node.name: _normalised(node) for node in found}
    tensors = {name: t for node in found for name, t in _band(node, net[node.source].shape[1]).items()}
    return net.edited(
        {name: nodes[-1] for name, nodes in steps.items()},
        added=[node for nodes in steps.values() for node in nodes[:-1]],
        tensors=tensors,
    )


def with_attention_spelled_out(net: Net) -> Net:
    """Return the net with every attention as products and a softmax, or the same net if there is none.

    Causal attention, masks of booleans and groups of queries stay as they are.
    """
    found = [n for n in net.nodes if n.op == "attention" and _is_plain(net, n)]
    if not found:
        return net
    changed = {
        node.name: Node(node.name, "matmul", {"self": Ref(f"{node.name}_softmax"), "other": node.arguments["value"]})
        for node in found
    }
    return net.edited(changed, added=[step for node in found for step in _weights_of(net, node)])


def with_logsumexp_spelled_out(net: Net) -> Net:
    """Return the net with every log-sum-exp in four or five steps, or the same net if there is none."""
    found = [n for n in net.nodes if n.op == "aten.logsumexp.default"]
    if not found:
        return net
    steps = {node.name: _log_of_sum(node) for node in found}
    added = [step for nodes in steps.values() for step in nodes[:-1]]
    return net.edited({name: nodes[-1] for name, nodes in steps.items()}, added=added)


def with_picks_as_convolutions(net: Net) -> Net:
    """Return the net with every pick among channels of a picture as a 1x1 convolution, or the same net."""
    found = [n for n in net.nodes if n.op == "gather" and n.arguments["dim"] == 1 and len(n.shape) == 4]
    if not found:
        return net
    tensors, changed = {}, {}
    for node in found:
        picked = one_hot(net.tensors[node.tensors["index"]], net[node.source].shape[1])
        weight = f"{node.name}_picked.weight"
        tensors[weight] = picked.to(torch.float32)[:, :, None, None]
        arguments = {"input": node.arguments["self"], **CONV}
        changed[node.name] = Node(node.name, "conv2d", arguments, {"weight": weight}, fixed=("weight",))
    return net.edited(changed, tensors=tensors)


def with_only_entries_squeezed(net: Net) -> Net:
    """Return the net with every pick of the only entry along a dimension as a squeeze, or the same net."""
    changed = {
        n.name: Node(n.name, "squeeze", {"self": n.arguments["self"], "dim": (n.arguments["dim"],)})
        for n in net.nodes
        if n.op == "select" and net[n.source].shape[int(str(n.arguments["dim"]))] == 1 and n.arguments["dim"] != 0
    }
    return net.edited(changed) if changed else net


def with_weights_apart(net: Net) -> Net:
    """Return the net with tensors of their own for layers that share them, or the same net where none do."""
    owned: set[str] = set()
    changed: dict[str, Node] = {}
    tensors: dict[str, Tensor] = {}
    for node in net.weighted():
        shared = {role: f"{node.name}_own.{role}" for role, name in node.tensors.items() if name in owned}
        if shared:
            changed[node.name] = replace(node, tensors={**node.tensors, **shared})
            tensors |= {own: net.tensors[node.tensors[role]].clone() for role, own in shared.items()}
        owned.update(node.tensors.values())
    return net.edited(changed, tensors=tensors) if changed else net


def with_hardsigmoid_spelled_out(net: Net) -> Net:
    """Return the net with every hard sigmoid as a sum, a clamp and a product, or the same net if there is none."""
    found = [n for n in net.nodes if n.op == "hardsigmoid"]
    if not found:
        return net
    added, changed = [], {}
    for node in found:
        more, held = f"{node.name}_more", f"{node.name}_held"
        added += [
            Node(more, "add", {"self": node.arguments["self"], "other": 3.0, "alpha": 1}),
            Node(held, "hardtanh", {"self": Ref(more), "min_val": 0.0, "max_val": 6.0}),
        ]
        changed[node.name] = Node(node.name, "mul", {"self": Ref(held), "other": 1 / 6})
    return net.edited(changed, added=added)


def with_means_spelled_out(net: Net) -> Net:
    """Return the net with means that drop height and width as means that keep them and a reshape, or the same net."""
    found = [n for n in net.nodes if n.op == "mean" and _drops_size(net, n)]
    if not found:
        return net
    kept = [replace(n, name=f"{n.name}_kept", arguments={**n.arguments, "keepdim": True}) for n in found]
    changed = {
        n.name: Node(n.name, "reshape", {"self": Ref(f"{n.name}_kept"), "shape": (-1, *n.shape[1:])}) for n in found
    }
    return net.edited(changed, added=kept)


def with_whole_averages_as_means(net: Net) -> Net:
    """Return the net with adaptive averages down to a single value as means, or the same net if there is none."""
    changed = {
        n.name: Node(n.name, "mean", {"self": Ref(n.source), "dim": (-1, -2), "keepdim": True, "dtype": None})
        for n in net.nodes
        if n.op == "adaptive_avg_pool2d" and pair_of(n.arguments["output_size"]) == (1, 1)
    }
    return net.edited(changed) if changed else net


CONV: Mapping[str, Value] = {"stride": (1, 1), "padding": (0, 0), "dilation": (1, 1), "groups": 1}


def _normalised(node: Node) -> list[Node]:
    """The nodes that stand for one normalisation; the last has its name."""
    name, x = node.name, node.arguments["input"]
    tensors = {"weight": f"{name}_sum.weight", "bias": f"{name}_sum.bias"}
    steps = [
        Node(f"{name}_square", "mul", {"self": x, "other": x}),
        Node(f"{name}_sum", "conv2d", {"input": Ref(f"{name}_square"), **CONV}, tensors, fixed=("weight", "bias")),
        *_power(name, Ref(f"{name}_sum"), float(str(node.arguments["beta"]))),
    ]
    return [*steps, Node(name, "mul", {"self": x, "other": Ref(steps[-1].name)})]


def _power(name: str, base: Ref, beta: float) -> list[Node]:
    """The nodes that raise a positive value to -beta."""
    if beta not in (0.5, 0.75):
        return [Node(f"{name}_power", "aten.pow.Tensor_Scalar", {"self": base, "exponent": -beta})]
    root = Node(f"{name}_rsqrt", "aten.rsqrt.default", {"self": base})
    if beta == 0.5:
        return [root]
    fourth = Node(f"{name}_sqrt", "aten.sqrt.default", {"self": Ref(root.name)})
    return [root, fourth, Node(f"{name}_power", "mul", {"self": Ref(root.name), "other": Ref(fourth.name)})]


def _band(node: Node, channels: int) -> dict[str, Tensor]:
    """Weight [C, C, 1, 1] and bias [C] of the convolution that sums over neighbouring channels.

    Of an even number of neighbours one more lies before a channel than behind it.
    """
    size, alpha, k = (float(str(node.arguments[knob])) for knob in ("size", "alpha", "k"))
    before, behind = int(size) // 2, (int(size) - 1) // 2
    band = torch.ones(channels, channels).tril(behind).triu(-before) * (alpha / size)
    return {f"{node.name}_sum.weight": band[:, :, None, None], f"{node.name}_sum.bias": torch.full((channels,), k)}


def _drops_size(net: Net, node: Node) -> bool:
    rank, dims = len(net[node.source].shape), node.arguments["dim"]
    over = {d % rank for d in dims if isinstance(d, int)} if isinstance(dims, tuple) else set()
    return rank == 4 and over == {2, 3} and not node.arguments["keepdim"]


def _log_of_sum(node: Node) -> list[Node]:
    """The nodes that stand for one log-sum-exp; the last has its name."""
    x, dim, keep = (node.arguments[knob] for knob in ("self", "dim", "keepdim"))
    name = {step: f"{node.name}_{step}" for step in ("most", "less", "exp", "sum", "log", "held")}
    over = {"dim": dim, "keepdim": True}
    steps = [
        Node(name["most"], "aten.amax.default", {"self": x, **over}),
        Node(name["less"], "sub", {"self": x, "other": Ref(name["most"]), "alpha": 1}),
        Node(name["exp"], "aten.exp.default", {"self": Ref(name["less"])}),
        Node(name["sum"], "sum", {"self": Ref(name["exp"]), **over, "dtype": None}),
        Node(name["log"], "aten.log.default", {"self": Ref(name["sum"])}),
    ]
    last = node.name if keep else name["held"]
    steps.append(Node(last, "add", {"self": Ref(name["log"]), "other": Ref(name["most"]), "alpha": 1}))
    return steps if keep else [*steps, Node(node.name, "squeeze", {"self": Ref(last), "dim": dim})]


def _is_plain(net: Net, node: Node) -> bool:
    mask = node.arguments.get("attn_mask")
    no_booleans = not isinstance(mask, Ref) or net[mask.name].dtype != "bool"
    return no_booleans and not node.arguments.get("is_causal") and not node.arguments.get("enable_gqa")


def _weights_of(net: Net, node: Node) -> list[Node]:
    """How much each query takes of each value, as four or five nodes; the last is called NAME_softmax."""
    query, key, mask = (node.arguments.get(name) for name in ("query", "key", "attn_mask"))
    assert isinstance(query, Ref) and isinstance(key, Ref)
    scale = node.arguments.get("scale")
    factor: Value = net[query.name].shape[-1] ** -0.5 if scale is None else scale
    rank = len(net[key.name].shape)
    name = {step: f"{node.name}_{step}" for step in ("turned", "products", "scaled", "masked", "softmax")}
    steps = [
        Node(name["turned"], "transpose", {"self": key, "dim0": rank - 2, "dim1": rank - 1}),
        Node(name["products"], "matmul", {"self": query, "other": Ref(name["turned"])}),
        Node(name["scaled"], "mul", {"self": Ref(name["products"]), "other": factor}),
    ]
    if isinstance(mask, Ref):
        steps.append(Node(name["masked"], "add", {"self": Ref(name["scaled"]), "other": mask, "alpha": 1}))
    return [*steps, Node(name["softmax"], "softmax", {"self": Ref(steps[-1].name), "dim": rank - 1, "dtype": None})]
