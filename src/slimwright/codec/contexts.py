"""What is known of a coefficient before it is coded, as whole numbers: its neighbours, parents and siblings.

Bands are coded from the coarsest level, channel by channel, and each band in four passes over a grid of two by two, so
that a later pass has neighbours on all sides and a pass is computed at once. A magnitude counts by its logarithm, and
neighbours on opposite sides count together.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

PHASES = ((0, 0), (1, 1), (0, 1), (1, 0))  # where each pass begins, down and across
UNIT = 8  # of a logarithm to base two
MOST_MAGNITUDE = 255
LUMA, CHROMA = 18, 26  # features of the first channel's coefficients, and of the others'
CHANNELS = 3


def logarithms() -> Tensor:
    """Return round(8 log2(1 + m)) for magnitudes from 0 to 255, found in whole numbers."""
    table = []
    for magnitude in range(MOST_MAGNITUDE + 1):
        power, found = (1 + magnitude) ** (2 * UNIT), 0
        while 2 ** (2 * found + 1) <= power:
            found += 1
        table.append(float(found))
    return torch.tensor(table)


LOGARITHMS = logarithms()


def sizes_of(values: Tensor) -> Tensor:
    """Return the logarithms of magnitudes of whole numbers, as floats that hold whole numbers."""
    return LOGARITHMS[values.abs().clamp(max=MOST_MAGNITUDE).long()]


def around(sizes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the sums of the neighbours [..., h, w] across, down and on the diagonals."""
    padded = F.pad(sizes, (1, 1, 1, 1))
    across = padded[..., 1:-1, :-2] + padded[..., 1:-1, 2:]
    down = padded[..., :-2, 1:-1] + padded[..., 2:, 1:-1]
    diagonal = padded[..., :-2, :-2] + padded[..., :-2, 2:] + padded[..., 2:, :-2] + padded[..., 2:, 2:]
    return across, down, diagonal


def doubled(values: Tensor, height: int, width: int) -> Tensor:
    """Return each value twice across and down, cut to a size."""
    return values.repeat_interleave(2, -2).repeat_interleave(2, -1)[..., :height, :width]


class Level:
    """The bands of a level as far as they are known: logarithms of magnitudes [B, 3, C, h, w]."""

    def __init__(self, sizes: Tensor, parent: Tensor | None, step: int) -> None:
        self.sizes, self.step = sizes, step
        height, width = sizes.shape[-2:]
        if parent is None:
            blank = torch.zeros_like(sizes)
            self.parents: tuple[Tensor, ...] = (blank,) * 5
        else:
            wide = F.avg_pool2d(parent.flatten(0, 2)[:, None], 5, 1, 2, divisor_override=1)[:, 0].view_as(parent)
            self.parents = tuple(doubled(one, height, width) for one in (parent, *around(parent), wide))

    def features(self, channel: int, orient: int) -> Tensor:
        """Return what is known of a band's coefficients [B, features, h, w] but for the band's own neighbours."""
        at = (slice(None), orient, channel)
        blank = torch.zeros_like(self.sizes[at])
        known = [one[at] for one in self.parents]
        known.append(sum((self.parents[0][:, o, channel] for o in range(3) if o != orient), blank))
        for sibling in (orient - 1, orient - 2):
            known += with_around(self.sizes[:, sibling, channel]) if sibling >= 0 else [blank] * 4
        known.append(torch.full_like(blank, self.step))
        if channel:
            known += with_around(self.sizes[:, orient, 0])
            known += with_around(self.sizes[:, orient, 1]) if channel == 2 else [blank] * 4
        return torch.stack(known, 1)


def with_around(sizes: Tensor) -> list[Tensor]:
    """Return values and the sums of their neighbours."""
    return [sizes, *around(sizes)]


def own_features(sizes: Tensor, phase: int) -> Tensor:
    """Return what is known of the neighbours within a band [B, 3, h, w] in a pass."""
    across, down, diagonal = around(sizes)
    blank = torch.zeros_like(sizes)
    shown: Sequence[Tensor] = (
        (blank, blank, blank),
        (blank, blank, diagonal),
        (across, down, blank),
        (across, down, diagonal),
    )[phase]
    return torch.stack(tuple(shown), 1)


def at_phase(values: Tensor, phase: int) -> Tensor:
    """Return the places [..., h, w] of a pass."""
    down, across = PHASES[phase]
    return values[..., down::2, across::2]
