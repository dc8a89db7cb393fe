"""Columns of a weight matrix eliminated block by block, the others making up for them: the optimal brain surgeon.

With P the inverse covariance of what the columns read and W the weights, eliminating a block r costs
tr(W_r P_rr^-1 W_r^T) and turns P into P - P_r^T P_rr^-1 P_r and W into W - W_r P_rr^-1 P_r (Hassibi and Stork 1993).
With L L^T = P_rr, y = L^-1 P_r and v = W_r L^-T these are P - y^T y and W - v y. So rows y and columns v are collected
and applied many at a time, which is a product of matrices rather than a pass over P for each block. What each step
needs of every block, P_cc and W_c^T W_c, is kept up to date by itself. Exact up to rounding, in float64.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import blas, lapack, solve_triangular

LEAST_ROWS, MOST_ROWS = 64, 256  # collected before they are applied: a sixteenth of the columns
Floats = NDArray[np.float64]


class Elimination:
    """Weights [O, D] and inverse covariance [D, D] as blocks of columns go; `blocks` [n, k] says which columns.

    Of the inverse the triangle above the diagonal counts. `own` and `grams` [n, k, k] are P_cc and W_c^T W_c of each
    block. No array that is given changes.
    """

    def __init__(self, weight: Floats, inverse: Floats, blocks: NDArray[np.int64], own: Floats, grams: Floats) -> None:
        self.weight, self.inverse, self.blocks = weight, inverse, blocks
        self.own, self.grams = own, grams
        self.there = np.ones(len(blocks), bool)
        most = min(max(len(inverse) // 16, LEAST_ROWS), MOST_ROWS) + blocks.shape[1]
        self.rows = np.empty((most, len(inverse)))  # y
        self.moved = np.empty((len(weight), most))  # v
        self.collected = 0

    def losses(self) -> Floats:
        """Return what eliminating each block alone would cost now [n]; infinite for those that are gone."""
        found = np.full(len(self.blocks), np.inf)
        own, grams = self.own[self.there], self.grams[self.there]
        if self.blocks.shape[1] == 1:
            found[self.there] = grams[:, 0, 0] / own[:, 0, 0]
        else:
            found[self.there] = np.linalg.solve(own, grams).trace(axis1=1, axis2=2)
        return found

    def eliminate(self, block: int) -> None:
        """Take a block out; the others make up for it."""
        if self.collected + self.blocks.shape[1] > len(self.rows):
            self._apply()
        at, some = self.blocks[block], slice(self.collected)
        rows, moved = self.rows[some], self.moved[:, some]
        root = np.linalg.cholesky(self.own[block])
        row = _solved(root, self._row(at) - rows[:, at].T @ rows)  # [k, D]
        column = _solved(root, (self.weight[:, at] - moved @ rows[:, at]).T)  # [k, O]
        pulled = column @ self.weight - (column @ moved) @ rows  # [k, D]
        added = slice(self.collected, self.collected + len(at))
        self.rows[added], self.moved[:, added] = row, column.T
        self.collected = added.stop
        self.there[block] = False
        self._update(row, pulled, column @ column.T)

    def _update(self, row: Floats, pulled: Floats, square: Floats) -> None:
        """Bring P_cc and W_c^T W_c of the blocks that are there up to date; `pulled` is v^T W, `square` v^T v."""
        blocks = self.blocks[self.there]
        rows, pulls = (part[:, blocks].transpose(1, 0, 2) for part in (row, pulled))  # [n, k, k]
        across = rows.transpose(0, 2, 1)
        both = across @ (pulls - 0.5 * (square @ rows))
        self.own[self.there] -= across @ rows
        self.grams[self.there] -= both + both.transpose(0, 2, 1)

    def _row(self, at: NDArray[np.int64]) -> Floats:
        """Rows of the inverse."""
        return np.array([np.concatenate([self.inverse[:i, i], self.inverse[i, i:]]) for i in at])

    def _apply(self) -> None:
        """Apply what was collected, and let go of the columns that are gone."""
        rows, moved = self.rows[: self.collected], self.moved[:, : self.collected]
        left = np.sort(self.blocks[self.there].ravel())
        rows = np.ascontiguousarray(rows[:, left])
        self.weight = self.weight[:, left] - moved @ rows
        inverse = np.ascontiguousarray(self.inverse[np.ix_(left, left)])
        blas.dsyrk(-1.0, rows.T, beta=1.0, c=inverse.T, lower=1, overwrite_c=1)  # the upper triangle, row by row
        self.inverse = inverse
        self.blocks = np.searchsorted(left, self.blocks)
        self.rows, self.collected = np.empty((len(self.rows), len(left))), 0
        self.grams[self.there] = _grams(self.weight, self.blocks[self.there])


def elimination(weight: Floats, inverse: Floats, blocks: NDArray[np.int64]) -> Elimination:
    """Return the elimination of `blocks` [n, k] of the columns of `weight` [O, D]; `inverse` [D, D] is P.

    Of the inverse the triangle above the diagonal counts. Columns in no block stay, and make up for others, too.
    """
    used = np.sort(blocks.ravel())
    if len(used) < len(inverse):
        weight, inverse, blocks = weight[:, used], inverse[np.ix_(used, used)], np.searchsorted(used, blocks)
    if len(weight) > weight.shape[1]:
        weight = np.asarray(np.linalg.qr(weight, mode="r"))  # the same W^T W, which is all that counts
    one, other = blocks[:, :, None], blocks[:, None, :]
    own = inverse[np.minimum(one, other), np.maximum(one, other)]
    return Elimination(weight, inverse, blocks, own, _grams(weight, blocks))


def inverted(covariance: Floats, ridge: float) -> Floats:
    """Return the inverse of a covariance with `ridge` added to its diagonal.

    Of both matrices the triangle above the diagonal counts. Where rounding left the covariance indefinite by more than
    that, the ridge is larger.
    """
    while True:
        damped = covariance.copy()
        damped.flat[:: len(damped) + 1] += ridge
        root, indefinite = lapack.dpotrf(damped.T, lower=1, clean=0, overwrite_a=1)
        if not indefinite:
            inverse, _ = lapack.dpotri(root, lower=1, overwrite_c=1)
            return np.asarray(inverse.T)
        ridge *= 10


def _grams(weight: Floats, blocks: NDArray[np.int64]) -> Floats:
    """W_c^T W_c [n, k, k] of each block."""
    columns = np.ascontiguousarray(weight.T)[blocks]  # [n, k, O]
    return columns @ columns.transpose(0, 2, 1)


def _solved(root: Floats, right: Floats) -> Floats:
    """A lower triangle [k, k] solved for `right` [k, n]."""
    found: Floats = right / root if len(root) == 1 else solve_triangular(root, right, lower=True, check_finite=False)
    return found
