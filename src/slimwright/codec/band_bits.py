"""All coefficients of a picture at once: what is known of each, and their bits, which can be differentiated.

Flat, they follow level by level, the finest first.
"""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from slimwright.codec.context_net import ContextNet, Known, band_index, role_of
from slimwright.codec.contexts import CHANNELS, PHASES, Level, at_phase, own_features, sizes_of
from slimwright.codec.rates import bits_of


def flat(levels: Sequence[Tensor]) -> Tensor:
    """Return the values of all levels in one row."""
    return torch.cat([level.flatten() for level in levels])


def unflat(values: Tensor, levels: Sequence[Tensor]) -> list[Tensor]:
    """Return values in one row in the shapes of the levels."""
    parts = values.split([level.numel() for level in levels])
    return [part.view(level.shape) for part, level in zip(parts, levels, strict=True)]


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
