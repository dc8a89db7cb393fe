"""Pictures with a mask each, for segmentation: a mask's level, or palette index, is the number of the pixel's class.

    PATH/images/*.jpg|png     PATH/masks/*.png, of the same names and sizes     PATH/classes.txt, names, if given

The level 255 marks pixels that do not count. Where every mask that is looked at first holds 0 and 255 alone, 255 is
class 1: the foreground. A mask is placed as its picture is, each pixel taking the nearest; a frame does not count.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from slimwright.data import files
from slimwright.data.pictures import fault_of, opened, size
from slimwright.data.preprocessing import Preprocessing
from slimwright.data.streamed import Numbers, StreamedData, of_pictures, parted
from slimwright.data.twins import Twins, twins
from slimwright.errors import DataError

IGNORED = 255  # the level of pixels that do not count, as in PASCAL VOC and Cityscapes
UNCOUNTED = -1  # what targets say of them
LOOKED_AT = 32  # masks, whether 255 is the foreground
MODES = ("L", "P", "1")


def mask_folder(path: Path, how: Preprocessing, seed: int = 0) -> StreamedData:
    """Return pictures with masks; targets are classes [N, H, W] int64, and -1 where a pixel does not count.

    `seed` deals what is not given. Masks are read with their pictures. Raises DataError, naming the folder, file or
    level.
    """
    found = twins(path, ("images", "masks"), (".png",))
    names = _classes(path)
    levels = _numbers_of_levels(found[0], len(names))
    shares = [pair.share(how, partial(_masks, pair, how, levels)) for pair in found]
    held = (how.shape[0] + 2, *how.shape[1:])  # a class takes the memory of two levels
    parts = parted(shares, names=(), image_shape=held, seed=seed)
    return of_pictures(path.resolve().name, names, how, parts, task="segmentation")


def _classes(path: Path) -> tuple[str, ...]:
    """The names in classes.txt; none without it."""
    at = path / "classes.txt"
    if not at.exists():
        return ()
    names = [line.strip() for line in files.lines(path, at)]
    if not 2 <= len(names) <= IGNORED or len(set(names)) < len(names) or not all(names):
        raise DataError(f"{at} must name 2 to {IGNORED} classes, one a line, each once; it has {len(names)} lines")
    return tuple(names)


def _numbers_of_levels(pair: Twins, classes: int) -> NDArray[np.int64]:
    """The class of each level [256]; -1 for those that do not count, and -2 for those that are no class."""
    numbers = np.arange(256)
    if classes:
        numbers[classes:] = UNCOUNTED - 1
    numbers[IGNORED] = UNCOUNTED
    seen = np.zeros(256, bool)
    for number in pair.some(LOOKED_AT):
        path = pair.root / pair.second[number]
        files.held(pair.root, path)
        if not fault_of(pair.root, path, deep=True):
            seen[opened(pair.root, path, partial(_levels, path))] = True
    if not seen[1:IGNORED].any():
        numbers[IGNORED] = 1
    return numbers


def _masks(pair: Twins, how: Preprocessing, levels: NDArray[np.int64], numbers: Numbers) -> Tensor:
    """The classes [N, H, W] of these masks."""
    return torch.from_numpy(np.stack([_mask(pair, how, levels, number) for number in numbers]))


def _mask(pair: Twins, how: Preprocessing, levels: NDArray[np.int64], number: int) -> NDArray[np.int64]:
    root, path = pair.root, pair.second[number]
    classes = levels[opened(root, root / path, partial(_levels, root / path))]
    if (classes < UNCOUNTED).any():
        raise DataError(
            f"{root / path} has levels for which classes.txt names no class; it names {int((levels >= 0).sum())}, and "
            f"{IGNORED} marks pixels that do not count"
        )
    shown = size(root, root / pair.first[number], how)
    if classes.shape[::-1] != shown:
        raise DataError(
            f"{root / path} is {_times(classes.shape[::-1])}, and its picture {_times(shown)}; make them alike"
        )
    image = Image.fromarray(np.where(classes < 0, IGNORED, classes).astype(np.uint8))
    placed = np.asarray(how.placed(image, interpolation="nearest", fill=IGNORED)).astype(np.int64)
    return np.where(placed == IGNORED, UNCOUNTED, placed)


def _levels(path: Path, image: Image.Image) -> NDArray[np.uint8]:
    """The levels [H, W] of a mask, or its palette's indices."""
    if image.mode not in MODES:
        raise DataError(f"{path} has colours; save masks as grey levels or with a palette, a level for each class")
    return np.asarray(image).astype(np.uint8)


def _times(sides: Sequence[int]) -> str:
    return "x".join(map(str, sides))
