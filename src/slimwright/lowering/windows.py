"""Poolings and paddings in forms that more runtimes take.

    average pooling that counts its padding      a depthwise convolution whose weights are all one over their number
    that leaves it out, in strides               the same, times the places of a window over those in the image
    maximum pooling of what is never negative    a padding with zeros, and a pooling without any: zero never wins
    adaptive pooling to a size that divides      an average pooling; to the size that there is, nothing
    padding by less than nothing                 a slice, and a padding by what is left

All give the same bits, but for averages, which are the same up to float32 rounding. A layer that is replaced by several
gives its name to the last.
"""

from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional

from slimwright.graph.net import Net, Node, Ref, Value
from slimwright.graph.ops import pair_of

PADDINGS = ("aten.pad.default", "aten.constant_pad_nd.default")
NEVER_NEGATIVE = ("relu", "relu6", "sigmoid", "hardsigmoid", "softmax")
KEEP_SIGNS = (
    "max_pool2d", "avg_pool2d", "adaptive_avg_pool2d", "mean", "sum", "add", "concat", "dropout", "dropout2d",
    "flatten", "reshape", "transpose", "permute", "slice", "select", "squeeze", "unsqueeze",
)  # fmt: skip


def with_averages_as_convolutions(net: Net) -> Net:
    """Return the net with average poolings that count their padding as depthwise convolutions, or the same net.

    A padding before a pooling would do, but XNNPACK does not load that in eight bits (ExecuTorch 1.4.1, 2026-11-21).
    """
    found = [n for n in net.nodes if n.op == "avg_pool2d" and _counts_padding(n)]
    if not found:
        return net
    weights = {f"{n.name}_average.weight": _average(n, net[n.source].shape[1]) for n in found}
    return net.edited({n.name: _convolution(n, net[n.source].shape[1]) for n in found}, tensors=weights)


def with_strided_averages_as_convolutions(net: Net) -> Net:
    """Return the net with average poolings in strides that leave padding out as convolutions and products, or the same.

    LiteRT's quantizer fails on the sums that its converter makes of them (0.10.0, measured 2026-11-21).
    """
    found = [n for n in net.nodes if n.op == "avg_pool2d" and _leaves_padding_out(n)]
    if not found:
        return net
    added: list[Node] = []
    tensors: dict[str, Tensor] = {}
    changed = {}
    for node in found:
        average, map_of = f"{node.name}_counted", f"{node.name}_more"
        channels = net[node.source].shape[1]
        tensors |= {f"{average}_average.weight": _average(node, channels), map_of: _places_over_held(net, node)}
        added += [
            _convolution(replace(node, name=average), channels),
            Node(map_of, "constant", {}, {"value": map_of}),
        ]
        changed[node.name] = Node(node.name, "mul", {"self": Ref(average), "other": Ref(map_of)})
    return net.edited(changed, added=added, tensors=tensors)


def with_maximum_padding_apart(net: Net) -> Net:
    """Return the net with zeros put around what is never negative before it is pooled, or the same net."""
    signless = _never_negative(net)
    found = [n for n in net.nodes if n.op == "max_pool2d" and n.source in signless and _is_padded(n)]
    if not found:
        return net
    changed = {
        node.name: replace(node, arguments={**node.arguments, "self": Ref(f"{node.name}_pad"), "padding": (0, 0)})
        for node in found
    }
    return net.edited(changed, added=[_zeros_around(node) for node in found])


def with_averages_of_what_is_there(net: Net) -> Net:
    """Return the net with poolings that round up and have no padding told to leave padding out, or the same net.

    Where nothing is padded both count the same. ncnn counts the places beyond the edge where padding is to be counted.
    """
    changed = {
        node.name: replace(node, arguments={**node.arguments, "count_include_pad": False})
        for node in net.nodes
        if node.op == "avg_pool2d" and node.arguments["ceil_mode"] and node.arguments["count_include_pad"]
        if not any(pair_of(node.arguments["padding"])) and not node.arguments["divisor_override"]
    }
    return net.edited(changed) if changed else net


