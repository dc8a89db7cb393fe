"""Bits and speed of packed weights, beside zlib and xz of the same numbers.

Weights are Laplace numbers on a grid of which 2, 10 or 50 % are not zero: evenly spread, or with rows and columns of
different scales, as trained layers have them, or with half of the columns zero, as pruning by inputs leaves them; a
layer of 3 x 3 kernels whose scales differ by kernel; and dense float32. zlib (level 9) and xz (preset 6) get the whole
numbers as bytes, of float32 the bytes. The entropy is that of the numbers one by one. All sides take turns; CPU seconds
of one thread, the median of the rounds. Encoding tries every form; decoding gives the float32 tensor.
"""

import lzma
import math
import statistics
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from lib.results import Column, Row, environment, options, publish, show
from slimwright.storage.tensors import like_of, restored, stored

SEED, ROUNDS = 0, 3
SIDE, QUICK_SIDE = 2000, 1000
STEP = np.float32(0.0137)
MB = 1e6
Matrix = NDArray[np.float64]
COLUMNS = (
    Column("weights", "weights"),
    Column("form", "form"),
    Column("entropy_bits", "entropy", "{:.3f}"),
    Column("bits", "bits a weight", "{:.3f}"),
    Column("xz_bits", "xz", "{:.3f}"),
    Column("zlib_bits", "zlib", "{:.3f}"),
    Column("encode_mweights_s", "encode", "{:.1f} M/s"),
    Column("decode_mweights_s", "decode", "{:.1f} M/s"),
    Column("decode_mb_s", "decode", "{:.0f} MB/s"),
    Column("xz_decode_mweights_s", "xz decodes", "{:.0f} M/s"),
)


@dataclass(frozen=True)
class Case:
    """Weights as a tensor, and as the bytes that zlib and xz get."""

    name: str
    values: torch.Tensor
    octets: bytes


def main() -> None:
    asked = options(__doc__ or "")
    torch.set_num_threads(1)
    side = QUICK_SIDE if asked.quick else SIDE
    rows = [row_of(case) for case in cases(side)]
    show(f"{side * side / 1e6:.0f} million weights each", COLUMNS, rows)
    by_name = {str(row["weights"]): row for row in rows}
    headline = {}
    for key, name in (("even_10", "10 %, even"), ("uneven_10", "10 %, uneven"), ("kernels_10", "10 %, kernels")):
        row = by_name[name]
        headline[f"{key}_of_entropy"] = float(row["bits"]) / float(row["entropy_bits"])
        headline[f"{key}_of_xz"] = float(row["bits"]) / float(row["xz_bits"])
    headline["float32_of_plain"] = float(by_name["float32"]["bits"]) / 32
    headline["slowest_grid_decode_mweights_s"] = min(float(row["decode_mweights_s"]) for row in rows[:-1])
    publish(asked, headline=headline, rows=rows, environment=environment("constriction", seed=SEED))


def cases(side: int) -> list[Case]:
    chance = np.random.default_rng(SEED)
    made = []
    for density in (0.02, 0.1, 0.5):
        even = chance.laplace(size=(side, side))
        scales = np.sqrt(np.outer(chance.gamma(2, 1, side), chance.gamma(0.5, 1, side)))
        half = even * (chance.random(side) < 0.5)
        kernels = chance.laplace(size=(side // 9, side, 9)) * np.sqrt(chance.gamma(0.7, 1, (side // 9, side, 1)))
        for name, matrix in (("even", even), ("uneven", even * scales), ("half of the columns", half)):
            kept = density / 2 if matrix is half else density  # of what is not zero, as many as elsewhere
            made.append(_on_grid(f"{density:.0%}, {name}".replace("%", " %"), matrix, kept))
        shaped = kernels.reshape(side // 9, side, 3, 3)
        made.append(_on_grid(f"{density:.0%}, kernels".replace("%", " %"), shaped, density))
    dense = torch.from_numpy(0.05 * chance.normal(size=(side, side)).astype(np.float32))
    return [*made, Case("float32", dense, dense.numpy().tobytes())]


def _on_grid(name: str, matrix: Matrix, density: float) -> Case:
    """A matrix as whole multiples of a step, of which the share `density` is not zero."""
    threshold = np.quantile(np.abs(matrix), 1 - density)
    numbers = np.clip(np.trunc(matrix / threshold), -127, 127).astype(np.int8)
    return Case(name, torch.from_numpy(numbers.astype(np.float32) * STEP), numbers.tobytes())


def row_of(case: Case) -> Row:
    values, count = case.values, case.values.numel()
    like = like_of(values)
    packed, by_xz, by_zlib = stored(values), lzma.compress(case.octets), zlib.compress(case.octets, 9)
    assert torch.equal(restored(packed.form, packed.data, like), values)
    seconds = medians(
        {
            "encode": lambda: stored(values),
            "decode": lambda: restored(packed.form, packed.data, like),
            "xz": lambda: lzma.decompress(by_xz),
        }
    )
    return {
        "weights": case.name,
        "form": packed.form,
        "entropy_bits": entropy_bits(values),
        "bits": 8 * len(packed.data) / count,
        "xz_bits": 8 * len(by_xz) / count,
        "zlib_bits": 8 * len(by_zlib) / count,
        "encode_mweights_s": count / seconds["encode"] / 1e6,
        "decode_mweights_s": count / seconds["decode"] / 1e6,
        "decode_mb_s": 4 * count / seconds["decode"] / MB,
        "xz_decode_mweights_s": count / seconds["xz"] / 1e6,
    }


def medians(sides: dict[str, Callable[[], object]]) -> dict[str, float]:
    """The median CPU seconds of each side, which take turns."""
    taken: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(ROUNDS):
        for name, side in sides.items():
            start = time.process_time()
            side()
            taken[name].append(time.process_time() - start)
    return {name: statistics.median(times) for name, times in taken.items()}


def entropy_bits(values: torch.Tensor) -> float:
    """The entropy of a value, of float32 numbers no more than what its 32 bits hold."""
    counts = torch.unique(values, return_counts=True)[1].double()
    shares = counts / counts.sum()
    return min(float(-(shares * shares.log2()).sum()), 32.0) if len(counts) < 2**15 else math.nan


if __name__ == "__main__":
    main()
