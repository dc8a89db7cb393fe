"""A data set as levels, for a network that normalizes them itself."""

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from slimwright.data.dataset import Augment, Dataset
from slimwright.data.normalization import Normalization
from slimwright.data.preprocessing import LEVELS
from slimwright.data.streamed import StreamedData
from slimwright.errors import DataError


@dataclass(frozen=True)
class Taken:
    """What a network must do to levels: normalize them, the channels in the opposite order before if `flipped`."""

    numbers: Normalization
    flipped: bool

    def normalized(self, levels: Tensor) -> Tensor:
        """Return what the network read so far, for levels [N, C, H, W]."""
        return self.numbers.of(levels.flip(1) if self.flipped else levels)


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
    taken = Taken(Normalization(data.mean, data.std, data.scale), flipped)
    nothing = {"mean": (0.0,), "std": (1.0,), "scale": 1.0}
    if data.how is not None and data.remade is not None:
        levels = data.remade(replace(data.how, channels="RGB" if flipped else data.how.channels, **nothing))  # type: ignore[arg-type]
    else:
        levels = replace(data, **nothing)  # type: ignore[arg-type]
    said = {
        name: data.preprocessing[name] for name in ("channels", "scale", "mean", "std") if name in data.preprocessing
    }
    augment = _augmented(data.augment, taken.numbers) if data.augment else None
    return replace(levels, raw={**levels.raw, "embedded": said}, augment=augment), taken


def _bytes(data: StreamedData) -> bool:
    """True where images alone are read, as bytes."""
    share = data.shares["calibration"]
    raw = share.read(share.numbers[:1])
    return not isinstance(raw, tuple) and raw.dtype == np.uint8


def _augmented(augment: Augment, numbers: Normalization) -> Augment:
    """Change levels as normalized images were changed: zeros that move in are the mean there."""

    def augmented(levels: Tensor, generator: torch.Generator) -> Tensor:
        return numbers.undone(augment(numbers.of(levels), generator)).clamp(0, LEVELS)

    return augmented
