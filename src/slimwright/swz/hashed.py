"""Values that a hash of their place chooses: a table and a seed say all of them, and codes take no bytes.

Place p (the first number of a tensor is at 0) takes value floor(h K / 2^32) of K, where h are the high 32 bits of what
splitmix64's finaliser (Steele, Lea and Flood 2014) makes of p + seed x 0x9E3779B97F4A7C15, modulo 2^64. Source of the
scheme: Chen et al. 2015 (arXiv 1504.04788); without its factor of a sign.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from slimwright.errors import ModelError
from slimwright.swz import planes
from slimwright.swz.bytes_of import Reader, varints
from slimwright.swz.planes import Words

GOLDEN = 0x9E3779B97F4A7C15
MIXES = ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB))
WORD, MOST = np.dtype(np.uint32), 2**31 - 1  # values, or a seed


@dataclass(frozen=True)
class Hashed:
    """How many values there are, and the seed of the hash."""

    values: int
    seed: int

    def codes(self, count: int) -> NDArray[np.int64]:
        """Return which value each of so many places takes [count]."""
        mixed = np.arange(count, dtype=np.uint64) + np.uint64(self.seed * GOLDEN % 2**64)
        for shift, factor in MIXES:
            mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
        high = (mixed ^ (mixed >> np.uint64(31))) >> np.uint64(32)
        return ((high * np.uint64(self.values)) >> np.uint64(32)).astype(np.int64)


def encoded(words: Words, hashed: Hashed) -> bytes | None:
    """Return the bits [n] of float32 values as bytes; None where one place holds another value than its hash says."""
    if not 0 < hashed.values <= len(words):
        return None
    codes = hashed.codes(len(words))
    table: Words = np.zeros(hashed.values, WORD)
    table[codes] = words
    if not np.array_equal(table[codes], words):
        return None
    return varints((hashed.values, hashed.seed)) + planes.encoded(table, floats=True)


def decoded(data: bytes | memoryview, count: int) -> Words:
    """Return `count` bits of float32 values. Raises ModelError where the bytes do not hold them."""
    source = Reader(bytes(data))
    values, seed = source.varint(min(count, MOST)), source.varint(MOST)
    if count and not values:
        raise ModelError(f"it has no values for its {count:,} numbers")
    table: Words = planes.decoded(source.rest(), WORD, values, floats=True)
    return table[Hashed(values, seed).codes(count)]
