"""What every format of boxes has in common: pictures with boxes become a data set, each box where its picture went."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from slimwright.data import files
from slimwright.data.pictures import looked_at, opened, size
from slimwright.data.preprocessing import Preprocessing
from slimwright.data.streamed import Numbers, Share, StreamedData, of_pictures, parted
from slimwright.errors import DataError

FILL = 114  # the grey of Ultralytics' letterbox
MOST_BOXES = 2_000  # of one picture
LEAST_SHOWN = 0.1  # of a box's area: where a crop leaves less, the box is left out

Rows = NDArray[np.float64]  # [B, 5]: class, x1, y1, x2, y2


@dataclass(frozen=True)
class Annotated:
    """A picture's path from the root of the data set, its width and height, and its boxes in its own pixels."""

    path: str
    size: tuple[int, int]
    boxes: Rows


def boxed(
    root: Path, labels: Sequence[str], pictures: Sequence[Sequence[Annotated]], how: Preprocessing, seed: int
) -> StreamedData:
    """Return training pictures, and test and validation pictures where they are given, as a data set for detection.

    Raises DataError where there are no pictures, or no boxes at all.
    """
    every = [one for some in pictures for one in some]
    if not every or not any(len(one.boxes) for one in every):
        raise DataError(f"{root} holds {len(every)} pictures and no boxes; check what was named")
    most = max(len(one.boxes) for one in every)
    shares = [_share(root, some, how, most) for some in pictures]
    parts = parted(shares, names=labels, image_shape=how.shape, seed=seed)
    return of_pictures(root.resolve().name, labels, how, parts, task="detection")


def letterbox(height: int, width: int) -> Preprocessing:
    """Return what is usual for detectors: pictures that fit into a grey frame, levels as 0..1, as Ultralytics does."""
    return Preprocessing(height, width, fit="letterbox", fill=FILL, mean=(0.0,), std=(1.0,))


def placed(one: Annotated, how: Preprocessing) -> Rows:
    """Return a picture's boxes [B, 5] in pixels of what the network sees, without those that are cut away."""
    where = how.placement(*one.size)
    corners = where.moved(one.boxes[:, 1:].reshape(-1, 2, 2))
    seen = np.clip(corners, 0, [how.width, how.height])
    areas = [np.prod(np.maximum(some[:, 1] - some[:, 0], 0), axis=1) for some in (corners, seen)]
    there = (areas[1] > 0) & (areas[1] >= LEAST_SHOWN * areas[0])
    rows: Rows = np.concatenate([one.boxes[:, :1], seen.reshape(-1, 4)], 1)[there]
    return rows


def size_of(root: Path, path: str, how: Preprocessing) -> tuple[int, int]:
    """Return a picture's width and height; of a damaged one 1 and 1: what is wrong with it is told where it is read.

    Raises DataError for a file that is missing or leads out of `root`.
    """
    files.held(root, root / path)
    try:
        return size(root, root / path, how)
    except DataError:
        return 1, 1


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
    names = [one.path for one in pictures]
    read, targets = partial(_read, root, pictures, how), _targets(pictures, how, most)
    return Share(read, np.arange(len(pictures)), targets, pictures=(root, names))


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
        found = looked_at(image, how)
        if found != one.size:
            raise DataError(
                f"{root / one.path} has {found[0]}x{found[1]} pixels, and its boxes are for {one.size[0]}x"
                f"{one.size[1]}; get the picture or its boxes again"
            )
        return how.levels(image)

    return opened(root, root / one.path, use)
