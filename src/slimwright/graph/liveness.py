"""When each tensor is needed, and how much memory that takes: an arena as a mobile runtime lays it out.

A value lives from the node that makes it to the last node that reads it. Views share their input's memory, and
an elementwise op writes over its input where nothing else reads that input later. Bytes are exact for one image;
the arena's offsets come from placing tensors largest first into the lowest gap that is free for their lifetime.
Source: greedy by size, Pisarchyk and Lee 2020 (arXiv 2001.03288), sec. 5.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from slimwright.graph.net import Net
from slimwright.graph.ops import OPS


@dataclass(frozen=True)
class Buffer:
    """Memory that holds one value, or several in turn: live in steps `first` to `last`, both included."""

    name: str
    bytes: int
    first: int
    last: int


@dataclass(frozen=True)
class MemoryPlan:
    """Activation memory for one image, in bytes."""

    buffers: tuple[Buffer, ...]
    offsets: Mapping[str, int]  # buffer name -> place in the arena
    live_bytes: tuple[int, ...]  # for each node in execution order
    peak_bytes: int  # the most that is live at once: no plan can do better
    arena_bytes: int  # what the plan takes


def plan_memory(net: Net, bytes_of: Mapping[str, int] | None = None) -> MemoryPlan:
    """Return lifetimes, offsets and peak of a net's activations; `bytes_of` may say how large each value would be."""
    buffers = _buffers(net, bytes_of or {node.name: value_bytes(net, node.name) for node in net.nodes})
    live = tuple(sum(b.bytes for b in buffers if b.first <= step <= b.last) for step in range(len(net.nodes)))
    offsets = _offsets(buffers)
    arena = max((offsets[b.name] + b.bytes for b in buffers), default=0)
    return MemoryPlan(tuple(buffers), offsets, live, max(live), arena)


def value_bytes(net: Net, name: str) -> int:
    """Bytes of the value that a node produces, for one image."""
    node = net[name]
    return math.prod(node.shape) * torch.empty(0, dtype=getattr(torch, node.dtype)).element_size() if node.shape else 0


def _buffers(net: Net, bytes_of: Mapping[str, int]) -> list[Buffer]:
    last = {node.name: step for step, node in enumerate(net.nodes)}
    for step, node in enumerate(net.nodes):
        for name in node.reads:
            last[name] = step
    last.update(dict.fromkeys(net.outputs, len(net.nodes) - 1))
    holder: dict[str, str] = {}
    until: dict[str, int] = {}
    first: dict[str, int] = {}
    size: dict[str, int] = {}
    for step, node in enumerate(net.nodes):
        op = OPS[node.op]
        root = holder[node.source] if op.view else None
        if op.in_place:
            ending = (holder[r] for r in node.reads if until[holder[r]] == step and net[holder[r]].op != "input")
            root = next((r for r in ending if bytes_of[r] == bytes_of[node.name]), None)
        holder[node.name] = root or node.name
        if root is None:
            first[node.name], size[node.name], until[node.name] = step, bytes_of[node.name], last[node.name]
        else:
            until[root] = max(until[root], last[node.name])
    return [Buffer(name, size[name], first[name], until[name]) for name in first if size[name]]


def _offsets(buffers: Sequence[Buffer]) -> dict[str, int]:
    placed: list[tuple[int, Buffer]] = []
    for buffer in sorted(buffers, key=lambda b: (-b.bytes, b.first)):
        offset = 0
        for other_offset, other in sorted(placed, key=lambda p: p[0]):
            if other.last < buffer.first or buffer.last < other.first:
                continue
            if offset + buffer.bytes <= other_offset:
                break
            offset = max(offset, other_offset + other.bytes)
        placed.append((offset, buffer))
    return {buffer.name: offset for offset, buffer in placed}
