"""Ridge least squares for the weights of one layer, from what it reads and what its outputs lack.

    min_dW,db  E |dW x + db - rest|^2 + r |dW|^2,    r = RIDGE x mean variance of x

The covariance of x is factorised once, in float64, so that each further wish costs two products with x. Where x says
nothing about a direction, the weights stay what they were; where nothing in x varies, all of them do.

Where there are few positions for the weights (`THIN`), weights could fit these images rather than the function. Then r
is the one with the least error to be expected on others, by generalised cross-validation (Golub, Heath and Wahba 1979)
over images, since the positions of one are alike; if that is the error of no change, there is none. Where there are
fewer positions than weights the spectrum is that of the positions' products with each other.
"""

from functools import cached_property

import torch
from torch import Tensor

from slimwright.errors import DataError
from slimwright.evidence import THIN, add_outer

RIDGE = 3e-3
THIN_RIDGES = [10.0 ** (half / 2) for half in range(-8, 7)]  # of the mean variance
MOST_FREEDOM = 0.9  # of the images: degrees of freedom of a solution that they can still judge
CONSTANT = 1e-12  # of the mean square of x: a smaller variance is rounding, whose square is 4e-15 in float32
GROWTH = 3.0  # of a ridge below the rounding of the moments, which are summed in float32
LEAST_SHARE = 1e-12  # of the largest variance, below which a direction is rounding
NOT_FINITE = "what a layer reads, or shall give, holds NaN or infinite values"
AT_ONCE = 2**13  # positions whose products are summed in float32


