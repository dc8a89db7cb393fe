"""Pictures at many rates, beside JPEG, WebP, AVIF, HEIC and JPEG XL at their best settings.

The four test photographs took part in no choice and no training. Each codec's rate and PSNR in RGB come from the
bytes and from what its own decoder gives. Rates are compared by Bjontegaard's difference over the qualities that both
reach, averaged over pictures. AVIF and HEIC are compared with 4:2:0 chroma, which is their default, and 4:4:4. Rows
are kept as they come: a run that was stopped goes on. `--speed` adds MB of pixels a second, for a machine that does
nothing else.
"""

import argparse
import io
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, features
from rich.console import Console
from torch import Tensor

from lib.bd_rate import Curve, bd_rate
from lib.onnx_contexts import OnnxNet
from lib.results import Column, Row, environment, keep, kept, parser, publish, rows_file, show
from slimwright.codec.counting import decode_kmac_per_pixel, encode_kmac_per_pixel
from slimwright.codec.decoding import decoded
from slimwright.codec.encoding import TRADES, Encoded, Options, at
from slimwright.codec.evaluating import saved
from slimwright.codec.overfitting import Effort, overfitted
from slimwright.codec.parameters import parameters
from slimwright.codec.photographs import TEST, as_tensor, photographs
from slimwright.codec.picturing import psnr_of, source_of
from slimwright.codec.quality import ms_ssim
from slimwright.codec.tiles import places, written
from slimwright.progress import silent

OUT = Path(__file__).resolve().parents[1] / "out" / "codec"
SEED = 0
STEPS = (24, 30, 36, 42, 48, 54)
FITTED_STEPS = (42, 30, 50, 36)  # in the order in which they are worth waiting for
QUICK_STEPS = (30, 38, 46)
OURS = ("amortised", "overfitted")
COLUMNS = (
    Column("picture", "picture"),
    Column("codec", "codec"),
    Column("setting", "setting"),
    Column("bytes", "bytes", "{:,}"),
    Column("bpp", "bits a pixel", "{:.3f}"),
    Column("psnr", "PSNR, dB", "{:.2f}"),
    Column("ms_ssim", "MS-SSIM", "{:.4f}"),
)
SPEEDS = (Column("encode_mb_s", "encode, MB/s", "{:.3f}"), Column("decode_mb_s", "decode, MB/s", "{:.3f}"))


@dataclass(frozen=True)
class Peer:
    """A codec of Pillow's: its name, what it needs, its options, and its qualities."""

    name: str
    is_there: Callable[[], bool]
    options: dict[str, Any]
    qualities: tuple[int, ...]


def heic() -> bool:
    """Whether Pillow can write HEIC, which it then does."""
    if find_spec("pillow_heif") is None:
        return False
    from pillow_heif import register_heif_opener

    register_heif_opener()
    return True


def jxl() -> bool:
    """Whether Pillow can write JPEG XL, which it then does."""
    if find_spec("pillow_jxl") is None:
        return False
    import pillow_jxl  # noqa: F401

    return True


JPEG = {"format": "JPEG", "optimize": True, "progressive": True}
SLOW = {"format": "HEIF", "enc_params": {"preset": "slow"}}
PEERS = (
    Peer("JPEG", lambda: True, {**JPEG, "subsampling": "4:2:0"}, (4, 8, 15, 30, 50, 70, 85, 93)),
    Peer("JPEG 4:4:4", lambda: True, {**JPEG, "subsampling": "4:4:4"}, (4, 8, 15, 30, 50, 70, 85, 93)),
    Peer("WebP", lambda: bool(features.check("webp")), {"format": "WEBP", "method": 6}, (0, 5, 15, 35, 55, 75, 88, 95)),
    Peer("AVIF", lambda: bool(features.check("avif")), {"format": "AVIF", "speed": 3}, (15, 32, 48, 62, 76, 88)),
    Peer(
        "AVIF 4:4:4",
        lambda: bool(features.check("avif")),
        {"format": "AVIF", "speed": 3, "subsampling": "4:4:4"},
        (15, 32, 48, 62, 76, 88),
    ),
    Peer("HEIC", heic, SLOW, (10, 20, 30, 40, 50, 60, 70, 80)),
    Peer("HEIC 4:4:4", heic, {**SLOW, "chroma": 444}, (10, 20, 30, 40, 50, 60, 70, 80)),
    Peer("JPEG XL", jxl, {"format": "JXL", "effort": 9}, (15, 40, 60, 75, 85, 93)),
)
QUICK_PEERS = ("JPEG", "WebP", "HEIC", "HEIC 4:4:4")


