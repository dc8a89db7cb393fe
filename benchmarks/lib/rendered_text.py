"""Text drawn by seed: single lines, upright or upside down, and scenes of several lines whose boxes are known."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter, ImageFont

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
FONTS = Path("/usr/share/fonts/truetype/dejavu")  # of Debian's fonts-dejavu-core; else the one that Pillow brings
NOISE = 6.0  # levels, standard deviation
Pixels = NDArray[np.uint8]  # [H, W, 3]


@dataclass(frozen=True)
class Scene:
    """A picture with lines of text in it, and where they are: x1, y1, x2, y2 in pixels."""

    pixels: Pixels
    boxes: Sequence[tuple[int, int, int, int]]


def line(rng: np.random.Generator, *, height: int, most_width: int, letters: int = 10) -> tuple[Pixels, str]:
    """Return one line of text [height, W, 3], W at most `most_width`, and what it says."""
    font = _font(rng, int(height * rng.uniform(0.5, 0.68)))
    text = ""
    for letter in rng.choice(list(LETTERS), size=int(rng.integers(3, letters + 1))):
        if font.getlength(text + letter) + height // 2 > most_width:
            break
        text += str(letter)
    width = int(font.getlength(text)) + height // 2
    paper, ink = _colours(rng)
    image = Image.new("RGB", (width, height), paper)
    at = (height // 4 + int(rng.integers(-2, 3)), height // 2 + int(rng.integers(-2, 3)))
    ImageDraw.Draw(image).text(at, text, fill=ink, font=font, anchor="lm")
    return _worn(rng, image), text


def scene(rng: np.random.Generator, size: int) -> Scene:
    """Return a square picture with one to six lines of text that do not meet."""
    image, boxes = Image.fromarray(_background(rng, size)), list[tuple[int, int, int, int]]()
    draw = ImageDraw.Draw(image)
    for _ in range(int(rng.integers(1, 7))):
        font = _font(rng, int(rng.integers(16, 34)))
        text = "".join(rng.choice(list(LETTERS), size=int(rng.integers(3, 10))))
        at = int(rng.integers(8, size - 60)), int(rng.integers(8, size - 50))
        box = tuple(map(int, draw.textbbox(at, text, font=font)))
        around = box[0] - 12, box[1] - 12, box[2] + 12, box[3] + 12
        if box[2] >= size - 6 or box[3] >= size - 6 or any(_meet(around, other) for other in boxes):
            continue
        under = np.asarray(image)[box[1] : box[3], box[0] : box[2]].mean()
        draw.text(at, text, fill=(20, 25, 40) if under > 128 else (235, 230, 220), font=font)
        boxes.append((box[0], box[1], box[2], box[3]))
    return Scene(_worn(rng, image), boxes) if boxes else scene(rng, size)


def padded(pixels: Pixels, width: int) -> NDArray[np.float32]:
    """Return a line as PaddleOCR's nets read it: BGR [3, H, width], -1..1, zeros on its right."""
    values = (pixels[:, :width, ::-1].astype(np.float32) / 255 - 0.5) / 0.5
    return np.pad(values.transpose(2, 0, 1), ((0, 0), (0, 0), (0, max(width - values.shape[1], 0))))


def _font(rng: np.random.Generator, size: int) -> ImageFont.FreeTypeFont:
    found = sorted(FONTS.glob("*.ttf"))
    if found:
        return ImageFont.truetype(str(found[int(rng.integers(len(found)))]), size)
    usual = ImageFont.load_default(size)
    assert isinstance(usual, ImageFont.FreeTypeFont)
    return usual


def _colours(rng: np.random.Generator) -> tuple[tuple[int, int, int], tuple[int, int, int]]:
    """A light and a dark colour, in either order."""
    light, dark = (tuple(map(int, rng.integers(low, high, 3))) for low, high in ((170, 256), (0, 90)))
    pair = (light, dark) if rng.random() < 0.7 else (dark, light)
    return pair  # type: ignore[return-value]


def _background(rng: np.random.Generator, size: int) -> Pixels:
    """A slow change of colour with patches in it."""
    coarse = Image.fromarray(rng.integers(60, 220, (5, 5, 3), dtype=np.uint8))
    return np.asarray(coarse.resize((size, size), Image.Resampling.BICUBIC))


def _worn(rng: np.random.Generator, image: Image.Image) -> Pixels:
    """A little blur and noise."""
    blurred = np.asarray(image.filter(ImageFilter.GaussianBlur(rng.uniform(0, 0.8))), np.float32)
    return np.clip(blurred + rng.normal(0, NOISE, blurred.shape), 0, 255).astype(np.uint8)


def _meet(one: tuple[int, ...], other: tuple[int, ...]) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]
