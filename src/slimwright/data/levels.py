"""A data set as levels, for a network that normalizes them itself."""

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from slimwright.data.dataset import Augment, Dataset
from slimwright.data.preprocessing import LEVELS
from slimwright.data.streamed import StreamedData
from slimwright.errors import DataError


@dataclass(frozen=True)
class Taken:
    """What a network must do to levels: (level / scale - mean) / std, the channels in the opposite order before."""

    mean: Tensor  # [C], or [1] for all channels
    std: Tensor
    scale: float
    flipped: bool

    def normalized(self, levels: Tensor) -> Tensor:
        """Return what the network read so far, for levels [N, C, H, W]."""
        mean, std = (value.reshape(-1, 1, 1) for value in (self.mean, self.std))
        return ((levels.flip(1) if self.flipped else levels) / self.scale - mean) / std


def as_levels(data: Dataset) -> tuple[StreamedData, Taken]:
    """Return a data set whose images are levels 0..255 in the order RGB, and what it did to them before.

    Raises DataError where its levels are not known.
    """
    if not isinstance(data, StreamedData) or not _bytes(data):
        raise DataError(
            f"the levels of '{data.name}' are not known, so its normalization cannot be put into the model; use "
            "pictures in a folder, say"
        )
    flipped = data.how is not None and data.how.channels == "BGR"
    taken = Taken(torch.tensor(data.mean), torch.tensor(data.std), data.scale, flipped)
    nothing = {"mean": (0.0,), "std": (1.0,), "scale": 1.0}
    if data.how is not None and data.remade is not None:
        levels = data.remade(replace(data.how, channels="RGB" if flipped else data.how.channels, **nothing))  # type: ignore[arg-type]
    else:
        levels = replace(data, **nothing)  # type: ignore[arg-type]
    said = {
        name: data.preprocessing[name] for name in ("channels", "scale", "mean", "std") if name in data.preprocessing
    }
    augment = _augmented(data.augment, taken) if data.augment else None
    return replace(levels, raw={**levels.raw, "embedded": said}, augment=augment), taken


def _bytes(data: StreamedData) -> bool:
    """True where images alone are read, as bytes."""
    share = data.shares["calibration"]
    raw = share.read(share.numbers[:1])
    return not isinstance(raw, tuple) and raw.dtype == np.uint8


def _augmented(augment: Augment, taken: Taken) -> Augment:
    """Change levels as normalized images were changed: zeros that move in are the mean there."""
    mean, std = (value.reshape(-1, 1, 1) for value in (taken.mean, taken.std))

    def augmented(levels: Tensor, generator: torch.Generator) -> Tensor:
        changed = augment((levels / taken.scale - mean) / std, generator)
        return ((changed * std + mean) * taken.scale).clamp(0, LEVELS)

    return augmented
