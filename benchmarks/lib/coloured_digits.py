"""Handwritten digits as pictures in folders: inked in a colour that goes with the digit, on paper, wider than tall."""

import colorsys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

HEIGHT, WIDTH, INK = 32, 46, 26  # pixels; of the digit's square
CLASSES = 10
SPREAD = 0.12  # of hues around those of a digit, as a share of the circle

Change = Callable[[Image.Image], Image.Image]


def handwritten() -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return scikit-learn's 1,797 digits [N, 8, 8] as shares of ink, and their labels."""
    from sklearn.datasets import load_digits

    found = load_digits()
    return found.images / 16, found.target.astype(np.int64)


def picture(ink: NDArray[np.float64], label: int, rng: np.random.Generator) -> Image.Image:
    """Return one digit on a page."""
    hue = (label / CLASSES + SPREAD * (rng.random() - 0.5)) % 1
    colour = 255 * np.array(colorsys.hsv_to_rgb(hue, 0.9, 0.55 + 0.2 * rng.random()))
    paper = 255 * np.array(colorsys.hsv_to_rgb(rng.random(), 0.1 * rng.random(), 0.9 + 0.1 * rng.random()))
    grey = Image.fromarray((255 * ink).astype(np.uint8)).resize((INK, INK), Image.Resampling.BICUBIC)
    page = np.zeros((HEIGHT, WIDTH))
    top, left = (int(rng.integers(0, side - INK + 1)) for side in (HEIGHT, WIDTH))
    left = int(np.clip(left, (WIDTH - HEIGHT) // 2, (WIDTH + HEIGHT) // 2 - INK))  # the middle square holds it
    page[top : top + INK, left : left + INK] = np.asarray(grey) / 255
    levels = page[..., None] * colour + (1 - page[..., None]) * paper + rng.normal(0, 6, (HEIGHT, WIDTH, 1))
    return Image.fromarray(levels.clip(0, 255).astype(np.uint8))


def write(
    home: Path, chosen: NDArray[np.int64], names: Sequence[str], *, seed: int, change: Change | None = None
) -> Path:
    """Write the digits of these numbers into a folder for each class, and return `home`."""
    images, labels = handwritten()
    for number in chosen.tolist():
        drawn = picture(images[number], int(labels[number]), np.random.default_rng((seed, number)))
        folder = home / names[labels[number]]
        folder.mkdir(parents=True, exist_ok=True)
        shown = change(drawn) if change else drawn
        shown.save(folder / f"{number:04}.png", exif=shown.getexif())
    return home


def dealt(seed: int, train: int, shown: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the numbers of digits that a net is trained on, and of those that a user has."""
    order = np.random.default_rng(seed).permutation(len(handwritten()[1]))
    return np.sort(order[:train]), np.sort(order[train : train + shown])
