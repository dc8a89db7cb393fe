"""Pictures with what a network shall make of them: the same without noise or blur, larger, or a map of depths.

    PATH/input/*.jpg|png     PATH/target/*.png|jpg, of the same names, of the same size or larger by one whole factor

Targets are levels from 0 to 1, of 8 or 16 bits, and are not normalized. They are placed as their input is, to the
pixel: where an input's corner is cut off, `factor` times as much is cut off its target.
"""

from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from slimwright.data.pictures import DEEP, SUFFIXES, opened, size
from slimwright.data.preprocessing import Preprocessing
from slimwright.data.streamed import Numbers, StreamedData, of_pictures, parted
from slimwright.data.twins import Twins, twins
from slimwright.errors import DataError

MOST_TIMES = 16  # larger
GREY = ("L", "1", *DEEP)  # modes of one channel


def pair_folder(path: Path, how: Preprocessing, seed: int = 0) -> StreamedData:
    """Return pictures with targets [N, C, H factor, W factor], from 0 to 1.

    There is one channel where the first target has one, and else as many as the input has. `seed` deals what is not
    given. Targets are read with their pictures. Raises DataError, naming the folder or file.
    """
    found = twins(path, ("input", "target"), (".png", *(suffix for suffix in SUFFIXES if suffix != ".png")))
    factor, grey = _kind(found[0], how)
    target = replace(how, channels="grey", mean=(0.0,), std=(1.0,)) if grey else how
    shares = [pair.share(how, partial(_targets, pair, target, factor)) for pair in found]
    held = (how.shape[0] + target.shape[0] * factor**2, *how.shape[1:])
    parts = parted(shares, names=(), image_shape=held, seed=seed)
    return of_pictures(path.resolve().name, (), how, parts, task="restoration")


def _kind(pair: Twins, how: Preprocessing) -> tuple[int, bool]:
    """How many times larger targets are, and whether they have one channel: as the first pair."""
    first, second = (pair.root / paths[0] for paths in (pair.first, pair.second))
    (wide, _), (wanted, _) = (size(pair.root, path, how) for path in (first, second))
    if not wide <= wanted <= MOST_TIMES * wide:
        raise DataError(
            f"{second} is {wanted} pixels wide, and its input {wide}; targets are of the same size, or larger by a "
            f"whole factor up to {MOST_TIMES}"
        )
    return wanted // wide, opened(pair.root, second, lambda image: image.mode in GREY, deep=True)


def _targets(pair: Twins, how: Preprocessing, factor: int, numbers: Numbers) -> Tensor:
    return torch.from_numpy(np.stack([_target(pair, how, factor, number) for number in numbers]))


def _target(pair: Twins, how: Preprocessing, factor: int, number: int) -> NDArray[np.float32]:
    """The target [C, H factor, W factor] of a picture."""
    root = pair.root
    width, height = size(root, root / pair.first[number], how)

    def use(image: Image.Image) -> NDArray[np.float32]:
        shown = image if image.mode in DEEP else how.turned(image)
        if shown.size != (factor * width, factor * height):
            raise DataError(
                f"{root / pair.second[number]} is {shown.width}x{shown.height} and its input {width}x{height}; every "
                f"target must be {factor} times as large as its input, as the first is"
            )
        return _share_of_white(shown, how, factor)

    return opened(root, root / pair.second[number], use, deep=True)


def _share_of_white(image: Image.Image, how: Preprocessing, factor: int) -> NDArray[np.float32]:
    """The levels [C, H, W] of a placed picture, from 0 to 1."""
    if image.mode in DEEP:
        deep = Image.fromarray(np.asarray(image, np.float32) / 65535)
        found = np.asarray(how.placed(deep, fill=how.fill / 255, factor=factor), np.float32)
    else:
        found = np.asarray(how.placed(image, factor=factor), np.float32) / np.float32(255)
    found = found[None] if found.ndim == 2 else found.transpose(2, 0, 1)
    return np.ascontiguousarray(found[::-1] if how.channels == "BGR" else found)