def with_plain_averages(net: Net) -> Net:
    """Return the net with adaptive poolings as average poolings where sizes divide, or the same net.

    Those to 1x1 stay as they are: every runtime knows the mean of an image.
    """
    changed, removed = {}, {}
    for node in net.nodes:
        if node.op == "adaptive_avg_pool2d" and node.shape[-2:] != (1, 1):
            before, after = net[node.source].shape[-2:], node.shape[-2:]
            if before == after:
                removed[node.name] = node.source
            elif all(big % small == 0 for big, small in zip(before, after, strict=True)):
                changed[node.name] = _plain(node, (before[0] // after[0], before[1] // after[1]))
    return net.edited(changed, removed=removed) if changed or removed else net


def with_crops_apart(net: Net) -> Net:
    """Return the net with paddings by less than nothing as slices and paddings by the rest, or the same net."""
    added: list[Node] = []
    changed = {}
    for node in net.nodes:
        pad = node.arguments.get("pad") if node.op in PADDINGS else None
        if isinstance(pad, tuple) and any(isinstance(n, int) and n < 0 for n in pad) and _is_constant(node):
            slices, around = _crops(net, node, tuple(int(str(n)) for n in pad))
            added += slices
            changed[node.name] = replace(
                node, arguments={**node.arguments, "self": Ref(slices[-1].name), "pad": around}
            )
    return net.edited(changed, added=added) if changed else net


def _convolution(node: Node, channels: int) -> Node:
    stride, padding = (pair_of(node.arguments[knob]) for knob in ("stride", "padding"))
    knobs: dict[str, Value] = {"stride": stride, "padding": padding, "dilation": (1, 1), "groups": channels}
    tensors = {"weight": f"{node.name}_average.weight"}
    return Node(node.name, "conv2d", {"input": node.arguments["self"], **knobs}, tensors, fixed=("weight",))


def _average(node: Node, channels: int) -> Tensor:
    """The weight [channels, 1, kH, kW] of a convolution that averages."""
    height, width = pair_of(node.arguments["kernel_size"])
    return torch.full((channels, 1, height, width), 1 / (height * width))


def _zeros_around(node: Node) -> Node:
    height, width = pair_of(node.arguments["padding"])
    knobs: dict[str, Value] = {"self": node.arguments["self"], "pad": (width, width, height, height), "value": 0.0}
    return Node(f"{node.name}_pad", "aten.constant_pad_nd.default", knobs)


def _counts_padding(node: Node) -> bool:
    knobs = node.arguments
    return bool(_is_padded(node) and knobs["stride"] and knobs["count_include_pad"] and not knobs["divisor_override"])


def _leaves_padding_out(node: Node) -> bool:
    knobs = node.arguments
    strides = bool(knobs["stride"]) and max(pair_of(knobs["stride"])) > 1
    return bool(_is_padded(node) and strides and not knobs["count_include_pad"] and not knobs["divisor_override"])


def _places_over_held(net: Net, node: Node) -> Tensor:
    """[1, 1, H, W]: at each place, the places of a window over those that lie within the image."""
    size, stride, padding = (pair_of(node.arguments[knob]) for knob in ("kernel_size", "stride", "padding"))
    inside = torch.ones(1, 1, *net[node.source].shape[2:])
    return 1 / functional.avg_pool2d(inside, size, stride, padding)


def _is_padded(node: Node) -> bool:
    """True for a window of neighbours, with padding: rounding up would count windows in another way."""
    together = pair_of(node.arguments.get("dilation", 1)) == (1, 1)
    return together and not node.arguments["ceil_mode"] and any(pair_of(node.arguments["padding"]))


def _never_negative(net: Net) -> set[str]:
    """The values that are never negative, by the functions that they come from."""
    found: set[str] = set()
    for node in net.nodes:
        clamped = node.op == "hardtanh" and float(str(node.arguments["min_val"])) >= 0
        kept = node.op in KEEP_SIGNS and bool(node.reads) and found.issuperset(node.reads)
        if node.op in NEVER_NEGATIVE or clamped or (kept and _adds_only(node)):
            found.add(node.name)
    return found


def _adds_only(node: Node) -> bool:
    """True unless a sum takes away, or adds a number that may be negative."""
    if node.op != "add":
        return True
    return isinstance(node.arguments["other"], Ref) and node.arguments["alpha"] == 1


def _plain(node: Node, size: tuple[int, int]) -> Node:
    knobs: dict[str, Value] = {"kernel_size": size, "stride": size, "padding": (0, 0), "ceil_mode": False}
    more: dict[str, Value] = {"count_include_pad": False, "divisor_override": None}
    return Node(node.name, "avg_pool2d", {"self": node.arguments["self"], **knobs, **more})


def _is_constant(node: Node) -> bool:
    return node.arguments.get("mode", "constant") == "constant"


def _crops(net: Net, node: Node, pad: tuple[int, ...]) -> tuple[list[Node], tuple[int, ...]]:
    """The slices that take away what a padding says less than nothing of, and the padding that is left.

    Where a net is free of sizes, what a slice leaves at the end is counted from there.
    """
    is_free = net.ends is not None and bool(net.ends.free)
    shape, value = net[node.source].shape, node.arguments["self"]
    slices: list[Node] = []
    for k in range(len(pad) // 2):  # from the last dimension to the first
        dim, (before, behind) = len(shape) - 1 - k, pad[2 * k : 2 * k + 2]
        if min(before, behind) < 0:
            end = (min(behind, 0) or None) if is_free else shape[dim] - max(-behind, 0)
            ends: dict[str, Value] = {"start": max(-before, 0), "end": end, "step": 1}
            slices.append(Node(f"{node.name}_crop{dim}", "slice", {"self": value, "dim": dim, **ends}))
            value = Ref(slices[-1].name)
    return slices, tuple(max(n, 0) for n in pad)
