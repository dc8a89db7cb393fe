"""Multiply-accumulates for each pixel of a picture: exact counts of what runs once for each coefficient or pixel.

Sums of neighbours, comparisons and the range coder multiply nothing and are not counted. Every coefficient counts,
those of bands that are all zero too.
"""

from slimwright.codec.context_net import FEATURES, HIDDEN, OUTPUTS, role_of
from slimwright.codec.contexts import CHANNELS
from slimwright.codec.dequantizing import FILTER
from slimwright.codec.picturing import ROUNDS
from slimwright.codec.wavelet import LEVELS, LIFTS

KERNEL = 9
ROTATION = CHANNELS * CHANNELS


def context_macs() -> float:
    """Return those of the context net, run once."""
    share = 1 - 4.0**-LEVELS  # of a channel's coefficients; the others are in the lowest band
    return share * sum(_net_macs(role_of(channel)) for channel in range(CHANNELS))


def wavelet_macs() -> float:
    """Return those of the transform one way: a lift is a product and two sums, counted twice, and scaling a product."""
    samples = CHANNELS * sum(4.0**-level for level in range(LEVELS))
    return samples * 2 * (2 * len(LIFTS) + 2) / 2


def decode_kmac_per_pixel() -> float:
    """Return those of decoding, in thousands, with the filter."""
    return (context_macs() + wavelet_macs() + ROTATION + 2 * KERNEL * CHANNELS * FILTER) / 1000


def encode_kmac_per_pixel() -> float:
    """Return those of encoding at a given step with the shared parameters, in thousands."""
    return ((ROUNDS + 1) * context_macs() + wavelet_macs() + ROTATION) / 1000


def _net_macs(role: str) -> int:
    first, second = HIDDEN[role]
    return FEATURES[role] * first + first * second + second * OUTPUTS
