"""Draw characters into pictures: seen from an angle, on a textured background, among clutter, unevenly lit, with noise.

Every picture is computed from its own random numbers, so that it is the same in whatever batch it is asked for. The
result is 8-bit RGB, as a camera would give it.
"""

from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from slimwright.data.glyphs.atlas import REACH
from slimwright.data.glyphs.counter_rng import Words, uniform
from slimwright.data.glyphs.distortions import LARGEST, THICKEST, Distortions
from slimwright.data.glyphs.fonts import BOX, FONTS

NEIGHBOURS, LINES, PATCHES = 2, 2, 5  # PATCHES: the texture is noise on a grid of so many points each way
WORDS = 64  # words of 16-bit numbers that the scene may use; the pixels' noise comes after them
TURN = 2 * np.pi
CHUNK = 64  # pictures drawn at once: what fits a core's cache


def pictures(
    maps: Tensor, classes: NDArray[np.int64], keyed: Words, size: int, distortions: Distortions
) -> NDArray[np.uint8]:
    """Return pictures [N, 3, size, size] of the classes [N], one for each word of `keyed` [N]."""
    drawn = [
        _draw(maps, classes[start : start + CHUNK], keyed[start : start + CHUNK], size, distortions)
        for start in range(0, len(classes), CHUNK)
    ]
    return np.concatenate(drawn) if drawn else np.zeros((0, 3, size, size), np.uint8)


class Draws:
    """The random numbers of N pictures, handed out in a fixed order."""

    def __init__(self, keyed: Words) -> None:
        self.keyed, self.numbers, self.used = keyed, uniform(keyed, 4 * WORDS), 0

    def take(self, *shape: int) -> Tensor:
        """Return the next numbers in 0..1, [N, *shape, 1, 1]: ready to meet a picture [..., H, W]."""
        count = int(np.prod(shape))
        taken = self.numbers[:, self.used : self.used + count]
        self.used += count
        assert self.used <= 4 * WORDS
        return torch.from_numpy(np.ascontiguousarray(taken)).reshape(len(taken), *shape, 1, 1)

    def either(self, limit: float, *shape: int) -> Tensor:
        """Return the next numbers in -limit..limit."""
        return (self.take(*shape) * 2 - 1) * limit


@dataclass(frozen=True)
class View:
    """Where each pixel lies on the character's page, and how many pixels an edge rises in per unit; [N, H, W] each."""

    x: Tensor
    y: Tensor
    sharpness: Tensor

    def covered(self, distance: Tensor, width: Tensor) -> Tensor:
        """Return how much of each pixel a line of half width `width` covers, given the distance from its middle."""
        return (0.5 + (width - distance) * self.sharpness).clamp(0, 1)


@dataclass(frozen=True)
class Pen:
    """What a picture's characters are written with: `font` [N] of the maps, half width and colour."""

    maps: Tensor
    font: Tensor
    width: Tensor
    colour: Tensor

    def written(self, view: View, classes: Tensor, *, right: Tensor | float = 0, down: Tensor | float = 0) -> Tensor:
        """Return how much of each pixel the characters cover, moved by so many units."""
        grid = torch.stack([view.x - right, view.y - down], -1) / REACH
        maps = self.maps[classes * len(FONTS) + self.font, None]
        distance = F.grid_sample(maps, grid, padding_mode="border", align_corners=False)[:, 0]
        return view.covered(distance, self.width)


def _draw(
    maps: Tensor, classes: NDArray[np.int64], keyed: Words, size: int, distortions: Distortions
) -> NDArray[np.uint8]:
    draws = Draws(keyed)
    view = _view(draws, size, distortions)
    font = (draws.take() * len(FONTS)).long().flatten()
    width = distortions.thinnest + draws.take() * (THICKEST - distortions.thinnest)
    view = replace(view, sharpness=view.sharpness / (1 + draws.take() * distortions.blur))
    light, dark = colours(draws, distortions)  # [N, 3, 1, 1]
    swap = (draws.take(1) < 0.5).float()
    pen = Pen(maps, font, width, colour=dark + (light - dark) * swap)
    canvas = background(draws, light + (dark - light) * swap, size, distortions)
    canvas = _neighbours(draws, canvas, view, pen, distortions)
    canvas = painted(canvas, pen.written(view, torch.from_numpy(classes)), pen.colour)
    canvas = _lines(draws, canvas, view, distortions)
    return exposed(draws, canvas, distortions)


def painted(canvas: Tensor, covered: Tensor, colour: Tensor) -> Tensor:
    """Return a picture [N, 3, H, W] painted over with a colour [N, 3, 1, 1] where pixels are covered [N, H, W]."""
    return canvas + covered[:, None] * (colour - canvas)


