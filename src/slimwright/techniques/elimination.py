"""Columns of a weight matrix eliminated block by block, the others making up for them: the optimal brain surgeon.

With P the inverse covariance of what the columns read and W the weights, eliminating columns r costs
tr(W_r P_rr^-1 W_r^T) and turns P into P - P_r^T P_rr^-1 P_r and W into W - W_r P_rr^-1 P_r (Hassibi and Stork 1993).
With L L^T = P_rr, y = L^-1 P_r and v = W_r L^-T these are P - y^T y and W - v y.

Which block goes next is decided among a few: only their part of P and of W^T W, which is all that their losses depend
on, is kept up to date block by block. All that went among them is then eliminated from the rest at once, which is a
product of matrices rather than a pass over P for each block. Exact up to rounding, in float64.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import blas, lapack, solve_triangular

LEAST_COLUMNS, MOST_COLUMNS = 64, 256  # eliminated from the rest at once: a sixteenth of them
Floats = NDArray[np.float64]


class Elimination:
    """Weights [O, D] and inverse covariance [D, D] as blocks of columns go; `blocks` [n, k] says which columns.

    Of the inverse the triangle above the diagonal counts. No array that is given changes.
    """

    def __init__(self, weight: Floats, inverse: Floats, blocks: NDArray[np.int64]) -> None:
        self.weight, self.inverse, self.blocks = weight, inverse, blocks
        self.there = np.ones(len(blocks), bool)
        self.gone: list[int] = []  # of those that are looked at; the rest does not know yet
        self.seen = np.zeros(0, np.int64)  # blocks that are looked at
        self.near, self.squares = np.zeros((0, 0)), np.zeros((0, 0))  # their part of P and of W^T W

    @property
    def at_once(self) -> int:
        """How many blocks to take out between two looks."""
        columns = min(max(len(self.inverse) // 16, LEAST_COLUMNS), MOST_COLUMNS)
        return max(int(columns // self.blocks.shape[1]), 1)

    def losses(self) -> Floats:
        """Return what eliminating each block alone would cost now [n]; infinite for those that are gone."""
        self._apply()
        found = np.full(len(self.blocks), np.inf)
        blocks = self.blocks[self.there]
        one, other = blocks[:, :, None], blocks[:, None, :]
        own = self.inverse[np.minimum(one, other), np.maximum(one, other)]
        columns = np.ascontiguousarray(self.weight.T)[blocks]  # [n, k, O]
        found[self.there] = _cost(own, columns @ columns.transpose(0, 2, 1))
        return found

    def look_at(self, blocks: NDArray[np.int64]) -> None:
        """Take the next blocks out of these, all of them there."""
        self._apply()
        self.seen = blocks
        columns = self.blocks[blocks].ravel()
        self.near = self.inverse[np.minimum.outer(columns, columns), np.maximum.outer(columns, columns)]
        weight = self.weight[:, columns]
        self.squares = weight.T @ weight

    def losses_seen(self) -> Floats:
        """Return what `losses` does, for the blocks that are looked at alone; infinite for all others."""
        found = np.full(len(self.blocks), np.inf)
        left = np.flatnonzero(self.there[self.seen])
        columns = self._places(left)
        one, other = columns[:, :, None], columns[:, None, :]
        found[self.seen[left]] = _cost(self.near[one, other], self.squares[one, other])
        return found

    def eliminate(self, block: int) -> None:
        """Take a block out that is looked at; the others make up for it."""
        at = self._places(np.flatnonzero(self.seen == block)).ravel()
        inverse_root = np.linalg.inv(np.linalg.cholesky(self.near[at[:, None], at]))
        row, pulled = inverse_root @ self.near[at], inverse_root @ self.squares[at]  # y and v^T W
        both = row.T @ (pulled - 0.5 * (pulled[:, at] @ inverse_root.T) @ row)
        self.near -= row.T @ row
        self.squares -= both + both.T
        self.there[block] = False
        self.gone.append(block)

    def _places(self, seen: NDArray[np.int64]) -> NDArray[np.int64]:
        """Columns of the blocks at these places of `seen`, among those of all that are looked at: [n, k]."""
        width = self.blocks.shape[1]
        return np.asarray(seen[:, None] * width + np.arange(width))

    def _apply(self) -> None:
        """Eliminate from the rest what is gone, and let go of its columns."""
        if not self.gone:
            return
        columns, left = self.blocks[self.gone].ravel(), np.sort(self.blocks[self.there].ravel())
        rows = np.array([np.concatenate([self.inverse[:i, i], self.inverse[i, i:]]) for i in columns])
        root = np.linalg.cholesky(rows[:, columns])
        row = solve_triangular(root, rows[:, left], lower=True, check_finite=False)
        moved = solve_triangular(root, self.weight[:, columns].T, lower=True, check_finite=False).T
        self.weight = self.weight[:, left] - moved @ row
        inverse = np.ascontiguousarray(self.inverse[np.ix_(left, left)])
        blas.dsyrk(-1.0, row.T, beta=1.0, c=inverse.T, lower=1, overwrite_c=1)  # the upper triangle, row by row
        self.inverse = inverse
        self.blocks = np.searchsorted(left, self.blocks)
        self.gone, self.seen = [], np.zeros(0, np.int64)


def elimination(weight: Floats, inverse: Floats, blocks: NDArray[np.int64]) -> Elimination:
    """Return the elimination of `blocks` [n, k] of the columns of `weight` [O, D]; `inverse` [D, D] is P.

    Of the inverse the triangle above the diagonal counts. Columns in no block stay, and make up for others, too.
    """
    used = np.sort(blocks.ravel())
    if len(used) < len(inverse):
        weight, inverse, blocks = weight[:, used], inverse[np.ix_(used, used)], np.searchsorted(used, blocks)
    if len(weight) > weight.shape[1]:
        weight = np.asarray(np.linalg.qr(weight, mode="r"))  # the same W^T W, which is all that counts
    return Elimination(weight, inverse, blocks)


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


def _cost(own: Floats, squares: Floats) -> Floats:
    """tr(W_c P_cc^-1 W_c^T) of each block [n], from P_cc and W_c^T W_c [n, k, k]."""
    if own.shape[1] == 1:
        return np.asarray(squares[:, 0, 0] / own[:, 0, 0])
    return np.asarray(np.linalg.solve(own, squares).trace(axis1=1, axis2=2))
