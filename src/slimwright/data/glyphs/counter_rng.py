"""Random numbers by counting: the numbers of image i depend on (seed, part, i) alone, never on what was drawn before.

The mixing function is that of splitmix64 (Steele, Lea and Flood 2014, "Fast splittable pseudorandom number
generators", OOPSLA, fig. 16), constants included: exact integer arithmetic, the same on every machine.
"""

import numpy as np
from numpy.typing import NDArray

GOLDEN = np.uint64(0x9E3779B97F4A7C15)
STEPS = ((np.uint64(30), np.uint64(0xBF58476D1CE4E5B9)), (np.uint64(27), np.uint64(0x94D049BB133111EB)))
LAST = np.uint64(31)
BRANCHES = 1 << 32  # more words than any picture draws

Words = NDArray[np.uint64]


def mixed(words: Words) -> Words:
    """Return 64-bit words in which every bit depends on every bit given."""
    for shift, factor in STEPS:
        words = (words ^ (words >> shift)) * factor
    return words ^ (words >> LAST)


def keys(seed: int, stream: int, numbers: NDArray[np.int64]) -> Words:
    """Return one word [N] for each image number of a stream (a part of a data set)."""
    key = mixed(np.array([seed % 2**64], np.uint64) + np.array([stream + 1], np.uint64) * GOLDEN)
    return mixed(key + (numbers.astype(np.uint64) + np.uint64(1)) * GOLDEN)


def uniform(keyed: Words, count: int, *, first: int = 0) -> NDArray[np.float32]:
    """Return numbers [N, count] in 0..1, of 16 bits each; draws with other `first` (in words of 4) are independent."""
    words = -(-count // 4)
    counter = (np.arange(first, first + words, dtype=np.uint64) + np.uint64(1)) * GOLDEN
    drawn = mixed(keyed[:, None] + counter).view(np.uint16)[:, :count]
    return (drawn.astype(np.float32) + np.float32(0.5)) * np.float32(2**-16)


def branched(keyed: Words, branch: int) -> Words:
    """Return other words [N], for a part of what each stands for; the numbers drawn from both are independent."""
    return mixed(keyed + np.array([BRANCHES + branch], np.uint64) * GOLDEN)
