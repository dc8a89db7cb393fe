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

PER_IMAGE = 64  # positions that are taken, for each image
PER_TAP = 64  # positions that are taken, for each weight of an output
MOST_BYTES = 6e8  # of what a layer reads at its positions
LEAST_IMAGES = 64  # that positions are taken of, if there are as many
MOST_SHARE = 1 / 4  # of an image's positions that are taken, as long as there are more images
SEED = 0


class Positions:
    """The positions of one node's values that are looked at, in one chunk of images after another.

    `per_image` of each of the first `images`, dealt by a generator; or all.
    """

    def __init__(self, node: Node, images: int, per_image: int) -> None:
        self.node, self.images = node, images
        self.channel = len(node.shape) - 1 if node.op == "linear" else 1
        self.sampled = per_image < _each(node)
        self.per_image = per_image
        self._generator = torch.Generator("cpu").manual_seed(SEED)

    def drawn(self, x: Tensor) -> Tensor:
        """Return positions [N, k] in the next chunk of images, of which the node reads `x`."""
        each = prod(self.node.shape[2:]) if self.node.op == "conv2d" else x[0].numel() // x.shape[self.channel]
        if not self.sampled:
            return torch.arange(each, device=x.device).expand(len(x), each)
        stretches = torch.arange(self.per_image, dtype=torch.float64, device="cpu")
        within = torch.rand(len(x), self.per_image, generator=self._generator, dtype=torch.float64, device="cpu")
        return ((stretches + within) * (each / self.per_image)).long().clamp_max(each - 1).to(x.device)


def of_layer(net: Net, node: Node, images: int, at_once: int, *, calls: int = 1) -> Positions:
    """Return the positions at which a layer is solved; whole chunks of images, `at_once`, are looked at.

    Where it is called several times they are those of one call, with memory for all.
    """
    size = taps(net, node)
    most = int(MOST_BYTES / (4 * groups_of(node) * size * calls))
    return _dealt(node, min(max(PER_IMAGE * images, PER_TAP * size), most), images, at_once)


def of_norm(node: Node, images: int, at_once: int) -> Positions:
    """Return the positions at which a batch norm's statistics are taken."""
    return _dealt(node, PER_IMAGE * images, images, at_once)


def _dealt(node: Node, rows: int, images: int, at_once: int) -> Positions:
    """So many positions in all, of as many images as it takes not to take too many of each."""
    each = _each(node)
    if node.shape[0] != 1:  # images do not come first: all positions
        return Positions(node, images, each)
    enough = max(LEAST_IMAGES, ceil(rows / (MOST_SHARE * each)))
    some = min(ceil(enough / at_once) * at_once, images)
    return Positions(node, some, min(ceil(rows / some), each))


def _each(node: Node) -> int:
    """Positions of one image."""
    return prod(node.shape) // node.shape[len(node.shape) - 1 if node.op == "linear" else 1]


@dataclass(frozen=True)
class Seen:
    """What a layer reads at some positions, and what the reference, and the other side of a sum, are there."""

    columns: Tensor  # [G, D, P]
    wanted: Tensor  # [O, P]
    other: Tensor | None  # [O, P]


def look(net: Net, positions: Positions, origin: Origin, chunks: Iterable[Sequence[Tensor]]) -> Seen:
    """Return what is seen of a layer; each chunk holds what it reads, the values of `origin`, and perhaps the other."""
    node = positions.node
    groups, size, count = groups_of(node), taps(net, node), positions.images * positions.per_image
    columns = torch.empty(groups, size, count) if groups > 1 else torch.empty(1, count, size).mT
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
