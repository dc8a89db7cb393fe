"""Ranges of activations for few levels: what values a net takes on calibration images, and which of them to clip.

Two passes over the images: the smallest and largest values, then histograms between them. From a histogram follows the
range that is asked for: from the smallest to the largest value, without the outermost shares, or the one that loses the
least by squared error (Choukroun et al. 2019, arXiv 1902.06822) or relative entropy (Migacz, "8-bit inference with
TensorRT", GTC 2017). Every range holds zero, which is a level: padding adds zeros.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from math import prod
from typing import Literal, TypeAlias, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from slimwright.data import Inputs, tensors_of
from slimwright.graph import Net
from slimwright.graph.levels import Levels
from slimwright.graph.net import CHUNK_BYTES

Calibration: TypeAlias = Literal["minmax", "percentile", "entropy", "mse"]
CALIBRATIONS: tuple[Calibration, ...] = get_args(Calibration)
BINS = 2048
AT_ONCE = 1 << 15  # numbers that are counted while the caches hold them
OUTER_SHARE = 1e-4  # of the values, at each end, that "percentile" leaves out
SHARES = np.linspace(1.0, 0.1, 46)  # of a range's ends, that are tried
LEAST_WIDTH = 1e-6  # of a range: a value that is always zero
Counts: TypeAlias = NDArray[np.float64]


def covering(low: float, high: float, bits: int) -> Levels:
    """Return levels that cover a range and hold zero."""
    low, high, most = min(low, 0.0), max(high, 0.0), 2**bits - 1
    zero = min(max(round(-low / max(high - low, LEAST_WIDTH) * most), 0), most)
    scale = max(high / (most - zero) if most > zero else 0.0, -low / zero if zero else 0.0, LEAST_WIDTH / most)
    return Levels(float(np.float32(scale)), zero, 0, most)


def ranges(net: Net, inputs: Inputs, values: Sequence[str], bits: int, by: Calibration) -> dict[str, Levels]:
    """Return levels for `values` of a net, by what they are on inputs, each [N, ...]."""
    if not values:
        return {}
    lows, highs = dict.fromkeys(values, 0.0), dict.fromkeys(values, 0.0)
    for found in values_seen(net, inputs, values):
        for name, value in found.items():
            lows[name] = min(lows[name], float(value.min()))
            highs[name] = max(highs[name], float(value.max()))
    if by == "minmax":
        return {name: covering(lows[name], highs[name], bits) for name in values}
    counts = {name: torch.zeros(BINS, dtype=torch.float64) for name in values}
    for found in values_seen(net, inputs, values):
        for name, value in found.items():
            if highs[name] > lows[name]:
                counts[name] += _counted(value.float(), lows[name], highs[name])
    return {name: _levels(counts[name].numpy(), lows[name], highs[name], bits, by) for name in values}


def _counted(value: Tensor, low: float, high: float) -> Tensor:
    """Count numbers between two by bin, as `torch.histc` does, in less than half of its time (torch 2.13.0)."""
    counts = torch.zeros(BINS, dtype=torch.int64, device=value.device)
    for some in value.flatten().split(AT_ONCE):
        bins = (some - low).div_(high - low).mul_(BINS).clamp_(0, BINS - 1)
        counts += torch.bincount(bins.int(), minlength=BINS)
    return counts


def values_seen(net: Net, inputs: Inputs, values: Sequence[str]) -> Iterator[Mapping[str, Tensor]]:
    """Yield `values` of a net for some images after others: tensors [images, ...] by name."""
    if not values:
        return
    tensors = tensors_of(inputs)
    module = replace(net, outputs=tuple(values), ends=None).to_module()
    each = 4 * sum(prod(net[name].shape) for name in values)
    with torch.no_grad():
        for some in zip(*(tensor.split(max(int(4 * CHUNK_BYTES // each), 1)) for tensor in tensors), strict=True):
            found = module(*some)
            yield dict(zip(values, (found,) if isinstance(found, Tensor) else found, strict=True))


def _levels(counts: Counts, low: float, high: float, bits: int, by: Calibration) -> Levels:
    """The levels for a histogram [BINS] between two values."""
    whole = covering(low, high, bits)
    if not counts.any():
        return whole
    centres = low + (np.arange(BINS) + 0.5) * (high - low) / BINS
    if by == "percentile":
        share = counts.cumsum() / counts.sum()
        inner = centres[(share >= OUTER_SHARE) & (share - counts / counts.sum() <= 1 - OUTER_SHARE)]
        return covering(float(inner.min()), float(inner.max()), bits)
    ends = [(low, high * share) for share in SHARES] if low >= 0 else _both_ends(low, high)
    tried = [covering(one, other, bits) for one, other in ends]
    losses = [_squared(counts, centres, one) if by == "mse" else _entropy(counts, centres, one) for one in tried]
    return tried[int(np.argmin(losses))]


def _both_ends(low: float, high: float) -> list[tuple[float, float]]:
    """Ranges whose ends lie nearer to zero, each by itself, and to the same length."""
    some = SHARES[::3]
    apart = [(low * one, high * other) for one in some for other in some]
    longest = max(-low, high)
    return apart + [(max(low, -longest * share), min(high, longest * share)) for share in SHARES]


def _nearest(centres: Counts, levels: Levels) -> NDArray[np.int64]:
    """The nearest level of each value."""
    found = np.clip(np.rint(centres / levels.scale) + levels.zero, levels.least, levels.most)
    return np.asarray(found, np.int64)


def _squared(counts: Counts, centres: Counts, levels: Levels) -> float:
    """The sum of squared errors."""
    values = (_nearest(centres, levels) - levels.zero) * levels.scale
    return float((counts * (centres - values) ** 2).sum())


def _entropy(counts: Counts, centres: Counts, levels: Levels) -> float:
    """The entropy of the clipped histogram relative to one that is even within each level, in nats."""
    placed = _nearest(centres, levels)
    inside = np.abs(centres - (placed - levels.zero) * levels.scale) <= levels.scale
    first, last = np.flatnonzero(inside)[[0, -1]]
    clipped = counts[first : last + 1].copy()
    clipped[0] += counts[:first].sum()
    clipped[-1] += counts[last + 1 :].sum()
    there = counts[first : last + 1] > 0
    by_level = np.bincount(placed[first : last + 1], weights=counts[first : last + 1], minlength=levels.most + 1)
    bins = np.bincount(placed[first : last + 1], weights=there, minlength=levels.most + 1)
    even = np.where(there, (by_level / np.maximum(bins, 1))[placed[first : last + 1]], 0.0)
    known = (clipped > 0) & (even > 0)
    lost = clipped[~known].sum()
    one, other = clipped / clipped.sum(), even / max(even.sum(), 1e-300)
    return float((one[known] * np.log(one[known] / other[known])).sum() + lost / clipped.sum() * np.log(BINS))