def main() -> None:
    asked = options()
    torch.set_num_threads(1)
    say = Console(stderr=True, soft_wrap=True, highlight=False).print
    rows_at = rows_file(asked, OUT)
    for row in fresh_rows(asked, kept(rows_at)):
        keep(row, rows_at)
        say(f"{row['picture']}, {row['codec']}, {row['setting']}: {row['bpp']:.3f} bits a pixel, {row['psnr']:.2f} dB")
    codecs = [*OURS, *(peer.name for peer in PEERS)]
    rows = sorted(kept(rows_at), key=lambda row: (str(row["picture"]), codecs.index(str(row["codec"])), row["bytes"]))
    columns = COLUMNS + (SPEEDS if asked.speed else ())
    show("Rate and quality of test photographs", columns, rows, sections=("picture", "codec"))
    same = float(is_byte_identical(subjects(quick=True)))
    found = {**headline(rows), "byte_identical": same}
    publish(
        asked, headline=found, rows=rows, environment=environment("pillow", "pillow_heif", "onnxruntime", seed=SEED)
    )


def options() -> argparse.Namespace:
    known = parser(__doc__ or "")
    known.add_argument("--speed", action="store_true", help="measure MB of pixels a second, on a quiet machine")
    return known.parse_args()


@cache
def subjects(*, quick: bool) -> dict[str, Tensor]:
    """The test photographs; a part of one where it shall be quick."""
    if quick:
        return {"astronaut, part": photographs(TEST[:1])[TEST[0]][:, 40:296, 100:356].contiguous()}
    return {Path(name).stem: picture for name, picture in photographs(TEST).items()}


def fresh_rows(asked: argparse.Namespace, have: list[dict[str, str | int | float]]) -> Iterator[Row]:
    """The rows that are not there yet: the quick ones first."""
    done = {(row["picture"], row["codec"], row["setting"]) for row in have}
    named = subjects(quick=asked.quick)
    for name, picture in named.items():
        for peer in PEERS:
            if (asked.quick and peer.name not in QUICK_PEERS) or not peer.is_there():
                continue
            for quality in peer.qualities:
                if (name, peer.name, quality) not in done:
                    yield peer_row(name, picture, peer, quality, asked)
    for codec in OURS:
        for step in QUICK_STEPS if asked.quick else STEPS if codec == "amortised" else FITTED_STEPS:
            for name, picture in named.items():
                if (name, codec, step) not in done:
                    yield our_row(name, picture, codec, step, asked)


def peer_row(name: str, picture: Tensor, peer: Peer, quality: int, asked: argparse.Namespace) -> Row:
    image = Image.fromarray(picture.permute(1, 2, 0).contiguous().numpy())
    began = time.perf_counter()
    data = saved(image, peer.options, quality)
    middle = time.perf_counter()
    found = as_tensor(Image.open(io.BytesIO(data)))
    times = (middle - began, time.perf_counter() - middle)
    return row_of(name, peer.name, quality, picture, (data, found), times if asked.speed else None)


def our_row(name: str, picture: Tensor, codec: str, step: int, asked: argparse.Namespace) -> Row:
    began = time.perf_counter()
    data = ours(picture, codec, step, quick=asked.quick).data
    middle = time.perf_counter()
    found = decoded(data, parameters(), silent).picture
    times = (middle - began, time.perf_counter() - middle)
    return row_of(name, codec, step, picture, (data, found), times if asked.speed else None)


