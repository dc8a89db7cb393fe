"""Ridge least squares for the weights of one layer, from what it reads and what it shall give.

    min_W,b  E |W x + b - y|^2 + r |W - W0|^2,    r = RIDGE x mean variance of x

The covariance of x is factorised once, in float64, so that each further wish y costs one pass over the images. Where
x says nothing about a direction, the weights stay what they were; where nothing in x varies, all of them do.

Where there are few positions for the weights (`THIN`), weights could fit these images rather than the function. Then r
is the one with the least error to be expected on others, by generalised cross-validation (Golub, Heath and Wahba 1979)
over images, since the positions of one are alike; if that is the error of W0, W0 stays.
"""

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from slimwright.errors import DataError
from slimwright.evidence import THIN, add_moments, columns
from slimwright.graph.net import Net, Node

RIDGE = 3e-3
THIN_RIDGES = [10.0 ** (half / 2) for half in range(-8, 7)]  # of the mean variance
MOST_FREEDOM = 0.9  # of the images: degrees of freedom of a solution that they can still judge
GROWTH = 3.0  # of a ridge below the rounding of the moments, which are summed in float32
CONSTANT = 1e-12  # of the mean square of x: a smaller variance is rounding, whose square is 4e-15 in float32
NOT_FINITE = "what a layer reads, or shall give, holds NaN or infinite values"
MOST_ELEMENTS = 2**25  # of the columns that are made at a time


class LayerRidge:
    """The least-squares problem of one convolution or linear layer on fixed inputs, batch by batch."""

    def __init__(self, net: Net, node: Node, inputs: Sequence[Tensor]) -> None:
        self._net, self._node, self._inputs = net, node, inputs
        self._groups = int(str(node.arguments.get("groups", 1)))
        size = net.tensors[node.tensors["weight"]][0].numel()
        self._chunk = max(MOST_ELEMENTS // (math.prod(node.shape[2:]) * size * self._groups), 1)  # images
        gram = torch.zeros(self._groups, size, size, dtype=torch.float64)
        total = torch.zeros(self._groups, size, dtype=torch.float64)
        self.positions = 0
        for batch in inputs:
            self.positions += add_moments(net, node, batch, total=total, gram=gram)
        self._mean = total / self.positions  # [G, D]
        self._covariance = gram / self.positions - self._mean[:, :, None] * self._mean[:, None, :]
        self._images = sum(len(batch) for batch in inputs)
        self.thin = self.positions < THIN * size
        ridge = RIDGE * self._covariance.diagonal(dim1=1, dim2=2).mean(1).clamp_min(1e-12)
        if self.thin:
            self._spectrum = _spectrum(self._covariance)
        else:
            self._factor = _factor(self._covariance, ridge)

    def solve(self, wanted: Sequence[Tensor], start: Tensor) -> tuple[Tensor, Tensor]:
        """Return weight [O, D] and bias [O] for the outputs `wanted`, W0 being `start` [O, D].

        Raises DataError where a wish is NaN or infinite.
        """
        before = start.double().reshape(self._groups, -1, start.shape[1])  # [G, O/G, D]
        cross = torch.zeros_like(before)
        total, squares = (torch.zeros(before.shape[:2], dtype=torch.float64) for _ in range(2))
        for batch, wish in zip(self._inputs, wanted, strict=True):
            for x, some in zip(self._columns(batch), wish.split(self._chunk), strict=True):  # [G, P, D]
                y = self._rows(some)  # [G, P, O/G]
                cross += torch.matmul(y.transpose(1, 2), x)
                total += y.sum(1, dtype=torch.float64)
                squares += y.double().square().sum(1)
        if not squares.isfinite().all():
            raise DataError(NOT_FINITE)
        mean = total / self.positions
        covariance = cross / self.positions - mean[:, :, None] * self._mean[:, None, :]
        unexplained = covariance - before @ self._covariance  # by W0
        variance = self._covariance.diagonal(dim1=1, dim2=2).mean(1)  # [G] of x
        unexplained[variance < CONSTANT * self._mean.square().mean(1)] = 0
        if self.thin:
            left = (
                squares / self.positions - mean.square() - ((covariance + unexplained) * before).sum(2)
            )  # of y - W0 x
            weight = before + self._judged(unexplained, left)
        else:
            weight = before + torch.cholesky_solve(unexplained.transpose(1, 2), self._factor).transpose(1, 2)
        bias = mean - (weight @ self._mean[:, :, None])[:, :, 0]
        return weight.reshape(start.shape).float(), bias.reshape(-1).float()

    def _judged(self, unexplained: Tensor, left: Tensor) -> Tensor:
        """The change of the weights [G, O/G, D] that is expected to err least on other images; zero if none does.

        `left` [G, O/G] is the variance of the outputs that W0 leaves.
        """
        values, vectors = self._spectrum  # [G, D], [G, D, D]
        along = unexplained @ vectors
        best, least = torch.zeros_like(along), float(left.sum())
        for ridge in THIN_RIDGES:
            damped = (values + ridge * values.mean(1, keepdim=True).clamp_min(1e-12))[:, None]  # [G, 1, D]
            freedom = 1 + float((values[:, None] / damped).sum()) / self._groups
            if freedom < MOST_FREEDOM * self._images:
                explained = (along.square() * (2 * damped - values[:, None]) / damped.square()).sum(2)
                expected = float((left - explained).sum()) / (1 - freedom / self._images) ** 2
                if expected < least:
                    best, least = along / damped, expected
        return best @ vectors.transpose(1, 2)

    def factors(self, weight: Tensor, scale: Tensor, rank: int) -> tuple[Tensor, Tensor]:
        """Return [rank, D] and [O, rank], whose product is nearest to `weight` [O, D] in what it gives on these inputs.

        `scale` [O] says how much an error of each output counts. For a layer of one group.
        """
        size = scale.double().clamp_min(1e-3 * float(scale.max()) or 1.0)[:, None]
        scaled = size * weight.double()
        _, directions = torch.linalg.eigh(scaled @ self._covariance[0] @ scaled.T)  # ascending
        leading = directions[:, -rank:]  # [O, rank]
        return (leading.T @ scaled).float(), (leading / size).float()

    def _columns(self, batch: Tensor) -> Iterator[Tensor]:
        """What the output positions of a batch read: [G, P, D], some images at a time."""
        return (columns(self._net, self._node, some).transpose(0, 1) for some in batch.split(self._chunk))

    def _rows(self, wish: Tensor) -> Tensor:
        """A wished output as [G, P, O/G]."""
        y = wish.movedim(1, -1) if self._node.op == "conv2d" else wish
        return y.reshape(-1, self._groups, y.shape[-1] // self._groups).transpose(0, 1)


def _spectrum(covariance: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues [G, D], not below zero, and eigenvectors [G, D, D]."""
    if not covariance.isfinite().all():
        raise DataError(NOT_FINITE)
    values, vectors = torch.linalg.eigh(covariance)
    return values.clamp_min(0), vectors


def _factor(covariance: Tensor, ridge: Tensor) -> Tensor:
    """The Cholesky factor [G, D, D] of a covariance and its ridge [G], which grows where rounding exceeds it."""
    eye = torch.eye(covariance.shape[1], dtype=torch.float64)
    while ridge.isfinite().all():
        factor, failed = torch.linalg.cholesky_ex(covariance + ridge[:, None, None] * eye)
        if not failed.any():
            return torch.as_tensor(factor)
        ridge = torch.where(failed > 0, GROWTH * ridge, ridge)
    raise DataError(NOT_FINITE)