class LayerRidge:
    """The least-squares problem of one layer that reads `columns` [G, D, P], of G groups, at P positions.

    The columns become the problem's own: they are centred in place.
    """

    def __init__(self, columns: Tensor, images: int) -> None:
        self.mean = columns.mean(2)  # [G, D]
        self.columns = columns.sub_(self.mean[:, :, None])
        self.images = images

    @property
    def positions(self) -> int:
        """At how many positions the layer is looked at."""
        return self.columns.shape[2]

    @property
    def thin(self) -> bool:
        """True where there are few positions for the weights."""
        return self.positions < THIN * self.columns.shape[1]

    @property
    def fewer(self) -> bool:
        """True where there are no more positions than weights: the covariance is never made."""
        return self.positions <= self.columns.shape[1]

    def outputs(self, weight: Tensor) -> Tensor:
        """Return what weights [O, D] give, about its mean: [O, P]."""
        return torch.matmul(self._grouped(weight), self.columns).flatten(0, 1)

    def level(self, weight: Tensor) -> Tensor:
        """Return the mean [O] of what weights [O, D] give without a bias."""
        return torch.matmul(self._grouped(weight.double()), self.mean.double()[:, :, None]).flatten().float()

    def variance(self, weight: Tensor) -> Tensor:
        """Return the variance [O] of what weights [O, D] give."""
        if self.fewer:
            return self.outputs(weight).square().mean(1)
        grouped = self._grouped(weight.double())
        return ((grouped @ self._covariance) * grouped).sum(2).flatten().float()

    @property
    def curvature(self) -> Tensor:
        """The covariance of what the layer reads and its ridge [G, D, D], in float64: positive definite."""
        return self._factor @ self._factor.mT

    def change(self, rest: Tensor) -> Tensor:
        """Return what to add to the weights [O, D] for outputs that are nearer by `rest` [O, P].

        Raises DataError where `rest` is NaN or infinite.
        """
        groups, size, positions = self.columns.shape
        rest = self._grouped(rest - rest.mean(1, keepdim=True))  # [G, O/G, P]
        unexplained = torch.zeros(groups, rest.shape[1], size, dtype=torch.float64)
        for some, x in zip(rest.split(AT_ONCE, 2), self.columns.split(AT_ONCE, 2), strict=True):
            unexplained += torch.matmul(some, x.transpose(1, 2))
        if not unexplained.isfinite().all():
            raise DataError(NOT_FINITE)
        unexplained /= positions
        variance = torch.linalg.vector_norm(self.columns, dim=(1, 2)).double().square() / (size * positions)  # [G]
        unexplained[variance < CONSTANT * self.mean.double().square().mean(1)] = 0
        if self.thin:
            change = self._judged(unexplained, rest.square().mean(2))
        else:
            change = torch.cholesky_solve(unexplained.transpose(1, 2), self._factor).transpose(1, 2)
        return change.flatten(0, 1).float()

    def factors(self, weight: Tensor, scale: Tensor, rank: int) -> tuple[Tensor, Tensor]:
        """Return [rank, D] and [O, rank], whose product is nearest to `weight` [O, D] in what it gives on these inputs.

        `scale` [O] says how much an error of each output counts. For a layer of one group.
        """
        size = scale.double().clamp_min(1e-3 * float(scale.max()) or 1.0)[:, None]
        given = self.outputs((size * weight.double()).float())
        spread = torch.zeros(1, len(weight), len(weight), dtype=torch.float64)
        for some in given[None].split(AT_ONCE, 2):
            add_outer(some, spread)
        _, directions = torch.linalg.eigh(spread[0])  # ascending
        leading = directions[:, -rank:]  # [O, rank]
        return (leading.T @ (size * weight.double())).float(), (leading / size).float()

    def _grouped(self, rows: Tensor) -> Tensor:
        """[O, ...] as [G, O/G, ...]."""
        return rows.reshape(len(self.columns), -1, *rows.shape[1:])

    def _judged(self, unexplained: Tensor, left: Tensor) -> Tensor:
        """The change of the weights [G, O/G, D] that is expected to err least on other images; zero if none does.

        `left` [G, O/G] is the variance of what the outputs lack.
        """
        values, vectors, mean = self._spectrum  # [G, K], [G, D, K], [G]
        along = unexplained @ vectors
        best, least = torch.zeros_like(along), float(left.sum())
        for ridge in THIN_RIDGES:
            damped = (values + ridge * mean[:, None])[:, None]  # [G, 1, K]
            freedom = 1 + float((values[:, None] / damped).sum()) / len(values)
            if freedom < MOST_FREEDOM * self.images:
                explained = (along.square() * (2 * damped - values[:, None]) / damped.square()).sum(2)
                expected = float((left - explained).sum()) / (1 - freedom / self.images) ** 2
                if expected < least:
                    best, least = along / damped, expected
        return best @ vectors.transpose(1, 2)

    @cached_property
    def _covariance(self) -> Tensor:
        groups, size, positions = self.columns.shape
        gram = torch.zeros(groups, size, size, dtype=torch.float64)
        for some in self.columns.split(AT_ONCE, 2):
            add_outer(some, gram)
        if not gram.isfinite().all():
            raise DataError(NOT_FINITE)
        return gram / positions

    @cached_property
    def _factor(self) -> Tensor:
        """The Cholesky factor [G, D, D] of the covariance and its ridge."""
        return ridged_factor(self._covariance)

    @cached_property
    def _spectrum(self) -> tuple[Tensor, Tensor, Tensor]:
        """Variances [G, K] and directions [G, D, K], K of them: those there are; and the mean variance [G]."""
        size, positions = self.columns.shape[1:]
        if not self.fewer:
            values, vectors = torch.linalg.eigh(self._covariance)
            values = values.clamp_min(0)
        else:
            x = self.columns.double()
            products = x.transpose(1, 2) @ x / positions
            if not products.isfinite().all():
                raise DataError(NOT_FINITE)
            values, along = torch.linalg.eigh(products)
            values = torch.where(values > LEAST_SHARE * values.amax(1, keepdim=True), values, 0.0)
            length = (positions * values).sqrt()[:, None]  # [G, 1, K]
            vectors = torch.where(length > 0, (x @ along) / length, 0.0)
        return values, vectors, (values.sum(1) / size).clamp_min(1e-12)


def ridged_factor(covariance: Tensor) -> Tensor:
    """Return the Cholesky factor [G, D, D] of a covariance and its ridge, which grows where rounding exceeds it.

    Raises DataError where the covariance holds NaN or infinite values.
    """
    eye = torch.eye(covariance.shape[1], dtype=torch.float64)
    ridge = RIDGE * covariance.diagonal(dim1=1, dim2=2).mean(1).clamp_min(1e-12)
    while ridge.isfinite().all():
        factor, failed = torch.linalg.cholesky_ex(covariance + ridge[:, None, None] * eye)
        if not failed.any():
            return torch.as_tensor(factor)
        ridge = torch.where(failed > 0, GROWTH * ridge, ridge)
    raise DataError(NOT_FINITE)
