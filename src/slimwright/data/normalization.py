"""A normalization: (level / scale - mean) / std, and back. Exact up to float32 rounding."""

from dataclasses import dataclass

import torch
from torch import Tensor

from slimwright.data.preprocessing import LEVELS, Values


@dataclass(frozen=True)
class Normalization:
    """The numbers of a normalization, one for each channel or one for all, and what people call it."""

    mean: Values
    std: Values
    scale: float = LEVELS
    said: str = ""

    def of(self, levels: Tensor) -> Tensor:
        """Return levels [N, C, H, W] normalized."""
        mean, std = (torch.tensor(value).reshape(-1, 1, 1) for value in (self.mean, self.std))
        return (levels / self.scale - mean) / std

    def undone(self, images: Tensor) -> Tensor:
        """Return the levels of normalized images [N, C, H, W]."""
        mean, std = (torch.tensor(value).reshape(-1, 1, 1) for value in (self.mean, self.std))
        return (images * std + mean) * self.scale

    @property
    def text(self) -> str:
        """As `described` reads it."""
        mean, std = ("/".join(f"{number:.6g}" for number in values) for values in (self.mean, self.std))
        return f"mean={mean},std={std}" + (f",scale={self.scale:g}" if self.scale != LEVELS else "")
