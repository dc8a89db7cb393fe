"""A picture as a file, at the rate or the quality that is asked for.

The size falls with the quantizer's step, and within a step with what a bit is worth, in four parts: one row of settings
from fine to coarse, which is searched by halving.
"""

from dataclasses import dataclass

from torch import Tensor

from slimwright.codec import packets, tiles
from slimwright.codec.packets import MOST_STEP, Head
from slimwright.codec.parameters import Parameters
from slimwright.codec.picturing import Source, picture_of, psnr_of, quantized
from slimwright.codec.tiles import Numbers
from slimwright.errors import CodecError
from slimwright.progress import Event, Tell

TRADES = (0.085, 0.095, 0.105, 0.115)  # what a bit is worth, in squared steps; the next step is as coarse as a fifth
USUAL = 1  # of them
SETTINGS = len(TRADES) * (MOST_STEP + 1)
TRIES = SETTINGS.bit_length()  # of a search


@dataclass(frozen=True)
class Aim:
    """What is asked for, one of these: eighths of an octave from the coarsest step up, most bytes, or a PSNR in dB."""

    quality: int | None = None
    most_bytes: int | None = None
    psnr: float | None = None

    def is_met(self, found: "Encoded") -> bool:
        """Whether a file is as small, or as good, as is asked."""
        if self.most_bytes is not None:
            return len(found.data) <= self.most_bytes
        return self.psnr is None or found.psnr >= self.psnr


@dataclass(frozen=True)
class Options:
    """How a file is laid out: a tile's side in pixels, and how often the head stands in it."""

    tile: int = 512
    copies: int = 1


@dataclass(frozen=True)
class Encoded:
    """A file, what a decoder makes of it, and the head and numbers in it."""

    data: bytes
    picture: Tensor
    psnr: float
    head: Head
    numbers: Numbers
    setting: int


def encoded(source: Source, shared: Parameters, aim: Aim, options: Options, tell: Tell) -> Encoded:
    """Return a picture as a file: the finest that is small enough, or the coarsest that is good enough.

    Raises CodecError where none is.
    """
    if aim.quality is not None:
        return at(source, shared, (MOST_STEP - aim.quality) * len(TRADES) + USUAL, options)
    small = aim.most_bytes is not None
    fine, coarse, best, last = 0, SETTINGS - 1, None, None
    for number in range(TRIES):
        if fine > coarse:
            break
        setting = (fine + coarse) // 2
        last = at(source, shared, setting, options)
        if aim.is_met(last):
            best = last
        if aim.is_met(last) == small:
            coarse = setting - 1
        else:
            fine = setting + 1
        tell(Event("rate", number + 1, TRIES, f"{len(last.data):,} bytes, {last.psnr:.2f} dB"))
    tell(Event("rate", TRIES, TRIES))
    assert last is not None
    if best is None:
        raise CodecError(_unmet(aim, last))
    return best


def _unmet(aim: Aim, nearest: Encoded) -> str:
    if aim.most_bytes is not None:
        return (
            f"at the coarsest step the file has {len(nearest.data):,} bytes, more than the {aim.most_bytes:,} that are "
            "asked for; allow more, or make the picture smaller"
        )
    return f"the finest step gives {nearest.psnr:.2f} dB, less than the {aim.psnr:g} that are asked for; ask for less"


def at(source: Source, shared: Parameters, setting: int, options: Options) -> Encoded:
    """Return the file of a picture for a setting, from 0, the finest."""
    step, part = divmod(setting, len(TRADES))
    numbers = quantized(source, shared, step=step, trade=TRADES[part], tile=options.tile)
    height, width = source.picture.shape[1:]
    head = Head(width, height, options.tile, step, source.rotation, shared.checksum, shared.own)
    layout = tiles.places(*head.low_size, head.tile)
    parts = [tiles.written(numbers.of(place), shared.net, step) for place in layout]
    picture = picture_of(numbers, head, shared)
    data = packets.written(head, parts, options.copies)
    return Encoded(data, picture, psnr_of(picture, source.picture), head, numbers, setting)
