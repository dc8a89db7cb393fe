"""What each output position of a layer reads: the columns that meet its weight matrix, and their moments.

Windows are strided views of the padded input, so that only some columns at a time are ever laid out. Second moments are
taken about the channels' means in float32 and moved back in float64: the covariance has float32's precision however
large the mean is.
"""

from collections.abc import Iterator
from math import prod

import torch
from torch import Tensor
from torch.nn import functional as F

from slimwright.graph.net import Net, Node
from slimwright.graph.ops import pair_of

MOST_TAPS = 4608  # 512 channels of 3x3: a Gram matrix of 170 MB; wider layers are not observed
THIN = 2  # positions per tap; with fewer, weights that are solved would fit the images rather than the function
MOST_ELEMENTS = 2**22  # of the columns that are laid out at a time, if these are many positions
MANY = 4096  # positions that are summed at a time: with fewer, a wide Gram matrix costs more to write than to compute
HALVED_AT = 512  # taps from which on half a Gram matrix is computed and mirrored


def taps(net: Net, node: Node) -> int:
    """Weights that one output reads: columns of the layer's weight matrix, per group."""
    return int(net.tensors[node.tensors["weight"]][0].numel())


def groups_of(node: Node) -> int:
    """Groups of a layer: 1 but for grouped convolutions."""
    return int(str(node.arguments.get("groups", 1)))


def columns(net: Net, node: Node, x: Tensor) -> Tensor:
    """Return what each output position of a layer reads: [positions, G, D], D ordered by channel, then tap."""
    return _windows(net, node, x).reshape(groups_of(node), taps(net, node), -1).permute(2, 0, 1)


def positions(node: Node) -> int:
    """Return how many output positions a layer has for one image."""
    return prod(node.shape[2:]) if node.op == "conv2d" else prod(node.shape[1:-1])


def by_channel(node: Node, x: Tensor) -> Tensor:
    """Return what a layer reads or gives as [N, channels, positions of an image]."""
    return x.flatten(2) if node.op == "conv2d" else x.reshape(len(x), -1, x.shape[-1]).transpose(1, 2)


def add_moments(net: Net, node: Node, x: Tensor, *, total: Tensor, gram: Tensor) -> int:
    """Add the sum of the columns of `x` to `total` [G, D], and that of their outer products to `gram` [G, D, D].

    Both are float64. Returns the number of positions.
    """
    positions = 0
    means = by_channel(node, x).mean((0, 2))  # [C]
    mean = means.double().repeat_interleave(total.numel() // len(means)).reshape(total.shape)  # [G, D]
    for some in _chunks(_windows(net, node, x)):
        centred = torch.empty(some.shape, dtype=some.dtype, device=some.device)
        torch.sub(some, means.reshape(-1, 1, 1, 1, 1, 1), out=centred)
        rows = centred.reshape(*total.shape, -1)  # [G, D, positions]
        positions += rows.shape[2]
        rest, moved = rows.sum(2).double(), rows.shape[2] * mean
        total += rest + moved
        half = rest + 0.5 * moved
        add_outer(rows, gram)
        gram.baddbmm_(torch.stack([mean, half], 2), torch.stack([half, mean], 1))
    return positions


def add_outer(rows: Tensor, gram: Tensor) -> None:
    """Add rows times themselves, [G, D, P] x [G, P, D], to `gram`: what mirrors something else is not computed."""
    size = rows.shape[1]
    if size < HALVED_AT:
        gram += torch.matmul(rows, rows.transpose(1, 2))
        return
    (top, bottom), half = rows.tensor_split(2, 1), size // 2 + size % 2
    across = torch.matmul(top, bottom.transpose(1, 2))
    gram[:, :half, half:] += across
    gram[:, half:, :half] += across.transpose(1, 2)
    add_outer(top, gram[:, :half, :half])
    add_outer(bottom, gram[:, half:, half:])


def _windows(net: Net, node: Node, x: Tensor) -> Tensor:
    """What each output position reads, as a view: [C, kH, kW, N, H, W]; a linear layer's positions stand for N."""
    if node.op == "linear":
        return x.reshape(-1, x.shape[-1]).T[:, None, None, :, None, None]
    stride, dilation = (pair_of(node.arguments[what]) for what in ("stride", "dilation"))
    spans = _spans(net, node)
    padded = F.pad(x, padding_of(net, node)).transpose(0, 1)  # [C, N, ...]
    windows = padded.unfold(2, spans[0] + 1, stride[0]).unfold(3, spans[1] + 1, stride[1])
    taken = windows[..., :: dilation[0], :: dilation[1]]  # [C, N, H, W, kH, kW]
    return taken.permute(0, 4, 5, 1, 2, 3)


def padding_of(net: Net, node: Node) -> tuple[int, int, int, int]:
    """Return the rows and columns of zeros around what a convolution reads: left, right, top, bottom."""
    padding = node.arguments["padding"]
    if padding == "same":
        down, across = _spans(net, node)
        return across // 2, across - across // 2, down // 2, down - down // 2
    top, left = (0, 0) if padding == "valid" else pair_of(padding)
    return left, left, top, top


def _spans(net: Net, node: Node) -> tuple[int, int]:
    """How far apart the first and the last tap of a convolution are, down and across."""
    height, width = net.tensors[node.tensors["weight"]].shape[2:]
    down, across = pair_of(node.arguments["dilation"])
    return down * (height - 1), across * (width - 1)


def _chunks(windows: Tensor) -> Iterator[Tensor]:
    """The windows in parts of some images, or some rows of one."""
    *kernel, _, height, width = windows.shape
    most = max(MOST_ELEMENTS // prod(kernel), MANY)  # positions
    for some in windows.split(max(most // (height * width), 1), 3):
        yield from some.split(max(most // width, 1), 4)
