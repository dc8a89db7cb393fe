"""A tile's coefficients as bytes and back: one column for both directions.

A tile is a square of the picture and the coefficients of every band that lie in it. Nothing outside it is looked at, so
a tile that was lost takes no other with it. Indices into the tables are whole numbers: docs/codec.md tells the format.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from slimwright.codec.context_net import Contexts, band_index, role_of
from slimwright.codec.contexts import CHANNELS, PHASES, Level, at_phase, own_features, sizes_of
from slimwright.codec.symbols import checked, coded, indices_for
from slimwright.codec.wavelet import LEVELS, MULTIPLE, Bands
from slimwright.swz.entropy import Coder, Decoder, Encoder

LOW_BYTES = 2 * CHANNELS  # of a tile: the odds and the scale of each channel's lowest band


@dataclass(frozen=True)
class Place:
    """Where a tile lies in the lowest band: rows and columns, each of `MULTIPLE` pixels."""

    top: int
    left: int
    height: int
    width: int

    def of(self, bands: Bands) -> Bands:
        """Return views of the bands' coefficients that lie in the tile."""
        return Bands(self._in(bands.low, 1), self.of_levels(bands.high))

    def of_levels(self, levels: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Return views of what lies in the tile of maps that are as large as the levels' bands, the finest first."""
        return tuple(self._in(one, MULTIPLE >> number + 1) for number, one in enumerate(levels))

    def _in(self, band: Tensor, times: int) -> Tensor:
        rows = slice(self.top * times, (self.top + self.height) * times)
        return band[..., rows, self.left * times : (self.left + self.width) * times]


def places(height: int, width: int, tile: int) -> list[Place]:
    """Return the tiles of a picture whose lowest band has a size; `tile` is a side in pixels."""
    side = tile // MULTIPLE
    return [
        Place(top, left, min(side, height - top), min(side, width - left))
        for top in range(0, height, side)
        for left in range(0, width, side)
    ]


def empty(height: int, width: int) -> Bands:
    """Return bands of zeros for a picture whose lowest band has a size; `high` has whole numbers."""
    high = tuple(
        torch.zeros(1, 3, CHANNELS, height << LEVELS - 1 - n, width << LEVELS - 1 - n, dtype=torch.int32)
        for n in range(LEVELS)
    )
    return Bands(torch.zeros(1, CHANNELS, height, width, dtype=torch.int32), high)


@dataclass(frozen=True)
class Numbers:
    """A picture's coefficients as whole numbers, and the indices of the scales that they were coded with."""

    bands: Bands
    scales: Bands

    def of(self, place: Place) -> "Numbers":
        """Return views of what lies in a tile."""
        return Numbers(place.of(self.bands), place.of(self.scales))


def written(tile: Numbers, net: Contexts, step: int) -> bytes:
    """Return the bytes of a tile's whole numbers; its scales are filled in."""
    residuals = np.diff(np.diff(tile.bands.low[0].numpy(), axis=1, prepend=0), axis=2, prepend=0)
    heads = [indices_for(channel) for channel in residuals]
    coder = Encoder()
    for one, (odds, scale) in zip(residuals, heads, strict=True):
        coded(coder, np.full(one.size, odds), np.full(one.size, scale), one.ravel().astype(np.int32))
    _code_high(coder, tile, net, step, given=True)
    return bytes(index for head in heads for index in head) + coder.finished()


def read(data: bytes, tile: Numbers, net: Contexts, step: int) -> None:
    """Read a tile's bytes into views of numbers that are zeros. Raises ModelError where no encoder wrote them."""
    head, coder = data[:LOW_BYTES].ljust(LOW_BYTES, b"\0"), Decoder(data[LOW_BYTES:])
    for channel in range(CHANNELS):
        odds, scale = checked(head[2 * channel], head[2 * channel + 1])
        low = tile.bands.low[0, channel]
        found = coded(coder, np.full(low.numel(), odds), np.full(low.numel(), scale), None)
        sums = found.astype(np.int64).reshape(low.shape).cumsum(0).cumsum(1)
        low.copy_(torch.from_numpy(sums.clip(-(2**30), 2**30)))
    _code_high(coder, tile, net, step, given=False)


def _code_high(coder: Coder, tile: Numbers, net: Contexts, step: int, *, given: bool) -> None:
    """Code the high bands from the coarsest on; what is read is put in their place, and so are the scales."""
    parent = None
    for number in reversed(range(LEVELS)):
        numbers, scales = tile.bands.high[number], tile.scales.high[number]
        sizes = torch.zeros(numbers.shape)
        level = Level(sizes, parent, step)
        for channel in range(CHANNELS):
            for orient in range(3):
                shared, role = level.features(channel, orient), role_of(channel)
                at, own = (slice(None), orient, channel), sizes[:, orient, channel]
                for phase in range(len(PHASES)):
                    rows = torch.cat((shared, own_features(own, phase)), 1)
                    rows = at_phase(rows, phase).movedim(1, -1).flatten(0, -2)
                    odds, scale = net.indices(rows, role, phase, band_index(number, orient, channel))
                    place = at_phase(numbers[at], phase)
                    known = place.numpy().ravel().astype(np.int32) if given else None
                    found = torch.from_numpy(coded(coder, odds.numpy(), scale.numpy(), known)).view(place.shape)
                    place.copy_(found)
                    at_phase(scales[at], phase).copy_(scale.view(place.shape))
                    at_phase(own, phase).copy_(sizes_of(found))
        parent = sizes
