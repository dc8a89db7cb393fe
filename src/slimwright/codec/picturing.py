"""From a picture to its coefficients in levels, and from whole numbers to a picture."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from slimwright.codec.choosing import chosen, first_choice
from slimwright.codec.colour import Rotation, restored, rotated, rotation_of
from slimwright.codec.dequantizing import channels_of, step_of, values_of
from slimwright.codec.packets import Head
from slimwright.codec.parameters import Parameters
from slimwright.codec.tiles import Numbers, empty, places
from slimwright.codec.wavelet import FRACTION_BITS, LEVELS, MULTIPLE, Bands, analysed

ROUNDS = 2  # of choosing
TOP = 255


@dataclass(frozen=True)
class Source:
    """A picture [3, H, W], its channels and bands as whole numbers under a rotation, and what errors count for.

    `channels` and `bands` are padded and have `FRACTION_BITS`. `weights` [1, 1, h, w] are of the pixels and then of the
    levels, the finest first; () where all errors count alike.
    """

    picture: Tensor
    rotation: Rotation
    channels: Tensor
    bands: Bands
    weights: tuple[Tensor, ...] = ()

    def in_steps(self, step: float) -> Bands:
        """Return the bands in units of a step, as float64: the same on every platform."""
        unit = 1 / (step * (1 << FRACTION_BITS))
        return Bands(self.bands.low.double() * unit, tuple(one.double() * unit for one in self.bands.high))


def source_of(picture: Tensor, weights: Tensor | None = None) -> Source:
    """Return what is coded of a picture [3, H, W] from 0 to 255; `weights` [H, W] are above zero, one being usual."""
    rotation = rotation_of(picture)
    padded = padded_to_multiple(picture[None].float()).long()
    maps = [] if weights is None else [padded_to_multiple(weights[None, None].double())]
    for _ in range(LEVELS if maps else 0):
        maps.append(F.avg_pool2d(maps[-1], 2))
    channels = rotated(padded, rotation, FRACTION_BITS)
    return Source(picture, rotation, channels, analysed(channels), tuple(maps))


def padded_to_multiple(picture: Tensor) -> Tensor:
    """Return a picture [B, C, H, W] whose last rows and columns are repeated up to a size that has all levels."""
    height, width = picture.shape[-2:]
    return F.pad(picture, (0, -width % MULTIPLE, 0, -height % MULTIPLE), mode="replicate")


def quantized(source: Source, shared: Parameters, *, step: int, trade: float, tile: int) -> Numbers:
    """Return the numbers that the encoder chooses tile by tile; `trade` is what a bit is worth, in squared steps."""
    exact = source.in_steps(step_of(step))
    height, width = exact.low.shape[-2:]
    made = Numbers(empty(height, width), empty(height, width))
    made.bands.low.copy_(torch.floor(exact.low + 0.5))
    for place in places(height, width, tile):
        levels = place.of(exact).high
        weights = place.of_levels([one[:, :, None] for one in source.weights[1:]])
        numbers = first_choice(levels)
        for _ in range(ROUNDS):
            numbers = chosen(levels, numbers, shared.net, shared.offsets, step=step, trade=trade, weights=weights)
        for one, found in zip(place.of(made.bands).high, numbers, strict=True):
            one.copy_(found)
    return made


def picture_of(numbers: Numbers, head: Head, shared: Parameters) -> Tensor:
    """Return the picture [3, H, W] from 0 to 255, in whole numbers, of coefficients and the scales of their coding."""
    step = step_of(head.step)
    channels = channels_of(coefficients(numbers, shared), step, shared.tensors)
    picture = restored(channels, head.rotation)[0, :, : head.height, : head.width]
    return picture.round().clamp(0, TOP).to(torch.uint8)


def coefficients(numbers: Numbers, shared: Parameters) -> Bands:
    """Return the coefficients in steps that whole numbers stand for."""
    high = (
        values_of(band.float(), scales.long(), shared.offsets)
        for band, scales in zip(numbers.bands.high, numbers.scales.high, strict=True)
    )
    return Bands(numbers.bands.low.float(), tuple(high))


def psnr_of(one: Tensor, other: Tensor) -> float:
    """Return the peak signal-to-noise ratio of two pictures from 0 to 255, in dB."""
    error = (one.double() - other.double()).square().mean()
    return float(10 * torch.log10(TOP**2 / error.clamp(min=1e-10)))
