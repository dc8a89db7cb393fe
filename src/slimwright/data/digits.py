"""Handwritten digits that scikit-learn ships: 1,797 real images of 8x8 in 10 classes, up-sampled to 32x32.

Source: Alpaydin and Kaynak 1998, "Optical Recognition of Handwritten Digits", UCI Machine Learning Repository.
"""

import gzip
import importlib.util
import math
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from slimwright.data.dataset import ArrayData, split
from slimwright.errors import check_extra

FILE = "datasets/data/digits.csv.gz"  # of scikit-learn: reading it needs nothing of the package, which takes a second
SIZE, MEAN, STD = 32, 0.305, 0.324  # of the up-sampled images in 0..1


def digits(seed: int = 0) -> ArrayData:
    """Return the digits as [1, 32, 32] images; `seed` fixes which image is in which part.

    Raises MissingExtra where scikit-learn is not installed.
    """
    rows = _rows()
    raw = torch.from_numpy(rows[:, :-1]).reshape(-1, 1, 8, 8) / 16
    images = F.interpolate(raw, size=(SIZE, SIZE), mode="bilinear", align_corners=False)
    images = (images - MEAN) / STD
    preprocessing = {
        "input": "grey levels 0..16 of 8x8 pixels",
        "levels": 16.0,
        "scale": 16.0,
        "resize": [SIZE, SIZE],
        "interpolation": "bilinear, half-pixel centres",
        "mean": [MEAN],
        "std": [STD],
        "layout": "NCHW",
    }
    parts = split(images, torch.from_numpy(rows[:, -1]).long(), seed=seed)
    return ArrayData("digits", tuple(str(i) for i in range(10)), parts, preprocessing, jittered)


def _rows() -> np.ndarray:
    """Grey levels of 64 pixels and the digit, [1797, 65]."""
    check_extra("data", "the digits are a file of", "sklearn")
    package = importlib.util.find_spec("sklearn")
    assert package is not None and package.origin is not None
    with gzip.open(Path(package.origin).parent / FILE, "rt") as file:
        return np.loadtxt(file, delimiter=",", dtype=np.float32)


def jittered(images: Tensor, generator: torch.Generator) -> Tensor:
    """Return the images turned by up to 12 degrees, scaled by up to 15 % and moved by up to 2.5 pixels, with noise."""
    n = len(images)

    def uniform(limit: float) -> Tensor:
        return (torch.rand(n, generator=generator) * 2 - 1) * limit

    angle, scale = uniform(12 * math.pi / 180), 1 + uniform(0.15)
    cos, sin = torch.cos(angle) / scale, torch.sin(angle) / scale
    shift = 5 / images.shape[-1]
    theta = torch.stack([torch.stack([cos, -sin, uniform(shift)], 1), torch.stack([sin, cos, uniform(shift)], 1)], 1)
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    moved = F.grid_sample(images, grid, padding_mode="border", align_corners=False)
    return moved + 0.1 * torch.randn(moved.shape, generator=generator)