def ours(picture: Tensor, codec: str, step: int, *, quick: bool) -> Encoded:
    """A picture as our file, at a step of the quantizer."""
    source, shared, setting = source_of(picture), parameters(), step * len(TRADES) + 1
    if codec == "overfitted":
        effort = Effort(rounds=1, iterations=60, seed=SEED) if quick else Effort(seed=SEED)
        shared = overfitted(source, shared, setting, Options(), effort, silent)
    return at(source, shared, setting, Options())


def row_of(
    name: str, codec: str, setting: int, picture: Tensor, made: tuple[bytes, Tensor], times: tuple[float, float] | None
) -> Row:
    data, found = made
    pixels = picture[0].numel()
    row: dict[str, str | int | float] = {
        "picture": name,
        "codec": codec,
        "setting": setting,
        "bytes": len(data),
        "bpp": 8 * len(data) / pixels,
        "psnr": psnr_of(found, picture),
        "ms_ssim": ms_ssim(found, picture),
    }
    if times is not None:
        row |= {"encode_mb_s": 3e-6 * pixels / times[0], "decode_mb_s": 3e-6 * pixels / times[1]}
    return row


def headline(rows: list[dict[str, str | int | float]]) -> dict[str, float]:
    """Rate differences in per cent, and counts."""
    pairs = {
        "bd_overfitted_webp": ("overfitted", "WebP"),
        "bd_overfitted_heic": ("overfitted", "HEIC"),
        "bd_overfitted_heic_444": ("overfitted", "HEIC 4:4:4"),
        "bd_overfitted_avif": ("overfitted", "AVIF"),
        "bd_overfitted_avif_444": ("overfitted", "AVIF 4:4:4"),
        "bd_overfitted_jxl": ("overfitted", "JPEG XL"),
        "bd_overfitted_amortised": ("overfitted", "amortised"),
        "bd_amortised_jpeg": ("amortised", "JPEG"),
        "bd_amortised_webp": ("amortised", "WebP"),
        "bd_amortised_heic_444": ("amortised", "HEIC 4:4:4"),
    }
    found = {key: mean_difference(rows, *pair) for key, pair in pairs.items()}
    macs = {"decode_kmac_per_pixel": decode_kmac_per_pixel(), "encode_kmac_per_pixel": encode_kmac_per_pixel()}
    return found | macs


def mean_difference(rows: list[dict[str, str | int | float]], ours_: str, theirs: str) -> float:
    """The rate difference, averaged over the pictures that both sides have; NaN where there is none."""
    found = []
    for name in dict.fromkeys(row["picture"] for row in rows):
        one, other = (curve(rows, str(name), codec) for codec in (ours_, theirs))
        if len(one) >= 3 and len(other) >= 3:
            found.append(bd_rate(other, one))
    return float(np.mean(found)) if found else float("nan")


def curve(rows: list[dict[str, str | int | float]], name: str, codec: str) -> Curve:
    return [(float(row["bpp"]), float(row["psnr"])) for row in rows if (row["picture"], row["codec"]) == (name, codec)]


def is_byte_identical(pictures: dict[str, Tensor]) -> bool:
    """Whether one thread, two threads and ONNX Runtime write the same bytes, and decode the same numbers."""
    shared, same = parameters(), True
    for picture in pictures.values():
        source = source_of(picture)
        one = at(source, shared, QUICK_STEPS[1] * len(TRADES), Options())
        torch.set_num_threads(2)
        other = at(source_of(picture), shared, QUICK_STEPS[1] * len(TRADES), Options())
        torch.set_num_threads(1)
        net = OnnxNet(shared.net)
        layout = places(*one.head.low_size, one.head.tile)
        there = [written(one.numbers.of(place), net, one.head.step) for place in layout]
        here = [written(one.numbers.of(place), shared.net, one.head.step) for place in layout]
        same &= one.data == other.data and there == here
    return same


if __name__ == "__main__":
    main()
