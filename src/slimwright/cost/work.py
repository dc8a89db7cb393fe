"""What one node does for one image: multiply-accumulates, elementwise operations, bytes moved.

**MACs.** One MAC is one multiply and one add of a convolution, a linear layer or a matrix product; exactly half of what
`torch.utils.flop_counter.FlopCounterMode` counts. For conv2d and linear that is output elements x weights that each
reads. Everything else is asked of that counter itself, by running the node on tensors that have shapes and no data.

**Elementwise operations** are all the others, one for each addition, multiplication, comparison or function value:

    bias of a layer                      1 per output element
    batch norm                           2: times a factor, plus a term, both known beforehand
    layer, group and instance norm       5, and 1 each for weight and bias: mean, difference, square, its mean, scaling
    RMS norm                             3, and 1 for the weight: square, its mean, scaling
    local response norm of n channels    n + 4: square, n - 1 sums, times, plus, power, quotient
    activation                           1, whatever its function: what an exponential takes is the processor's affair
    sum, product, comparison ...         1 per output element
    pooling, mean, sum, maximum          1 per element that a window reads; a window at the border counts whole
    softmax                              5: maximum, difference, exponential, sum, quotient
    attention                            6 per score: scaling and softmax; 7 where a mask is added
    interpolation                        3 (linear), 7 (bilinear), 15 (trilinear) or 31 (bicubic): the products and sums
                                         over 2, 4, 8 or 16 neighbours; 0 (nearest)
    view, copy, concatenation, padding   0
    anything else                        1 per output element

**Bytes moved**: each value that the node reads, its weights, and its result, once; of what a slice or an index reads,
only what it picks. Views, sizes and the parts of a result that has several move nothing. What a runtime saves by
fusing neighbours, or loses to caches, is not in it.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from slimwright.graph.liveness import value_bytes
from slimwright.graph.net import Net, Node, Ref, compute
from slimwright.graph.ops import on_meta, op_of

NORMS = {"layer_norm": 5, "group_norm": 5, "instance_norm": 5, "rms_norm": 3}  # without weight and bias
INTERPOLATION = {
    "upsample_linear1d": 3, "upsample_bilinear2d": 7, "upsample_trilinear3d": 15, "upsample_bicubic2d": 31,
    **{f"{kind}{dims}d": 0 for kind in ("upsample_nearest", "_upsample_nearest_exact") for dims in (1, 2, 3)},
}  # fmt: skip
SUMS = ("addmm", "addmv", "addbmm", "baddbmm")  # a matrix product, plus a term
COPIES = (
    "split", "split_with_sizes", "chunk", "tensor_split", "unbind", "stack", "narrow", "index", "index_select",
    "gather", "embedding", "repeat", "repeat_interleave", "tile", "im2col", "unfold", "unflatten", "movedim",
    "pixel_shuffle", "pixel_unshuffle", "channel_shuffle", "tril", "triu", "zeros_like", "ones_like", "full_like",
)  # fmt: skip


@dataclass(frozen=True)
class Work:
    """What one node does for one image."""

    macs: int
    elementwise_ops: int
    moved_bytes: int


def work_of(net: Net, node: Node) -> Work:
    """Return the exact work of one node."""
    macs = _macs(net, node)
    return Work(macs, _elementwise_ops(net, node, macs), _moved_bytes(net, node))


def _macs(net: Net, node: Node) -> int:
    op = op_of(node.op)
    if node.op in ("conv2d", "linear"):
        weight = net.tensors[node.tensors["weight"]]
        return math.prod(node.shape) * weight[0].numel()  # conv: C_in/groups x kH x kW; linear: C_in
    if node.op == "item" or op.channels not in ("mix", "contract", "convolve", "recurrent", "fixed"):
        return 0
    module = net.module_of(node).to("meta") if op.module else None
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        compute(net, replace(node, arguments=on_meta(node.arguments)), module, _without_data(net))
    return int(counter.get_total_flops()) // 2


def _elementwise_ops(net: Net, node: Node, macs: int) -> int:
    op, base = op_of(node.op), _base(node)
    outputs = sum(math.prod(result.shape) for result in _results(net, node))
    if op.view or base in COPIES:
        return 0
    if "pool" in base and (base.startswith("adaptive") or "kernel_size" in node.arguments):
        return _window_reads(net, node, base)
    if base in NORMS:
        return outputs * (NORMS[base] + sum(_has(node, role) for role in ("weight", "bias")))
    if base in INTERPOLATION:
        return outputs * INTERPOLATION[base]
    match op.channels:
        case "each":
            return outputs * (2 if "running_mean" in node.tensors else 1)
        case "reduce":
            return math.prod(net[node.source].shape)
        case "softmax":
            return 5 * outputs
        case "contract" if base == "attention":
            return _scores(net, node) * (6 + _has(node, "attn_mask"))
        case "fixed" if base == "lrn":
            return outputs * (_integers(node.arguments["size"])[0] + 4)
        case "mix" | "contract" | "convolve" | "recurrent" | "fixed" if macs:
            return outputs if base in SUMS or _has(node, "bias") else 0
        case "join" | "scale" | "convolve" | "recurrent" | "fixed":
            return outputs
        case _:  # images, stored tensors, sizes, padding, and what only puts elements elsewhere
            return 0


def _moved_bytes(net: Net, node: Node) -> int:
    op = op_of(node.op)
    if op.view or op.channels in ("input", "parameter", "scalar"):
        return 0
    written = sum(value_bytes(net, result.name) for result in _results(net, node))
    read = [value_bytes(net, name) for name in dict.fromkeys(node.reads)]
    if op.channels == "move" or _base(node) in COPIES:
        read = [min(size, written) for size in read]
    own = (net.tensors[name] for name in node.tensors.values())
    return written + sum(read) + sum(t.numel() * t.element_size() for t in own)


def _base(node: Node) -> str:
    """Name of an op without what is particular to ATen: "aten.roll.default" -> "roll"."""
    return node.op.removeprefix("aten.").partition(".")[0]


def _results(net: Net, node: Node) -> list[Node]:
    """The values that a node makes: itself, or those of its several results that are read."""
    return [node] if node.dtype != "tuple" else [net[name] for name in net.readers[node.name]]


def _window_reads(net: Net, node: Node, base: str) -> int:
    """Elements that the windows of a pooling read, each window counted whole."""
    outputs, dimensions = math.prod(node.shape), int(base[base.index("pool") + 4])  # "max_pool2d" -> 2
    if not base.startswith("adaptive"):
        sizes = _integers(node.arguments["kernel_size"])
        return outputs * (math.prod(sizes) if len(sizes) == dimensions else sizes[0] ** dimensions)
    sides = zip(net[node.source].shape[-dimensions:], node.shape[-dimensions:], strict=True)
    reads = math.prod(sum(-(-(i + 1) * n // m) - i * n // m for i in range(m)) for n, m in sides)
    return math.prod(node.shape[:-dimensions]) * reads


def _scores(net: Net, node: Node) -> int:
    """Elements of the attention matrices: heads x queries x keys."""
    query, key = (net[ref.name] for ref in map(node.arguments.get, ("query", "key")) if isinstance(ref, Ref))
    return math.prod(query.shape[:-1]) * key.shape[-2]


def _without_data(net: Net) -> Callable[[str], Any]:
    """What gives each value by name: a tensor of its shape without data, a size as a number."""

    def value(name: str) -> Any:
        node = net[name]
        if node.dtype == "tuple" or op_of(node.op).channels == "scalar":
            return compute(net, node, None, value)
        return torch.empty(node.shape, dtype=getattr(torch, node.dtype), device="meta")

    return value


def _has(node: Node, role: str) -> bool:
    """True where a layer has this optional tensor, its own or a computed one."""
    return role in node.tensors or node.arguments.get(role) is not None


def _integers(value: object) -> tuple[int, ...]:
    return tuple(int(str(item)) for item in value) if isinstance(value, tuple) else (int(str(value)),)
