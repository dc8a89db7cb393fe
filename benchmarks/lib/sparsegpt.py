"""SparseGPT for convolutions and linear layers (Frantar and Alistarh 2023, arXiv 2301.00774), from its paper.

Layers are pruned in the order in which they run, each fed with what the layers pruned before it give. The Hessian is
X X' of what the layer reads, damped by a hundredth of its mean diagonal. Columns are gone through in their own order;
which weights of a block of columns go is chosen by w^2 / [H^-1]_jj, within the whole block for a share, within each
group of M input channels for N:M; the error is handed on to the columns behind. Targets are the layer's own weights,
biases stay, and every layer gets the same share, as in the paper.
"""

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

DAMP = 0.01
BLOCK = 128  # columns


@dataclass(frozen=True)
class Wanted:
    """A share of zeros, or N of M input channels that stay."""

    share: float = 0.0
    n_of_m: tuple[int, int] | None = None


class Seen(Exception):
    """What a layer reads was seen: the rest of the network need not run."""


def sparse_by_sparsegpt(
    model: nn.Module, images: Tensor, wanted: Wanted, shares: Mapping[str, float] | None = None
) -> nn.Module:
    """Return a copy in eval mode with sparse weights; `shares` gives layers shares of their own, by module name."""
    made = copy.deepcopy(model).eval()
    for name, layer in made.named_modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            own = Wanted(shares[name]) if shares else wanted
            columns, back = _order(layer, own)
            if columns is None:
                continue
            rows = layer.weight.detach().flatten(1).double()
            parts = zip(rows.chunk(_groups(layer)), hessians(made, layer, images), strict=True)
            pruned = [back(pruned_rows(part[:, columns], h[columns][:, columns], own)) for part, h in parts]
            layer.weight.data = torch.cat(pruned).view_as(layer.weight).to(layer.weight.dtype)
    return made


@torch.no_grad()
def hessians(model: nn.Module, layer: nn.Module, images: Tensor) -> Tensor:
    """Return the mean of x x' over positions [G, D, D] of what a layer of the model reads."""
    groups = _groups(layer)
    found: list[Tensor] = []
    counts: list[int] = []

    def see(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        (x,) = inputs
        if isinstance(layer, nn.Conv2d):
            assert not isinstance(layer.padding, str)
            x = F.unfold(x, layer.kernel_size, layer.dilation, layer.padding, layer.stride).transpose(1, 2)
        rows = x.reshape(-1, groups, x.shape[-1] // groups).transpose(0, 1)  # [G, P, D]
        found.append((rows.mT @ rows).double())
        counts.append(rows.shape[1])
        raise Seen

    handle = layer.register_forward_pre_hook(see)
    for some in images.split(64):
        try:
            model(some)
        except Seen:
            continue
    handle.remove()
    return torch.stack(found).sum(0) / sum(counts)


def pruned_rows(weight: Tensor, hessian: Tensor, wanted: Wanted) -> Tensor:
    """Return weights [O, D] with zeros, by the Hessian [D, D]; both in float64."""
    weight, size = weight.clone(), len(hessian)
    dead = hessian.diagonal() == 0
    hessian = hessian + torch.diag(DAMP * hessian.diagonal().mean() + dead.double())
    weight[:, dead] = 0
    inverse = torch.linalg.cholesky(torch.cholesky_inverse(torch.linalg.cholesky(hessian)), upper=True)
    for start in range(0, size, BLOCK):
        end = min(start + BLOCK, size)
        own = inverse[start:end, start:end]
        part, errors = weight[:, start:end].clone(), torch.zeros(len(weight), end - start, dtype=torch.float64)
        scores = (part / own.diagonal()).square()
        gone = torch.zeros_like(scores, dtype=torch.bool)
        if wanted.n_of_m is None:
            gone.view(-1)[scores.flatten().argsort()[: round(wanted.share * scores.numel())]] = True
        for at in range(end - start):
            if wanted.n_of_m is not None and at % wanted.n_of_m[1] == 0:
                n, m = wanted.n_of_m
                now = (part[:, at : at + m] / own.diagonal()[at : at + m]).square()
                gone[:, at : at + m].scatter_(1, now.topk(m - n, largest=False).indices, value=True)
            kept = torch.where(gone[:, at], 0.0, part[:, at])
            errors[:, at] = (part[:, at] - kept) / own[at, at]
            part[:, at:] -= errors[:, at, None] * own[at, at:]
            part[:, at] = kept
        weight[:, start:end] = part
        weight[:, end:] -= errors @ inverse[start:end, end:]
    return weight


def _groups(layer: nn.Module) -> int:
    return layer.groups if isinstance(layer, nn.Conv2d) else 1


def _order(layer: nn.Conv2d | nn.Linear, wanted: Wanted) -> tuple[Tensor | None, Callable[[Tensor], Tensor]]:
    """The columns in the order in which they are gone through, and the way back; None where N:M does not fit."""
    channels, size = layer.weight.shape[1], layer.weight[0].numel()
    if wanted.n_of_m is None:
        return torch.arange(size), lambda rows: rows
    if channels % wanted.n_of_m[1]:
        return None, lambda rows: rows
    columns = torch.arange(size).reshape(channels, -1).T.flatten()  # input channels of one tap side by side
    return columns, lambda rows: rows[:, columns.argsort()]
