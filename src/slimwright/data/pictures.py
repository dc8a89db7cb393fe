"""Decode a picture file that came from elsewhere. Transparency is dropped; of several frames the first counts."""

import os
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from slimwright.data import files
from slimwright.data.preprocessing import Preprocessing
from slimwright.errors import DataError

ORIENTATION = 0x0112  # the tag in the EXIF standard; from 5 on, rows and columns change places
T = TypeVar("T")
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff")
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF")
MOST_PIXELS = 64_000_000  # of one picture: 192 MB when it is decoded
MOST_BYTES = 64 * 2**20  # of one file
JPEG_END, TAIL_BYTES = b"\xff\xd9", 2**16  # the marker that ends a picture; what cameras write behind it may be long
DEEP = ("I", "F", "I;16", "I;16L", "I;16B", "I;16N")  # modes with more than 8 bits


def picture(root: Path, path: Path, how: Preprocessing) -> NDArray[np.uint8]:
    """Return the levels [C, H, W] of the picture in a file within `root`, preprocessed but for the normalization.

    Raises DataError as `opened` does.
    """
    return opened(root, path, how.levels)


def pictures(root: Path, paths: Sequence[str], how: Preprocessing, numbers: Sequence[int]) -> NDArray[np.uint8]:
    """Return the levels [N, C, H, W] of the pictures of these numbers in `paths`, which are paths from `root`."""
    return np.stack([picture(root, root / paths[number], how) for number in numbers])


def opened(root: Path, path: Path, use: Callable[[Image.Image], T], *, deep: bool = False) -> T:
    """Return what `use` makes of the picture in a file within `root`; if `deep`, of more than 8 bits a channel, too.

    Raises DataError, naming the file, where it is missing, damaged, of another kind, or absurdly large.
    """
    real = files.held(root, path)
    if real.stat().st_size > MOST_BYTES:
        raise DataError(f"{path} has {real.stat().st_size} bytes, over the limit of {MOST_BYTES}; make it smaller")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(real, formats=FORMATS) as image:
                _check(path, image, deep)
                return use(image)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise DataError(f"{path} claims more pixels than the limit of {MOST_PIXELS}; make it smaller") from error
    except DataError:
        raise
    except Exception as error:  # a decoder raises what it likes for bytes that it cannot read
        raise DataError(f"{path} cannot be read as {', '.join(FORMATS)}: {error}; replace or remove it") from error


def size(root: Path, path: Path, how: Preprocessing) -> tuple[int, int]:
    """Return the width and height of a picture as it is looked at. Its pixels are not decoded."""
    return opened(root, path, partial(looked_at, how=how), deep=True)


def looked_at(image: Image.Image, how: Preprocessing) -> tuple[int, int]:
    """Return the width and height of an open picture as it is looked at."""
    turned = how.upright and image.getexif().get(ORIENTATION, 1) >= 5
    return (image.height, image.width) if turned else image.size


def _check(path: Path, image: Image.Image, deep: bool) -> None:
    """Refuse before any pixel is decoded."""
    width, height = image.size
    if width * height > MOST_PIXELS:
        raise DataError(f"{path} claims {width}x{height} pixels, more than the limit of {MOST_PIXELS}; make it smaller")
    if image.mode in DEEP and not deep:
        raise DataError(f"{path} has more than 8 bits per channel; save it with 8")


def fault_of(root: Path, path: Path, *, deep: bool = False) -> str:
    """Return why a file within `root` is not a picture that can be read, or "" where it is one.

    A PNG's checksums and the end of a JPEG are looked at; other formats are decoded. If `deep`, more than 8 bits a
    channel are no fault.
    """
    try:
        opened(root, path, _looked_through, deep=deep)
    except DataError as error:
        return str(error)
    return ""


def _looked_through(image: Image.Image) -> None:
    if image.format == "PNG":
        image.verify()
    elif image.format != "JPEG" or not _ends(image):
        image.load()


def _ends(image: Image.Image) -> bool:
    """True where the end of a JPEG is in its file: within its pixels the marker cannot occur."""
    file = image.fp  # type: ignore[attr-defined]
    size = file.seek(0, os.SEEK_END)
    file.seek(max(size - TAIL_BYTES, 0))
    return JPEG_END in file.read(TAIL_BYTES)
