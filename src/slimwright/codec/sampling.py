"""Crops to train on, each from its number alone, so that a training that was stopped goes on with the same ones."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

SIDE = 256
STEPS = (8, 60)  # of the quantizer, in eighths of an octave


@dataclass(frozen=True)
class Sample:
    """A crop [1, 3, SIDE, SIDE] of whole numbers and the step that it is quantized by."""

    crop: Tensor
    step: int


def sample(pictures: Sequence[Tensor], number: int, seed: int) -> Sample:
    """Return the crop of a number: anywhere in any picture, mirrored, turned, or half as large."""
    chance = torch.Generator().manual_seed(seed * 1_000_003 + number)

    def below(end: int) -> int:
        return int(torch.randint(end, (1,), generator=chance))

    colourful = torch.tensor([3.0 if bool((one[0] != one[1]).any()) else 1.0 for one in pictures])
    picture = pictures[int(torch.multinomial(colourful, 1, generator=chance))]
    if min(picture.shape[1:]) >= 2 * SIDE and below(3) == 0:
        picture = torch.nn.functional.avg_pool2d(picture.float()[None], 2)[0].round().to(torch.uint8)
    top, left = (below(max(side - SIDE, 0) + 1) for side in picture.shape[1:])
    crop = picture[:, top : top + SIDE, left : left + SIDE]
    if below(2):
        crop = crop.flip(2)
    if below(2):
        crop = crop.transpose(1, 2)
    missing = (0, SIDE - crop.shape[2], 0, SIDE - crop.shape[1])
    crop = torch.nn.functional.pad(crop[None].float(), missing, mode="replicate")
    return Sample(crop.to(torch.uint8).contiguous(), STEPS[0] + below(STEPS[1] - STEPS[0] + 1))
