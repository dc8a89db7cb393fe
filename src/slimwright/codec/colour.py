"""Colours as three channels that correlate little: a rotation of each picture's own, in four whole numbers.

A quaternion of whole numbers is a rotation in rational numbers, so its inverse is exact and an error keeps its size.
The rotation is that of the principal components of what neighbouring pixels differ by.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Rotation = tuple[int, int, int, int]
MOST = 100  # of a quaternion's largest part
GREY = (0.57735, 0.57735, 0.57735)


def rotation_of(picture: Tensor) -> Rotation:
    """Return the rotation for a picture [3, H, W] of whole numbers; its first channel has the most energy."""
    pixels = picture.long().numpy()
    down, across = np.diff(pixels, axis=1).reshape(3, -1), np.diff(pixels, axis=2).reshape(3, -1)
    energy = (down @ down.T + across @ across.T).astype(np.float64)
    if len({*pixels.reshape(3, -1).var(1)}) == 1 and np.allclose(energy, energy[0, 0]):  # a grey picture
        energy = np.outer(GREY, GREY) + 1e-3 * np.diag((3.0, 2.0, 1.0))
    axes = np.linalg.eigh(energy)[1].T[::-1].copy()
    axes *= np.where(axes.sum(1) < 0, -1.0, 1.0)[:, None]
    if np.linalg.det(axes) < 0:
        axes[2] *= -1
    return _quaternion(axes)


def matrix_of(rotation: Rotation) -> tuple[NDArray[np.int64], int]:
    """Return a rotation as whole numbers [3, 3] and what they are divided by."""
    a, b, c, d = rotation
    rows = (
        (a * a + b * b - c * c - d * d, 2 * (b * c - a * d), 2 * (b * d + a * c)),
        (2 * (b * c + a * d), a * a - b * b + c * c - d * d, 2 * (c * d - a * b)),
        (2 * (b * d - a * c), 2 * (c * d + a * b), a * a - b * b - c * c + d * d),
    )
    return np.array(rows, np.int64), a * a + b * b + c * c + d * d


def rotated(picture: Tensor, rotation: Rotation, fraction_bits: int) -> Tensor:
    """Return the channels [B, 3, H, W] of a picture of whole numbers, with bits below the point, rounded."""
    matrix, whole = matrix_of(rotation)
    sums = torch.einsum("ij,bjhw->bihw", torch.from_numpy(matrix), picture.long()) << fraction_bits
    return torch.div(sums + whole // 2, whole, rounding_mode="floor")


def restored(channels: Tensor, rotation: Rotation) -> Tensor:
    """Return the picture [B, 3, H, W] of channels in floats."""
    matrix, whole = matrix_of(rotation)
    return torch.einsum("ij,bihw->bjhw", torch.from_numpy(matrix).to(channels) / whole, channels)


def _quaternion(axes: NDArray[np.float64]) -> Rotation:
    """Return the nearest quaternion of small whole numbers; the eigenvector of Bar-Itzhack 2000."""
    m = axes
    form = np.array(
        (
            (m[0, 0] + m[1, 1] + m[2, 2], m[2, 1] - m[1, 2], m[0, 2] - m[2, 0], m[1, 0] - m[0, 1]),
            (m[2, 1] - m[1, 2], m[0, 0] - m[1, 1] - m[2, 2], m[1, 0] + m[0, 1], m[2, 0] + m[0, 2]),
            (m[0, 2] - m[2, 0], m[1, 0] + m[0, 1], m[1, 1] - m[0, 0] - m[2, 2], m[2, 1] + m[1, 2]),
            (m[1, 0] - m[0, 1], m[2, 0] + m[0, 2], m[2, 1] + m[1, 2], m[2, 2] - m[0, 0] - m[1, 1]),
        )
    )
    found = np.linalg.eigh(form)[1][:, -1]
    found *= MOST / max(found.tolist(), key=abs)
    a, b, c, d = (int(part) for part in np.rint(found))
    return a, b, c, d
