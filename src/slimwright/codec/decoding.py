"""A picture from a file, as much of it as arrived: tiles that were lost or damaged are filled in from others."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from slimwright.codec import packets, tiles
from slimwright.codec.adapting import own_parameters
from slimwright.codec.packets import Head
from slimwright.codec.parameters import Parameters
from slimwright.codec.picturing import picture_of
from slimwright.codec.tiles import Numbers, Place, empty
from slimwright.cost import check_memory, memory_there
from slimwright.errors import CodecError, ModelError
from slimwright.progress import Event, Tell

PIXEL_BYTES = 220  # of memory that decoding takes for each pixel at its peak: 209 of a picture of 1.6 million


@dataclass(frozen=True)
class Decoded:
    """A picture [3, H, W] from 0 to 255, its head, the numbers in it, and the tiles of all that were filled in."""

    picture: Tensor
    head: Head
    numbers: Numbers
    concealed: tuple[int, ...]
    tiles: int


def decoded(data: bytes, shared: Parameters, tell: Tell) -> Decoded:
    """Return the picture in a file.

    Raises CodecError where no head or no tile arrived, and where it was written with other shared parameters.
    """
    head, parts = packets.read(data)
    if head.shared != shared.checksum:
        raise CodecError(
            f"it was written with shared parameters {head.shared:08x}, and these are {shared.checksum:08x}; give the "
            "file that it was written with by --parameters"
        )
    needed = PIXEL_BYTES * head.width * head.height
    check_memory(f"a picture of {head.width}x{head.height}", needed, memory_there(), "decode it elsewhere")
    own = own_parameters(head.own, shared)
    numbers = Numbers(empty(*head.low_size), empty(*head.low_size))
    layout = tiles.places(*head.low_size, head.tile)
    lost = []
    for index, place in enumerate(layout):
        if not (index in parts and _is_read(parts[index], numbers.of(place), own, head.step)):
            lost.append(index)
        tell(Event("tiles", index + 1, len(layout)))
    if len(lost) == len(layout):
        raise CodecError("no tile of the picture arrived whole; send it again")
    _conceal(numbers, [layout[index] for index in lost])
    return Decoded(picture_of(numbers, head, own), head, numbers, tuple(lost), len(layout))


def _is_read(data: bytes, tile: Numbers, own: Parameters, step: int) -> bool:
    """Read a tile; where its bytes are none that an encoder writes, leave zeros and say so."""
    try:
        tiles.read(data, tile, own.net, step)
    except ModelError:
        for band in (tile.bands.low, *tile.bands.high, tile.scales.low, *tile.scales.high):
            band.zero_()
        return False
    return True


def _conceal(numbers: Numbers, lost: list[Place]) -> None:
    """Fill the lowest band of lost tiles from its neighbours, the nearest first; what is finer stays zero."""
    if not lost:
        return
    low = numbers.bands.low
    known = torch.ones(1, 1, *low.shape[-2:])
    for place in lost:
        known[..., place.top : place.top + place.height, place.left : place.left + place.width] = 0
    values, whole = low.float() * known, torch.ones(1, 1, 3, 3)
    while not bool(known.all()):
        counts = F.conv2d(known, whole, padding=1)
        sums = F.conv2d(values.transpose(0, 1), whole, padding=1).transpose(0, 1)
        some = (known == 0) & (counts > 0)
        values = torch.where(some, sums / counts.clamp(min=1), values)
        known = torch.where(some, 1.0, known)
    low.copy_(values.round())
