"""One range coder for both directions: what models say of the next symbols, and the symbols in or out.

A model is written once, against `Coder`: an encoder is given the symbols and returns them, a decoder finds them. All
probabilities are whole parts of 2^16 that come from whole numbers, so every platform computes the same ones; a float
holds each of them exactly. The range coder is that of `constriction` (Bamler 2022, arXiv 2201.01741), on 32-bit words.
"""

from typing import Any, Protocol

import constriction
import numpy as np
from numpy.typing import NDArray

from slimwright.errors import ModelError

model, queue = constriction.stream.model, constriction.stream.queue
Ints = NDArray[np.int32]
Counts = NDArray[np.int64]
Shares = NDArray[np.float32]
BITS = 16
ONE = 1 << BITS  # what the parts of a distribution sum to
MOST_SYMBOLS = 2**14
WORD_BYTES = 4


class Coder(Protocol):
    """What a model needs of a range coder; `given` are the symbols, or None where they are to be found."""

    def flags(self, likely: Shares, given: Ints | None) -> Ints:
        """Zeros and ones [n]: each is one with the probability `likely` [n], of `shares`."""

    def symbols(self, counts: Counts, count: int, given: Ints | None) -> Ints:
        """`count` symbols that are distributed as `counts` [symbols] say, all of them above zero."""

    def numbers(self, sizes: Ints, given: Ints | None) -> Ints:
        """Numbers [n], each evenly from 0 to below its entry of `sizes` [n], which is two or more."""


class Encoder:
    """A range encoder; `finished` gives the bytes."""

    def __init__(self) -> None:
        self._queue = queue.RangeEncoder()

    def flags(self, likely: Shares, given: Ints | None) -> Ints:
        """Write zeros and ones."""
        assert given is not None
        if len(given):
            self._queue.encode(given, FLAGS, likely)
        return given

    def symbols(self, counts: Counts, count: int, given: Ints | None) -> Ints:
        """Write symbols."""
        assert given is not None and len(given) == count
        if count and len(counts) > 1:
            self._queue.encode(given, distribution(counts))
        return given

    def numbers(self, sizes: Ints, given: Ints | None) -> Ints:
        """Write numbers."""
        assert given is not None
        if len(given):
            self._queue.encode(given, EVEN, sizes)
        return given

    def finished(self) -> bytes:
        """Return the bytes of all that was written, without the zeros at their end."""
        return bytes(self._queue.get_compressed().astype("<u4").tobytes().rstrip(b"\0"))


class Decoder:
    """A range decoder. Bytes that no encoder wrote give symbols without a meaning, or raise ModelError."""

    def __init__(self, data: bytes | memoryview) -> None:
        whole = bytes(data) + bytes(-len(data) % WORD_BYTES)
        self._queue = queue.RangeDecoder(np.frombuffer(whole, "<u4").astype(np.uint32))

    def flags(self, likely: Shares, given: Ints | None) -> Ints:
        """Read zeros and ones."""
        del given
        return self._decoded(FLAGS, likely) if len(likely) else EMPTY

    def symbols(self, counts: Counts, count: int, given: Ints | None) -> Ints:
        """Read symbols."""
        del given
        if not count or len(counts) < 2:
            return np.zeros(count, np.int32)
        return self._decoded(distribution(counts), count)

    def numbers(self, sizes: Ints, given: Ints | None) -> Ints:
        """Read numbers."""
        del given
        return self._decoded(EVEN, sizes) if len(sizes) else EMPTY

    def _decoded(self, *model: Any) -> Ints:
        try:
            found: Ints = self._queue.decode(*model)
        except AssertionError as error:  # what constriction raises where no symbol has such bits
            raise ModelError("its entropy-coded bytes are none that an encoder writes") from error
        return found


FLAGS, EVEN = model.Bernoulli(perfect=False), model.Uniform()
EMPTY = np.zeros(0, np.int32)


def distribution(counts: Counts) -> Any:
    """Return the model of counts [symbols], as whole parts of 2^16 or, with many symbols, of 2^20."""
    return model.Categorical(parts_of(counts) / float(_whole(counts)), perfect=False)


def parts_of(counts: Counts) -> Counts:
    """Return counts [symbols] as whole parts, at least one each, that sum to 2^16 (2^20 for many symbols)."""
    whole, total = _whole(counts), int(counts.sum())
    parts = 1 + counts * (whole - len(counts)) // total
    parts[np.flatnonzero(counts == counts.max())[0]] += whole - int(parts.sum())
    return parts


def bits_of(counts: Counts) -> float:
    """Return the bits that symbols with these counts take under their own distribution."""
    present = counts[counts > 0]
    return float(-(present * np.log2(present / present.sum())).sum())


def _whole(counts: Counts) -> int:
    return ONE if len(counts) <= 2**10 else ONE << 4


def shares(parts: NDArray[np.int64]) -> Shares:
    """Return probabilities from whole parts in 2^16, exactly."""
    return parts.astype(np.float32) * np.float32(1 / ONE)
