"""What every format of boxes has in common: pictures with boxes become a data set, each box where its picture went.

Detectors are mostly trained on pictures that fit into a square of grey, their levels as 0..1. That is done here where
nothing else was asked for: a `Preprocessing` of which only the size is given becomes Ultralytics' letterbox.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from slimwright.data.dataset import Part
from slimwright.data.pictures import opened
from slimwright.data.preprocessing import Preprocessing
from slimwright.data.streamed import Numbers, Share, StreamedData, dealt
from slimwright.errors import DataError

FILL = 114  # the grey of Ultralytics' letterbox
MOST_BOXES = 2_000  # of one picture
LEAST_SHOWN = 0.1  # of a box's area: where a crop leaves less, the box is left out
ORIENTATION, ON_SIDE = 0x0112, (5, 6, 7, 8)  # EXIF's tag, and its values where width and height change places

Rows = NDArray[np.float64]  # [B, 5]: class, x1, y1, x2, y2


@dataclass(frozen=True)
class Annotated:
    """A picture's path from the root of the data set, its width and height, and its boxes in its own pixels."""

    path: str
    size: tuple[int, int]
    boxes: Rows


def boxed(
    root: Path, labels: Sequence[str], pictures: Mapping[str, Sequence[Annotated]], how: Preprocessing, seed: int
) -> StreamedData:
    """Return pictures under "train", and under "test" if there are any, as a data set for detection.

    Raises DataError where there are no pictures, or no boxes at all.
    """
    how = usual(how)
    every = [one for some in pictures.values() for one in some]
    if not every or not any(len(one.boxes) for one in every):
        raise DataError(f"{root} holds {len(every)} pictures and no boxes; check what was named")
    most = max(len(one.boxes) for one in every)
    shares = {part: _share(root, some, how, most) for part, some in pictures.items()}
    parts: Mapping[Part, Share] = dealt(
        shares["train"], shares.get("test"), names=labels, image_shape=how.shape, seed=seed
    )
    name = root.resolve().name
    return StreamedData(name, tuple(labels), how.shape, parts, how.mean, how.std, how.said, task="detection")


def usual(how: Preprocessing) -> Preprocessing:
    """Return a preprocessing as it is, or a letterbox where nothing but the size was given."""
    if how != Preprocessing(how.height, how.width):
        return how
    return replace(how, fit="letterbox", fill=FILL, mean=(0.0,) * 3, std=(1.0,) * 3)


def size_of(root: Path, path: Path, how: Preprocessing) -> tuple[int, int]:
    """Return the width and height of a picture, of which nothing but the head is read. Raises as `opened` does."""
    return opened(root, path, partial(_size, upright=how.upright))


def placed(one: Annotated, how: Preprocessing) -> Rows:
    """Return a picture's boxes [B, 5] in pixels of what the network sees, without those that are cut away."""
    where = how.placement(*one.size)
    corners = where.moved(one.boxes[:, 1:].reshape(-1, 2, 2))
    seen = np.clip(corners, 0, [how.width, how.height])
    areas = [np.prod(np.maximum(some[:, 1] - some[:, 0], 0), axis=1) for some in (corners, seen)]
    there = (areas[1] > 0) & (areas[1] >= LEAST_SHOWN * areas[0])
    rows: Rows = np.concatenate([one.boxes[:, :1], seen.reshape(-1, 4)], 1)[there]
    return rows


def check_count(where: str, boxes: Rows) -> Rows:
    """Return a picture's boxes. Raises DataError where there are too many, or one is not finite."""
    if len(boxes) > MOST_BOXES:
        raise DataError(f"{where} has {len(boxes)} boxes, over the limit of {MOST_BOXES}; leave some out")
    if not np.isfinite(boxes).all():
        raise DataError(f"{where} has a box that is not finite; correct it")
    return boxes


def no_boxes() -> Rows:
    """Return [0, 5]."""
    return np.zeros((0, 5))


def _share(root: Path, pictures: Sequence[Annotated], how: Preprocessing, most: int) -> Share:
    return Share(partial(_read, root, pictures, how), np.arange(len(pictures)), _targets(pictures, how, most))


def _targets(pictures: Sequence[Annotated], how: Preprocessing, most: int) -> Tensor:
    """The boxes [N, M, 5], filled up with rows of class -1."""
    targets = np.zeros((len(pictures), most, 5), np.float32)
    targets[..., 0] = -1
    for row, one in zip(targets, pictures, strict=True):
        boxes = placed(one, how)
        row[: len(boxes)] = boxes
    return torch.from_numpy(targets)


def _read(root: Path, pictures: Sequence[Annotated], how: Preprocessing, numbers: Numbers) -> NDArray[np.uint8]:
    return np.stack([_levels(root, pictures[number], how) for number in numbers])


def _levels(root: Path, one: Annotated, how: Preprocessing) -> NDArray[np.uint8]:
    def use(image: Image.Image) -> NDArray[np.uint8]:
        found = _size(image, upright=how.upright)
        if found != one.size:
            raise DataError(
                f"{root / one.path} has {found[0]}x{found[1]} pixels, and its boxes are for {one.size[0]}x"
                f"{one.size[1]}; get the picture or its boxes again"
            )
        return how.levels(image)

    return opened(root, root / one.path, use)


def _size(image: Image.Image, *, upright: bool) -> tuple[int, int]:
    """Width and height as the picture is looked at."""
    width, height = image.size
    return (height, width) if upright and image.getexif().get(ORIENTATION) in ON_SIDE else (width, height)
