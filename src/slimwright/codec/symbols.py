"""Whole numbers around zero, in or out of a range coder, by an index of the odds and one of the scale for each.

A flag says whether a number is zero. Another number has a sign, which is not predicted, and a size that falls off
geometrically: large scales leave their lowest bits as they are. The tables come from decimal arithmetic, which gives
the same digits on every platform. Whatever finds the indices in whole numbers has the same bytes everywhere:
pictures' coefficients do, and quantized features can.
"""

from decimal import Context, Decimal
from functools import cache

import numpy as np
from numpy.typing import NDArray

from slimwright.errors import ModelError
from slimwright.swz.entropy import ONE, Coder, Ints, Shares, shares

Indices = NDArray[np.int64]
ODDS_UNIT, MOST_ODDS = 8, 80  # log odds have the index round(8 odds) + 80
SCALE_UNIT, LEAST_SCALE, MOST_SCALE = 4, -12, 40  # log2 of a mean size has the index round(4 log2) + 12
LEAST_PART = 2  # of 2^16, that either value of a flag has
MOST_STEPS, MOST_BITS = 24, 24  # of a size: behind so many steps follows a number of at most so many bits
DIGITS = Context(prec=40)


@cache
def zero_shares() -> Shares:
    """Return how likely a number is zero, by the index of its log odds."""
    return _shares([_odds(Decimal(index) / ODDS_UNIT) for index in range(-MOST_ODDS, MOST_ODDS + 1)])


@cache
def size_tables() -> tuple[Shares, Ints]:
    """Return by the index of the scale how likely a size goes on, and how many low bits are left as they are."""
    logs = [Decimal(index) / SCALE_UNIT for index in range(LEAST_SCALE, MOST_SCALE + 1)]
    low = [max(int(log) - 1, 0) for log in logs]
    likely = [DIGITS.exp(-DIGITS.power(2, bits - log)) for bits, log in zip(low, logs, strict=True)]
    return _shares(likely), np.array(low, np.int32)


def indices_for(numbers: Ints) -> tuple[int, int]:
    """Return the indices of the odds and the scale that suit numbers which are coded under the same ones."""
    zeros, sizes = np.count_nonzero(numbers == 0), np.abs(numbers[numbers != 0])
    odds = round(ODDS_UNIT * float(np.log((zeros + 0.5) / (len(sizes) + 0.5))))
    mean = float(np.mean(np.minimum(sizes, np.median(sizes) * 8))) if len(sizes) else 1.0  # a first one may be far off
    scale = round(SCALE_UNIT * float(np.log2(max(mean - 0.5, 0.125))))
    return min(max(odds, -MOST_ODDS), MOST_ODDS) + MOST_ODDS, min(max(scale, LEAST_SCALE), MOST_SCALE) - LEAST_SCALE


def checked(odds: int, scale: int) -> tuple[int, int]:
    """Return indices that were read. Raises ModelError where a table has no such row."""
    if odds > 2 * MOST_ODDS or scale > MOST_SCALE - LEAST_SCALE:
        raise ModelError(f"the indices {odds} and {scale} lie beyond the tables")
    return odds, scale


def coded(coder: Coder, odds: Indices, scale: Indices, given: Ints | None) -> Ints:
    """Code numbers [n] under the indices [n] of their odds and scales; without `given` ones they are read.

    Raises ModelError where bytes hold a number that no encoder writes.
    """
    found = 1 - coder.flags(zero_shares()[odds], None if given is None else (given == 0).astype(np.int32))
    some = np.flatnonzero(found)
    kept = None if given is None else given[some]
    signs = coder.flags(np.full(len(some), 0.5, np.float32), None if kept is None else (kept < 0).astype(np.int32))
    sizes = _sizes(coder, scale[some], None if kept is None else np.abs(kept) - 1)
    found[some] = np.where(signs == 1, -1 - sizes, 1 + sizes)
    return found


def _sizes(coder: Coder, scale: Indices, given: Ints | None) -> Ints:
    """Code sizes from zero: steps of 2^low that go on with the scale's probability, and the low bits."""
    going_on, low = size_tables()
    likely, low_bits = going_on[scale], low[scale]
    steps = None if given is None else given >> low_bits
    high = np.zeros(len(scale), np.int32)
    going = np.arange(len(scale))
    for step in range(MOST_STEPS):
        more = coder.flags(likely[going], None if steps is None else (steps[going] > step).astype(np.int32))
        going = going[more == 1]
        high[going] += 1
    if len(going):
        high[going] += _rest(coder, len(going), None if steps is None else steps[going] - MOST_STEPS)
    rest = np.zeros(len(scale), np.int32)
    some = np.flatnonzero(low_bits)
    sizes = (1 << low_bits[some]).astype(np.int32)
    rest[some] = coder.numbers(sizes, None if given is None else given[some] & sizes - 1)
    if bool((high >= 1 << MOST_BITS - low_bits).any()):
        raise ModelError("a number is larger than an encoder writes")
    return high << low_bits | rest


def _rest(coder: Coder, count: int, given: Ints | None) -> Ints:
    """Code numbers [count] from zero: how many bits they have, and these, the lowest first."""
    bits = None if given is None else np.array([int(one).bit_length() for one in given], np.int32)
    bits = coder.numbers(np.full(count, MOST_BITS + 1, np.int32), bits)
    found = np.zeros(count, np.int32)
    for place in range(int(bits.max(initial=0))):
        some = np.flatnonzero(bits > place)
        bit = None if given is None else given[some] >> place & 1
        found[some] |= coder.flags(np.full(len(some), 0.5, np.float32), bit) << place
    return found


def _shares(likely: list[Decimal]) -> Shares:
    parts = [int((one * ONE).to_integral_value()) for one in likely]
    return shares(np.clip(np.array(parts, np.int64), LEAST_PART, ONE - LEAST_PART))


def _odds(log_odds: Decimal) -> Decimal:
    return 1 / (1 + DIGITS.exp(-log_odds))
