"""When each value is needed, and how much memory that takes, as a mobile runtime sees it.

A value lives from the node that makes it to the last node that reads it. What only shows its input in another shape
(reshape, dropout that is off) shares its memory; what puts elements elsewhere (permute, slice, concatenation) is a
copy. An elementwise op writes over its input where nothing else reads that input later. Stored parameters are no
activations. Of an operator with several results each lives from that operator on. Inputs are there from the start, and
outputs to the end. Bytes are exact for one image. `arena.py` lays the values out in one block.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import torch

from slimwright.graph.arena import Buffer, live_bytes, place
from slimwright.graph.net import Net
from slimwright.graph.ops import op_of


@dataclass(frozen=True)
class MemoryPlan:
    """Activation memory for one image, in bytes. The arena is planned when it is first asked for."""

    buffers: tuple[Buffer, ...]
    live_bytes: tuple[int, ...]  # for each node in execution order

    @property
    def peak_bytes(self) -> int:
        """The most that is live at once: no plan can do better."""
        return max(self.live_bytes)

    @cached_property
    def offsets(self) -> Mapping[str, int]:
        """Buffer name -> place in the arena."""
        return place(self.buffers)

    @cached_property
    def arena_bytes(self) -> int:
        """What the plan takes: at least `peak_bytes`."""
        return max((self.offsets[b.name] + b.bytes for b in self.buffers), default=0)


def plan_memory(net: Net, bytes_of: Mapping[str, int] | None = None) -> MemoryPlan:
    """Return lifetimes, offsets and peak of a net's activations; `bytes_of` may say how large each value would be."""
    buffers = _buffers(net, bytes_of or {node.name: value_bytes(net, node.name) for node in net.nodes})
    return MemoryPlan(buffers, live_bytes(buffers, len(net.nodes)))


def value_bytes(net: Net, name: str) -> int:
    """Bytes of the value that a node produces, for one image; 0 for a size, or for several results together."""
    node = net[name]
    if node.dtype == "tuple" or op_of(node.op).channels == "scalar":
        return 0
    return math.prod(node.shape) * element_bytes(node.dtype) if node.shape else 0


def image_bytes(net: Net) -> int:
    """Bytes of all values of a net together for one image, as if each element took four."""
    return 4 * sum(math.prod(node.shape) for node in net.nodes)


def weight_bytes(net: Net) -> int:
    """Bytes of all tensors that a net owns, as they lie in memory."""
    return sum(tensor.nbytes for tensor in net.tensors.values())


def element_bytes(dtype: str) -> int:
    """Bytes of one element of a dtype such as "float32"."""
    return torch.empty(0, dtype=getattr(torch, dtype)).element_size()


def _buffers(net: Net, bytes_of: Mapping[str, int]) -> tuple[Buffer, ...]:
    step_of = {node.name: step for step, node in enumerate(net.nodes)}
    last = _last_reads(net, step_of)
    holder: dict[str, str] = {}  # value -> the value whose memory it is in
    until: dict[str, int] = {}
    first: dict[str, int] = {}
    for step, node in enumerate(net.nodes):
        op, root = op_of(node.op), None
        if op.view and net[node.source].dtype != "tuple":
            root = holder[node.source]
        elif op.in_place:
            ending = (holder[name] for name in node.reads if until[holder[name]] == step)
            root = next((r for r in ending if _may_go(net, r) and bytes_of[r] == bytes_of[node.name]), None)
        root = holder[node.name] = root or node.name
        if root == node.name:
            first[root] = 0 if node.op == "input" else step_of[node.source] if node.op == "item" else step
        until[root] = max(until.get(root, 0), last[node.name])
    return tuple(
        Buffer(name, bytes_of[name], begins, until[name])
        for name, begins in first.items()
        if bytes_of[name] and op_of(net[name].op).channels != "parameter"
    )


def _may_go(net: Net, name: str) -> bool:
    """True unless a value is not ours to write over: the image, or a stored parameter."""
    return op_of(net[name].op).channels not in ("input", "parameter")


def _last_reads(net: Net, step_of: Mapping[str, int]) -> dict[str, int]:
    """The last step that reads each value; what the net returns is read at the end."""
    last = dict(step_of)
    for node in net.nodes:
        last.update(dict.fromkeys(node.reads, step_of[node.name]))
    return last | dict.fromkeys(net.outputs, len(net.nodes) - 1)
