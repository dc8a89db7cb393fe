"""Pictures with one coloured rectangle each, on black: what a box should surround can be seen."""

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from slimwright.data import PARTS, StreamedData, images_of, tensors_of, whole

Box = tuple[int, int, int, int]  # x1, y1, x2, y2: the last pixel is not part of it
COUNT = 12
COLOURS = {"cat": (255, 0, 0), "dog": (0, 255, 0)}
SIZES = ((40, 30), (30, 40), (64, 16))


def drawn(home: Path, suffix: str = ".png") -> list[tuple[str, tuple[int, int], str, Box]]:
    """Write pictures; return the name, width and height, class and box of each."""
    home.mkdir(parents=True, exist_ok=True)
    found = []
    for number in range(COUNT):
        width, height = SIZES[number % len(SIZES)]
        box = (3 + number % 4, 2 + number % 3, width // 2 + number % 5, height // 2 + number % 4)
        kind = ("cat", "dog")[number % 2]
        image = Image.new("RGB", (width, height))
        ImageDraw.Draw(image).rectangle((box[0], box[1], box[2] - 1, box[3] - 1), fill=COLOURS[kind])
        image.save(home / f"p{number:02}{suffix}")
        found.append((f"p{number:02}{suffix}", (width, height), kind, box))
    return found


def check_boxes_surround_what_they_name(data: StreamedData) -> None:
    """In every part, on the pictures as a network sees them, within a pixel."""
    assert data.labels == ("cat", "dog") and data.task == "detection"
    for part in PARTS:
        inputs, targets = whole(data, part)
        (boxes,) = tensors_of(targets)
        assert boxes.dtype == torch.float32
        for image, rows in zip(images_of(inputs).numpy(), boxes.numpy(), strict=True):
            assert rows[0, 0] in (0, 1) and (rows[1:, 0] == -1).all()
            assert np.abs(seen(image, int(rows[0, 0])) - rows[0, 1:]).max() <= 1.0


def seen(image: NDArray[np.float32], channel: int) -> NDArray[np.float64]:
    """The box of what has this colour."""
    shown = (image[channel] > 0.5) & (image[1 - channel] < 0.3)
    down, across = np.flatnonzero(shown.any(1)), np.flatnonzero(shown.any(0))
    return np.array([across[0], down[0], across[-1] + 1, down[-1] + 1], float)
