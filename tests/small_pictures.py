"""Small pictures for tests of the codec, made by number."""

import numpy as np
import torch
from torch import Tensor


def drawn(height: int, width: int, seed: int = 0) -> Tensor:
    """A picture [3, H, W] of smooth colours, edges and a little noise."""
    chance = np.random.default_rng(seed)
    rows, columns = np.mgrid[:height, :width] / 64.0
    made = np.zeros((3, height, width))
    for channel in range(3):
        a, b, c = chance.uniform(-3, 3, 3)
        made[channel] = 120 + 70 * np.sin(a * rows + b * columns + c)
    made[:, (rows + columns) % 1.1 > 0.7] *= chance.uniform(0.3, 0.9)
    made += chance.normal(0, 3, made.shape)
    return torch.from_numpy(made.clip(0, 255).round().astype(np.uint8))
