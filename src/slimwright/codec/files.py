"""Pictures, maps of weights and compressed pictures from files that came from elsewhere, and pictures as files."""

from pathlib import Path

import torch
from PIL import Image, ImageOps
from torch import Tensor

from slimwright.atomic import replacing
from slimwright.codec.packets import WHAT
from slimwright.codec.photographs import as_tensor
from slimwright.data.pictures import SUFFIXES, opened
from slimwright.errors import CodecError, DataError, RequestError
from slimwright.reading import data_of

MOST_BYTES = 2**26
OCTAVES = 6  # an error counts for 2^-6 where the map is black, and in full where it is white
SAVED_AS = (".png", ".webp", ".bmp", ".tif", ".tiff")  # without loss


def picture_in(path: Path) -> Tensor:
    """Return the picture [3, H, W] in a file, upright, from 0 to 255. Raises DataError, naming the file."""
    return opened(path.parent, path, lambda image: as_tensor(ImageOps.exif_transpose(image)))


def pictures_in(folder: Path) -> dict[str, Tensor]:
    """Return the pictures in a folder by name. Raises DataError where there is none."""
    paths = sorted(path for path in folder.glob("*") if path.suffix.lower() in SUFFIXES)
    if not paths:
        raise DataError(f"{folder} holds no picture; name a folder with some of {', '.join(SUFFIXES)}")
    return {path.name: picture_in(path) for path in paths}


def weights_in(path: Path, picture: Tensor) -> Tensor:
    """Return what the errors of each pixel [H, W] count for: brighter places of the map count more."""
    grey = opened(path.parent, path, lambda image: as_tensor(ImageOps.exif_transpose(image).convert("L")))[0]
    if grey.shape != picture.shape[1:]:
        (height, width), (tall, wide) = grey.shape, picture.shape[1:]
        raise DataError(f"{path} is {width}x{height} and the picture {wide}x{tall}; make the map as large")
    octaves = grey.long() * OCTAVES  # in units of 1/256: sums of powers of two, so that every platform has the same
    return torch.ldexp(1 + (octaves & 255).double() / 256, (octaves >> 8) - OCTAVES)


def compressed_in(path: Path) -> bytes:
    """Return the bytes of a compressed picture."""
    return data_of(path, WHAT, CodecError, MOST_BYTES)


def write_compressed(path: Path, data: bytes) -> None:
    """Write a compressed picture, replaced at once."""
    with replacing(path) as temporary:
        temporary.write_bytes(data)


def write_picture(path: Path, picture: Tensor) -> None:
    """Write a picture [3, H, W] without loss, replaced at once. Raises RequestError for a kind that has loss."""
    check_lossless(path)
    image = Image.fromarray(picture.permute(1, 2, 0).contiguous().numpy())
    kind = Image.registered_extensions()[path.suffix.lower()]
    with replacing(path) as temporary:
        image.save(temporary, format=kind, **({"lossless": True} if kind == "WEBP" else {}))


def check_lossless(path: Path) -> None:
    """Raise RequestError for a file of a kind that would lose something."""
    if path.suffix.lower() not in SAVED_AS:
        raise RequestError(f"{path} cannot take a picture without loss; name one of {', '.join(SAVED_AS)} with --out")
