"""The distortions that make a character hard to read; each grows linearly with the difficulty."""

from dataclasses import dataclass, fields


@dataclass(frozen=True)
class Distortions:
    """The extent of every distortion. Lengths are in units of which a character is 8 high."""

    turn: float  # degrees, either way
    slant: float  # shear, either way
    tilt: float  # perspective: change of scale from the middle to the edge, either way
    shift: float  # of the centre, as a share of half the image, either way
    smallest: float  # height of the character as a share of the image; the largest is LARGEST
    wobble: float  # how far lines bend
    thinnest: float  # half width of the pen; the thickest is THICKEST
    contrast: float  # least difference of grey between character and background, 0..1
    texture: float  # range of the background's grey
    clutter: float  # chance of each neighbouring character and of each line across
    shade: float  # how unevenly the picture is lit
    blur: float  # pixels over which an edge is spread, beyond one
    noise: float  # of each pixel, either way


LARGEST, THICKEST = 0.86, 0.85
EASY = Distortions(2, 0.05, 0.02, 0.03, 0.78, 0.0, 0.55, 0.7, 0.02, 0.0, 0.0, 0.0, 0.01)
HARD = Distortions(30, 0.45, 0.35, 0.28, 0.42, 0.50, 0.26, 0.20, 0.55, 1.0, 0.40, 1.4, 0.16)


def distortions(difficulty: float) -> Distortions:
    """Return the distortions at a difficulty from 0 to 1."""
    lerped = [
        (1 - difficulty) * getattr(EASY, f.name) + difficulty * getattr(HARD, f.name) for f in fields(Distortions)
    ]
    return Distortions(*lerped)
