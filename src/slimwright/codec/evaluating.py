"""The codec beside JPEG and WebP at the same size, by what each decoder gives."""

import io
from collections.abc import Callable
from copy import deepcopy
from dataclasses import asdict, dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from PIL import Image
from torch import Tensor

from slimwright.codec.decoding import decoded
from slimwright.codec.encoding import Aim, Options, encoded
from slimwright.codec.overfitting import Effort, overfitted_to
from slimwright.codec.parameters import Parameters
from slimwright.codec.photographs import as_tensor
from slimwright.codec.picturing import psnr_of, source_of
from slimwright.codec.quality import ms_ssim
from slimwright.progress import Tell

if TYPE_CHECKING:
    from rich.table import Table

PEERS: dict[str, dict[str, Any]] = {
    "JPEG": {"format": "JPEG", "optimize": True, "progressive": True, "subsampling": "4:2:0"},
    "WebP": {"format": "WEBP", "method": 6},
}


@dataclass(frozen=True)
class Row:
    """What a codec made of a picture."""

    picture: str
    codec: str
    size_bytes: int
    bpp: float
    psnr: float
    ms_ssim: float

    def as_data(self) -> dict[str, Any]:
        """Return the row as JSON-ready data."""
        return asdict(self)


def evaluated(name: str, picture: Tensor, aim: Aim, shared: Parameters, effort: Effort | None, tell: Tell) -> list[Row]:
    """Return the rows of the codec and its peers for a picture; peers take at most as many bytes, where they can."""
    source = source_of(picture)
    if effort is None:
        data = encoded(source, shared, aim, Options(), tell).data
    else:
        data = overfitted_to(source, shared, aim, Options(), effort, tell).data
    ours = "slimwright" if effort is None else "slimwright, overfitted"
    rows = [_row(name, ours, data, picture, decoded(data, shared, tell).picture)]
    for codec, options in PEERS.items():
        image = Image.fromarray(picture.permute(1, 2, 0).contiguous().numpy())
        other = at_most(len(data), partial(saved, image, options))
        rows.append(_row(name, codec, other, picture, as_tensor(Image.open(io.BytesIO(other)))))
    return rows


def saved(image: Image.Image, options: dict[str, Any], quality: int) -> bytes:
    """Return a picture as the bytes that Pillow writes."""
    buffer = io.BytesIO()
    image.save(buffer, quality=quality, **deepcopy(options))  # plugins write into what they are given
    return buffer.getvalue()


def at_most(size: int, save: Callable[[int], bytes]) -> bytes:
    """Return the largest file of a quality from 0 to 95 that has at most `size` bytes; the smallest where none has."""
    low, high, best = 0, 95, save(0)
    while low <= high:
        middle = (low + high) // 2
        data = save(middle)
        if len(data) <= size:
            best, low = data, middle + 1
        else:
            high = middle - 1
    return best


def _row(name: str, codec: str, data: bytes, picture: Tensor, found: Tensor) -> Row:
    bpp = 8 * len(data) / picture[0].numel()
    return Row(name, codec, len(data), bpp, psnr_of(found, picture), ms_ssim(found, picture))


def table(rows: list[Row]) -> "Table":
    """Return the rows as a table."""
    from rich.box import SIMPLE
    from rich.table import Table
    from rich.text import Text

    made = Table(box=SIMPLE, pad_edge=False)
    for column in ("picture", "codec", "bytes", "bits a pixel", "PSNR", "MS-SSIM"):
        made.add_column(column, justify="left" if column in ("picture", "codec") else "right")
    for row in rows:
        made.add_row(
            Text(row.picture),
            row.codec,
            f"{row.size_bytes:,}",
            f"{row.bpp:.3f}",
            f"{row.psnr:.2f} dB",
            f"{row.ms_ssim:.4f}",
        )
    return made
