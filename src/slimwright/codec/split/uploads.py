"""What a phone could send instead: its picture as it is, or as JPEG or WebP at the quality that the metric allows.

A picture of a few pixels is smaller than the tables in front of a JPEG. So two sizes are told: of the whole file, and
of what differs from picture to picture, where both sides know the rest: JPEG's scan under the standard's own tables,
and WebP without its container. The peer is the smaller one. JPEG is tried with and without halved colours.
"""

import io
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import median

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from slimwright.data import Inputs
from slimwright.data.normalization import Normalization
from slimwright.data.preprocessing import LEVELS
from slimwright.errors import CodecError

Picture = NDArray[np.uint8]  # [C, H, W]
BEST = 95  # quality beyond which libjpeg's authors see no use
SCAN = b"\xff\xda"  # the marker in front of a JPEG's scan, and a length behind it
END_BYTES = 2  # the marker behind it
WEBP_CONTAINER = 20  # RIFF, its size, WEBP, the chunk's name and size
TIMED = 48  # pictures


@dataclass(frozen=True)
class Sent:
    """A picture on its way: bytes of its file, bytes of what differs between pictures, and what is decoded of it."""

    file_bytes: int
    own_bytes: int
    decoded: Picture


Code = Callable[[Picture, int], Sent]  # by quality


@dataclass(frozen=True)
class Upload:
    """What a kind of upload does to some pictures at a quality."""

    kind: str
    quality: int
    file_bytes: float  # means
    own_bytes: float
    most_bytes: int
    pictures: Tensor  # as the net reads them
    coding_ms: tuple[float, float]  # medians: to encode, and to decode

    @property
    def bytes(self) -> float:
        """What counts: the smaller of both."""
        return min(self.file_bytes, self.own_bytes)


def normalization_of(said: Mapping[str, object], shape: Sequence[int]) -> Normalization | None:
    """Return how levels of 8 bits became what a net reads, by what data of a shape [C, H, W] said of that.

    Returns None where it said nothing, or where these are no pictures.
    """
    if "mean" not in said or "std" not in said or shape[0] not in (1, 3):
        return None
    scale = LEVELS if "levels" in said else float(str(said.get("scale", LEVELS)))  # others than 8 bits: stretched
    mean, std = (tuple(np.atleast_1d(np.asarray(said[name], float)).tolist()) for name in ("mean", "std"))
    return Normalization(mean, std, scale if scale >= 1 else 1 / scale)


def pictures_of(inputs: Inputs, numbers: Normalization) -> list[Picture]:
    """Return inputs as pictures of 8 bits."""
    assert isinstance(inputs, Tensor)
    levels = numbers.undone(inputs).round().clamp(0, LEVELS).to(torch.uint8).numpy()
    return list(levels)


def uploaded(kind: str, quality: int, pictures: Sequence[Picture], numbers: Normalization) -> Upload:
    """Return what becomes of pictures that are sent as this kind, at this quality."""
    code = KINDS[kind]
    sent = [code(picture, quality) for picture in pictures]
    decoded = torch.from_numpy(np.stack([one.decoded for one in sent])).float()
    sizes = [min(one.file_bytes, one.own_bytes) for one in sent]
    file_bytes, own_bytes = (
        float(np.mean([getattr(one, name) for one in sent])) for name in ("file_bytes", "own_bytes")
    )
    coding = _coding_ms(kind, quality, pictures[:TIMED])
    return Upload(kind, quality, file_bytes, own_bytes, max(sizes), numbers.of(decoded), coding)


def lowest_quality(within: Callable[[int], bool]) -> int:
    """Return the lowest quality that is within what is allowed; the best one where none is."""
    low, high = 0, BEST
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if within(middle) else (middle, high)
    return high


def raw_bytes(shape: Sequence[int]) -> int:
    """Return the bytes of a picture as it is: one a channel and pixel."""
    return int(np.prod(shape))


def scan_of(data: bytes) -> int:
    """Return the bytes of a JPEG's scan. Raises CodecError for a file that has none."""
    at = data.rfind(SCAN)
    if at < 0 or at + 4 > len(data):
        raise CodecError("this is no JPEG: it has no scan")
    return len(data) - at - 2 - int.from_bytes(data[at + 2 : at + 4], "big") - END_BYTES


def _jpeg(picture: Picture, quality: int, *, subsampling: int) -> Sent:
    image = _image(picture)
    plain = _saved(image, "JPEG", quality=quality, subsampling=subsampling)
    best = _saved(image, "JPEG", quality=quality, subsampling=subsampling, optimize=True)
    return Sent(len(best), min(scan_of(plain), len(best)), _opened(plain, len(picture)))


def _webp(picture: Picture, quality: int) -> Sent:
    data = _saved(_image(picture), "WEBP", quality=quality, method=6)
    return Sent(len(data), len(data) - WEBP_CONTAINER, _opened(data, len(picture)))


KINDS: Mapping[str, Code] = {
    "JPEG 4:2:0": partial(_jpeg, subsampling=2),
    "JPEG 4:4:4": partial(_jpeg, subsampling=0),
    "WebP": _webp,
}


def _coding_ms(kind: str, quality: int, pictures: Sequence[Picture]) -> tuple[float, float]:
    form = kind.split(" ")[0].upper()
    encode, decode = [], []
    for picture in pictures:
        began = time.perf_counter()
        data = _saved(_image(picture), form, quality=quality)
        between = time.perf_counter()
        _opened(data, len(picture))
        encode.append(between - began)
        decode.append(time.perf_counter() - between)
    return 1e3 * median(encode), 1e3 * median(decode)


def _image(picture: Picture) -> Image.Image:
    return Image.fromarray(picture[0] if len(picture) == 1 else np.ascontiguousarray(picture.transpose(1, 2, 0)))


def _saved(image: Image.Image, form: str, **options: int | bool) -> bytes:
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def _opened(data: bytes, channels: int) -> Picture:
    with Image.open(io.BytesIO(data)) as image:
        pixels = np.asarray(image.convert("L" if channels == 1 else "RGB"))
    return pixels[None] if channels == 1 else pixels.transpose(2, 0, 1)