def _view(draws: Draws, size: int, distortions: Distortions) -> View:
    """Look at the page from an angle, and bend it; the character stands somewhere about the middle."""
    shift = draws.either(distortions.shift), draws.either(distortions.shift)
    height = distortions.smallest + draws.take() * (LARGEST - distortions.smallest)
    return view_at(draws, shift, height, size, distortions)


def view_at(draws: Draws, centre: tuple[Tensor, Tensor], height: Tensor, size: int, distortions: Distortions) -> View:
    """Return the view of characters of this height, as a share of the picture, whose centres are at x, y in -1..1."""
    at = (torch.arange(size) + 0.5) / size * 2 - 1
    u, v = at[None, None, :] - centre[0], at[None, :, None] - centre[1]
    depth = 1 + draws.either(distortions.tilt) * u + draws.either(distortions.tilt) * v
    turn = draws.either(np.pi / 180 * distortions.turn)
    aspect, slant = torch.exp(draws.either(0.2)), draws.either(distortions.slant)
    cos, sin = torch.cos(turn), torch.sin(turn)
    scale = BOX / (height * depth)
    across, down = (cos * u + sin * v) * scale, (cos * v - sin * u) * scale
    x, y = (across + slant * down) / aspect, down
    if distortions.wobble:
        pace, phase = 0.5 + 0.6 * draws.take(), TURN * draws.take()
        bend = draws.take() * distortions.wobble
        x, y = x + bend * torch.sin(pace * y + phase), y + bend * torch.sin(pace * x + 2 * phase)
    return View(x, y, size / 2 / scale)


def colours(draws: Draws, distortions: Distortions) -> tuple[Tensor, Tensor]:
    """Return a light and a dark colour [N, 3, 1, 1] that differ in grey by at least the contrast."""
    contrast = distortions.contrast + draws.take(1) * (0.95 - distortions.contrast) * 0.7
    middle = contrast / 2 + draws.take(1) * (1 - contrast)
    tints = draws.either(0.3, 2, 3)
    tints = tints - tints.mean(2, keepdim=True)
    return middle + contrast / 2 + tints[:, 0], middle - contrast / 2 + tints[:, 1]


def background(draws: Draws, paper: Tensor, size: int, distortions: Distortions) -> Tensor:
    """Return paper [N, 3, H, W] with patches and stripes."""
    patches = draws.either(distortions.texture / 2, PATCHES, PATCHES)[..., 0, 0]
    patches = F.interpolate(patches[:, None], size=(size, size), mode="bilinear", align_corners=True)
    at = torch.arange(size) / size
    pace_x, pace_y = draws.either(40.0), draws.either(40.0)
    stripes = torch.sin(pace_x * at[None, None, :] + pace_y * at[None, :, None] + TURN * draws.take())
    tint = draws.either(distortions.texture / 2, 3)
    return paper + patches * (0.6 + 0.4 * draws.take(3)) + stripes[:, None] * tint * draws.take(1)


def _neighbours(draws: Draws, canvas: Tensor, view: View, pen: Pen, distortions: Distortions) -> Tensor:
    """Write other characters with the same pen, on opposite sides of the place where the character will stand."""
    side = TURN * draws.take()
    for place in range(NEIGHBOURS):
        classes = (draws.take() * (len(pen.maps) // len(FONTS))).long().flatten()
        apart = 8 + 1.5 * draws.take()
        angle = side + np.pi * place
        there = (draws.take() < distortions.clutter).float()
        covered = pen.written(view, classes, right=apart * torch.cos(angle), down=apart * torch.sin(angle))
        canvas = painted(canvas, covered * there, pen.colour)
    return canvas


def _lines(draws: Draws, canvas: Tensor, view: View, distortions: Distortions) -> Tensor:
    """Draw thin lines of any colour across everything."""
    for _ in range(LINES):
        angle, offset = TURN * draws.take(), draws.either(5.0)
        distance = (torch.cos(angle) * view.x + torch.sin(angle) * view.y - offset).abs()
        there = (draws.take() < distortions.clutter).float()
        covered = view.covered(distance, 0.1 + 0.25 * draws.take()) * there
        canvas = painted(canvas, covered, draws.take(3))
    return canvas


def exposed(draws: Draws, canvas: Tensor, distortions: Distortions) -> NDArray[np.uint8]:
    """Light the picture from one side, add noise, and round to 8 bits."""
    count, channels, height, width = canvas.shape
    down, along = torch.linspace(-1, 1, height)[:, None], torch.linspace(-1, 1, width)[None, :]
    lit = 1 + draws.either(distortions.shade, 1) * down + draws.either(distortions.shade, 1) * along
    noise = uniform(draws.keyed, channels * height * width, first=WORDS).reshape(count, channels, height, width)
    seen = canvas * lit + (torch.from_numpy(noise) * 2 - 1) * distortions.noise
    return np.asarray((seen.clamp(0, 1) * 255).round().to(torch.uint8).numpy())
