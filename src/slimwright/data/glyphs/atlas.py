"""Distance maps: for every character in every font, how far each point of a square lies from the pen's path.

A line of half width w is where the distance is below w, so one map serves every width, size and sharpness, and
sampling it through a warp draws the warped character. Distance is measured in the frame in which the pen is a circle
of the same area: exact at the map's points, bilinear between them.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from slimwright.data.glyphs.fonts import FONTS, Font, segments
from slimwright.data.glyphs.strokes import SUPERCLASSES

REACH = 6.0  # the map covers the square from -REACH to REACH; characters fill -4 to 4
RESOLUTION = 48

Lengths = NDArray[np.float64]


def atlas(members: dict[str, tuple[str, ...]]) -> Tensor:
    """Return the maps [classes * fonts, RESOLUTION, RESOLUTION], class by class."""
    maps = [
        distances(segments(SUPERCLASSES[group][character], font, serifs=group != "symbols"), font)
        for group, characters in members.items()
        for character in characters
        for font in FONTS
    ]
    return torch.from_numpy(np.stack(maps))


def distances(lines: NDArray[np.float64], font: Font) -> NDArray[np.float32]:
    """Return the distance map [RESOLUTION, RESOLUTION] of line segments [S, 2, 2] under the font's pen."""
    at = ((np.arange(RESOLUTION) + 0.5) / RESOLUTION * 2 - 1) * REACH
    page_x, page_y = np.meshgrid(at, at)
    x, y = _in_pen_frame(page_x.reshape(-1, 1), page_y.reshape(-1, 1), font)  # [R*R, 1]
    ends_x, ends_y = _in_pen_frame(lines[..., 0], lines[..., 1], font)  # [S, 2]
    along_x, along_y = ends_x[:, 1] - ends_x[:, 0], ends_y[:, 1] - ends_y[:, 0]
    away_x, away_y = x - ends_x[:, 0], y - ends_y[:, 0]  # [R*R, S]
    length = np.maximum(along_x**2 + along_y**2, np.float32(1e-9))
    share = np.clip((away_x * along_x + away_y * along_y) / length, 0, 1)
    away_x, away_y = away_x - share * along_x, away_y - share * along_y
    nearest: NDArray[np.float32] = np.sqrt((away_x * away_x + away_y * away_y).min(1))
    return nearest.reshape(RESOLUTION, RESOLUTION)


def _in_pen_frame(x: Lengths, y: Lengths, font: Font) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Turn and stretch the plane so that the pen is a circle."""
    angle, stretch = np.radians(font.angle), np.sqrt(font.nib)
    cos, sin = np.cos(angle), np.sin(angle)
    along, across = (cos * x + sin * y) / stretch, (cos * y - sin * x) * stretch
    return along.astype(np.float32), across.astype(np.float32)
