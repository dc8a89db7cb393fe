"""Poolings and paddings in forms that more runtimes take.

    average pooling that counts its padding      a padding with zeros, and a pooling without any
    maximum pooling of what is never negative    the same: zero never wins over what a window holds besides
    adaptive pooling to a size that divides      an average pooling; to the size that there is, nothing
    padding by less than nothing                 a slice, and a padding by what is left

All give the same bits, but for averages, which are the same up to float32 rounding. A layer that is replaced by several
gives its name to the last.
"""

from collections.abc import Mapping
from dataclasses import replace

from slimwright.graph.net import Net, Node, Ref, Value
from slimwright.graph.ops import pair_of

PADDINGS = ("aten.pad.default", "aten.constant_pad_nd.default")
NEVER_NEGATIVE = ("relu", "relu6", "sigmoid", "hardsigmoid", "softmax")
KEEP_SIGNS = (
    "max_pool2d", "avg_pool2d", "adaptive_avg_pool2d", "mean", "sum", "add", "concat", "dropout", "dropout2d",
    "flatten", "reshape", "transpose", "permute", "slice", "select", "squeeze", "unsqueeze",
)  # fmt: skip


def with_average_padding_apart(net: Net) -> Net:
    """Return the net with the padding of average poolings that count it as a node before them, or the same net."""
    unpadded: Mapping[str, Value] = {"padding": (0, 0), "count_include_pad": False}
    found = [n for n in net.nodes if n.op == "avg_pool2d" and _counts_padding(n)]
    return _with_zeros_before(net, found, unpadded)


def with_maximum_padding_apart(net: Net) -> Net:
    """Return the net with zeros put around what is never negative before it is pooled, or the same net."""
    signless = _never_negative(net)
    found = [n for n in net.nodes if n.op == "max_pool2d" and n.source in signless and _is_padded(n)]
    return _with_zeros_before(net, found, {"padding": (0, 0)})


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


def _with_zeros_before(net: Net, found: list[Node], unpadded: Mapping[str, Value]) -> Net:
    if not found:
        return net
    changed = {
        node.name: replace(node, arguments={**node.arguments, "self": Ref(f"{node.name}_pad"), **unpadded})
        for node in found
    }
    return net.edited(changed, added=[_zeros_around(node) for node in found])


def _zeros_around(node: Node) -> Node:
    height, width = pair_of(node.arguments["padding"])
    knobs: dict[str, Value] = {"self": node.arguments["self"], "pad": (width, width, height, height), "value": 0.0}
    return Node(f"{node.name}_pad", "aten.constant_pad_nd.default", knobs)


def _counts_padding(node: Node) -> bool:
    return bool(_is_padded(node) and node.arguments["count_include_pad"] and not node.arguments["divisor_override"])


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
    """The slices that take away what a padding says less than nothing of, and the padding that is left."""
    shape, value = net[node.source].shape, node.arguments["self"]
    slices: list[Node] = []
    for k in range(len(pad) // 2):  # from the last dimension to the first
        dim, (before, behind) = len(shape) - 1 - k, pad[2 * k : 2 * k + 2]
        if min(before, behind) < 0:
            ends: dict[str, Value] = {"start": max(-before, 0), "end": shape[dim] - max(-behind, 0), "step": 1}
            slices.append(Node(f"{node.name}_crop{dim}", "slice", {"self": value, "dim": dim, **ends}))
            value = Ref(slices[-1].name)
    return slices, tuple(max(n, 0) for n in pad)
