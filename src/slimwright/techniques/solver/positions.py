"""Some of the positions at which a layer gives outputs: what it reads there, and what values there are.

A map of 112x112 has far more positions than a layer has weights, and neighbours are alike. So a few of each image's
are taken: one from each of as many equal stretches, at random by a seed.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from math import ceil, prod

import torch
from torch import Tensor
from torch.nn import functional as F

from slimwright.evidence import groups_of, padding_of, taps
from slimwright.graph.net import Net, Node
from slimwright.graph.ops import pair_of
from slimwright.techniques.solver.draft import Origin

PER_IMAGE = 64  # positions; more where there are few images for the weights of an output
PER_TAP = 64  # positions of all images
MOST_BYTES = 6e8  # of what a layer reads at its positions
SEED = 0


class Positions:
    """The positions of one node's values that are looked at, in one chunk of images after another.

    There are `per_image` of them, or all where that is not many more; a generator deals them.
    """

    def __init__(self, node: Node, images: int, per_image: int) -> None:
        self.node = node
        self.channel = len(node.shape) - 1 if node.op == "linear" else 1
        each = prod(node.shape) // node.shape[self.channel]
        self.sampled = node.shape[0] == 1 and per_image < each
        self.per_image = max(per_image, 1) if self.sampled else each
        self.count = images * self.per_image
        self._generator = torch.Generator("cpu").manual_seed(SEED)

    def drawn(self, x: Tensor) -> Tensor:
        """Return positions [N, k] in the next chunk of images, of which the node reads `x`."""
        each = prod(self.node.shape[2:]) if self.node.op == "conv2d" else x[0].numel() // x.shape[self.channel]
        if not self.sampled:
            return torch.arange(each, device=x.device).expand(len(x), each)
        stretches = torch.arange(self.per_image, dtype=torch.float64, device="cpu")
        within = torch.rand(len(x), self.per_image, generator=self._generator, dtype=torch.float64, device="cpu")
        return ((stretches + within) * (each / self.per_image)).long().clamp_max(each - 1).to(x.device)


def of_layer(net: Net, node: Node, images: int) -> Positions:
    """Return the positions at which a layer is solved."""
    size = taps(net, node)
    most = int(MOST_BYTES / (4 * groups_of(node) * size * images))
    return Positions(node, images, min(max(PER_IMAGE, ceil(PER_TAP * size / images)), most))


def of_norm(node: Node, images: int) -> Positions:
    """Return the positions at which a batch norm's statistics are taken."""
    return Positions(node, images, PER_IMAGE)


@dataclass(frozen=True)
class Seen:
    """What a layer reads at some positions, and what the reference, and the other side of a sum, are there."""

    columns: Tensor  # [G, D, P]
    wanted: Tensor  # [O, P]
    other: Tensor | None  # [O, P]


def look(net: Net, node: Node, origin: Origin, chunks: Iterable[Sequence[Tensor]], images: int) -> Seen:
    """Return what is seen of a layer; each chunk holds what it reads, the values of `origin`, and perhaps the other."""
    positions, groups, size = of_layer(net, node, images), groups_of(node), taps(net, node)
    many = groups > 1  # then positions lie side by side, else taps
    columns = torch.empty(groups, size, positions.count) if many else torch.empty(1, positions.count, size).mT
    wanted: list[Tensor] = []
    others: list[Tensor] = []
    start = 0
    for x, *values in chunks:
        drawn = positions.drawn(x)
        read = columns_at(net, node, x, drawn)  # [P, C, T]
        space = columns[:, :, start : start + len(read)].unflatten(1, (-1, read.shape[2]))  # [G, C/G, T, P]
        space.copy_(read.unflatten(1, (groups, -1)).permute(1, 2, 3, 0))
        start += len(read)
        named, rest = values[: len(origin.values)], values[len(origin.values) :]
        if origin.axis == positions.channel:
            wanted.append(replace(origin, axis=1).of([values_at(value, origin.axis, drawn) for value in named]))
        else:
            wanted.append(values_at(origin.of(named), positions.channel, drawn))
        others += [values_at(value, positions.channel, drawn) for value in rest]
    return Seen(columns, _side_by_side(wanted), _side_by_side(others) if others else None)


def _side_by_side(rows: list[Tensor]) -> Tensor:
    """Rows [P, O] of several chunks as [O, P]."""
    return torch.cat(rows).T.contiguous()


def values_at(value: Tensor, channel: int, drawn: Tensor) -> Tensor:
    """Return what a value [N, C, ...] is at positions [N, k]: [N k, C]."""
    rows = value.movedim(channel, -1).reshape(len(value), -1, value.shape[channel])  # [N, positions, C]
    return _rows_at(rows, drawn)


def columns_at(net: Net, node: Node, x: Tensor, drawn: Tensor) -> Tensor:
    """Return what a layer reads at output positions [N, k]: [N k, C_in, kernel taps]."""
    if node.op == "linear":
        return values_at(x, x.ndim - 1, drawn)[:, :, None]
    height, width = net.tensors[node.tensors["weight"]].shape[2:]
    stride, dilation = (pair_of(node.arguments[what]) for what in ("stride", "dilation"))
    padded = F.pad(x, padding_of(net, node)).movedim(1, -1)  # [N, H, W, C]
    _, _, across, channels = padded.shape
    row, column = drawn // node.shape[3], drawn % node.shape[3]
    corner = row * stride[0] * across + column * stride[1]  # [N, k]
    down, aside = (torch.arange(size, device=x.device) for size in (height, width))
    taps_at = (down * dilation[0] * across)[:, None] + aside * dilation[1]  # [kH, kW]
    places = (corner[:, :, None] + taps_at.flatten()).flatten(1)  # [N, k kH kW]
    rows = _rows_at(padded.reshape(len(x), -1, channels), places)  # [N k kH kW, C]
    return rows.reshape(drawn.numel(), height * width, channels).transpose(1, 2)


def _rows_at(rows: Tensor, places: Tensor) -> Tensor:
    """Rows [N, P, C] at places [N, k] of each: [N k, C]."""
    starts = torch.arange(len(rows), device=rows.device)[:, None] * rows.shape[1]
    return rows.flatten(0, 1).index_select(0, (places + starts).flatten())
