"""Fonts: how the strokes of a character become line segments, and with what pen they are drawn.

An elliptic arc may be drawn as a superellipse |x|^n + |y|^n = 1 (n = 2 is round, 4 nearly square) or as an octagon.
Free ends may carry serifs. The pen is an ellipse of half axes `nib` : 1, turned by `angle` (a broad nib makes strokes
thick in one direction and thin in the other), and `sway` bends the whole character as an unsteady hand does.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

BOX = 4.0  # a character fits the square from -BOX to BOX
TOUCHING = 0.35  # an end nearer than this to another stroke is joined to it and carries no serif

Points = NDArray[np.float64]  # [P, 2]


@dataclass(frozen=True)
class Font:
    """Lengths in units of which a character is 8 high; angles in degrees."""

    name: str
    roundness: float = 2.0
    step: float = 20.0  # between the points of an arc
    serif: float = 0.0  # half length
    nib: float = 1.0
    angle: float = 0.0
    sway: float = 0.0
    phase: float = 0.0


FONTS = (
    Font("plain"),
    Font("square", roundness=4.5),
    Font("octagon", step=45),
    Font("roman", serif=0.9, nib=2.2),
    Font("slab", serif=1.2),
    Font("chisel", nib=2.5, angle=35),
    Font("brush", nib=1.8, angle=-30, sway=0.25, phase=1.0),
    Font("hand", sway=0.45, phase=0.3),
    Font("scrawl", sway=0.55, phase=2.4, roundness=1.7),
    Font("pencil", sway=0.5, phase=4.4, roundness=2.4),
    Font("square slab", roundness=4.5, serif=0.9),
    Font("chiselled octagon", step=45, serif=0.7, nib=1.6, angle=20),
)


def segments(strokes: str, font: Font, *, serifs: bool = True) -> NDArray[np.float64]:
    """Return a character as line segments [S, 2, 2] (from and to, x and y), centred and scaled to fill its box."""
    lines = [_points(stroke, font) for stroke in strokes.split(";")]
    if serifs and font.serif:
        lines += _serifs(lines, font.serif)
    found = np.concatenate([np.stack([line[:-1], line[1:]], 1) for line in lines])
    low, high = found.min((0, 1)), found.max((0, 1))
    found = (found - (low + high) / 2) * (2 * BOX / float((high - low).max()))
    x, y = found[..., 0], found[..., 1]
    bend = np.stack([np.sin(0.8 * y + font.phase), np.sin(0.9 * x + 2 * font.phase)], -1)
    swayed: NDArray[np.float64] = found + font.sway * bend
    return swayed


def _points(stroke: str, font: Font) -> Points:
    kind, *rest = stroke.split()
    numbers = [float(number) for number in rest]
    if kind == "A":
        return _arc(numbers, font)
    points = np.array(numbers).reshape(-1, 2)
    return _smooth(points) if kind == "S" and font.step < 45 else points


def _arc(numbers: list[float], font: Font) -> Points:
    centre_x, centre_y, radius_x, radius_y, first, last = numbers
    count = max(2, round(abs(last - first) / font.step) + 1)
    angle = np.radians(np.linspace(first, last, count))
    along, across = np.cos(angle), np.sin(angle)
    bulge = 2 / font.roundness
    x = centre_x + radius_x * np.sign(along) * np.abs(along) ** bulge
    y = centre_y + radius_y * np.sign(across) * np.abs(across) ** bulge
    return np.stack([x, y], 1)


def _smooth(points: Points, parts: int = 3) -> Points:
    """A Catmull-Rom curve through the points, each span cut into `parts`."""
    before, after = 2 * points[0] - points[1], 2 * points[-1] - points[-2]
    p0, p1, p2, p3 = (np.concatenate([before[None], points, after[None]])[i : len(points) - 1 + i] for i in range(4))
    t = (np.arange(parts) / parts)[None, :, None]
    p0, p1, p2, p3 = p0[:, None], p1[:, None], p2[:, None], p3[:, None]
    curve = p1 + 0.5 * t * (p2 - p0 + t * (2 * p0 - 5 * p1 + 4 * p2 - p3 + t * (3 * (p1 - p2) + p3 - p0)))
    return np.concatenate([curve.reshape(-1, 2), points[-1:]])


def _serifs(lines: list[Points], half: float) -> list[Points]:
    """Short bars across the free ends: flat on upright strokes, upright and shorter on flat ones."""
    found = []
    for index, line in enumerate(lines):
        if len(line) == 2 and np.array_equal(line[0], line[1]):
            continue  # a dot
        others = [other for place, other in enumerate(lines) if place != index]
        for end, inner in ((line[0], line[1]), (line[-1], line[-2])):
            if all(_distance(end, other) > TOUCHING for other in others) and not _closed(line):
                along = end - inner
                upright = abs(along[1]) > abs(along[0])
                bar = np.array([half, 0.0]) if upright else np.array([0.0, 0.7 * half])
                found.append(np.stack([end - bar, end + bar]))
    return found


def _closed(line: Points) -> bool:
    return math.dist(line[0], line[-1]) < TOUCHING


def _distance(point: NDArray[np.float64], line: Points) -> float:
    """How far a point lies from a polyline."""
    start, along = line[:-1], line[1:] - line[:-1]
    share = ((point - start) * along).sum(1) / np.maximum((along**2).sum(1), 1e-12)
    nearest = start + np.clip(share, 0, 1)[:, None] * along
    return float(np.sqrt(((point - nearest) ** 2).sum(1)).min())
