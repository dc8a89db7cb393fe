"""The bits of a picture's bands under a context net, all passes at once, as a number that can be differentiated."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from slimwright.codec.context_net import ContextNet, band_index, role_of
from slimwright.codec.contexts import CHANNELS, PHASES, Level, at_phase, own_features, sizes_of
from slimwright.codec.rates import bits_of


@dataclass(frozen=True)
class Known:
    """Coefficients of one role and pass: their features [N, F] and bands [N], and where each came from.

    `places` are indices into all of a picture's high bands, flat, the finest first.
    """

    role: str
    phase: int
    features: Tensor
    bands: Tensor
    places: Tensor


def known(high: Sequence[Tensor], step: int) -> tuple[Known, ...]:
    """Return what is known of every coefficient of bands [B, 3, C, h, w] of whole numbers, by role and pass."""
    sizes = [sizes_of(band) for band in high]
    parts: dict[tuple[str, int], list[tuple[Tensor, Tensor, Tensor]]] = {}
    start = 0
    for number, one in enumerate(sizes):
        level = Level(one, sizes[number + 1] if number + 1 < len(sizes) else None, step)
        places = torch.arange(start, start + one.numel()).view(one.shape)
        start += one.numel()
        for channel in range(CHANNELS):
            for orient in range(3):
                shared, own = level.features(channel, orient), one[:, orient, channel]
                index = band_index(number, orient, channel)
                for phase in range(len(PHASES)):
                    rows = torch.cat((shared, own_features(own, phase)), 1)
                    rows = at_phase(rows, phase).movedim(1, -1).flatten(0, -2)
                    at = at_phase(places[:, orient, channel], phase).flatten()
                    bands = torch.full((len(rows),), index)
                    parts.setdefault((role_of(channel), phase), []).append((rows, bands, at))
    return tuple(
        Known(role, phase, *(torch.cat(column) for column in zip(*rows, strict=True)))
        for (role, phase), rows in parts.items()
    )


def bits_by_place(net: ContextNet, values: Tensor, seen: Sequence[Known]) -> Iterator[tuple[Known, Tensor]]:
    """Give the bits of flat values [coefficients] for each part of what is known of them."""
    for part in seen:
        odds, scale = net(part.features, part.role, part.phase, part.bands)
        yield part, bits_of(values[part.places], odds, scale)
