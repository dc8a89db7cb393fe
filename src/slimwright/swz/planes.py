"""Any tensor, byte by byte: the first bytes of all numbers, then the second ones, each as it is or entropy-coded.

A float is turned by one bit, so that its exponent fills the first byte and the sign stands last. Of trained float32
weights the exponents are worth about 2.7 of their 8 bits and the rest cannot be foreseen, which bounds what is saved
at a sixth; bfloat16 keeps 8 + 2.7 of 16 bits, a third less, which is what ZipNN (Hershcovitch et al. 2024, arXiv
2411.05239) and DFloat11 (Zhang et al. 2025, arXiv 2504.11651) report. Lossless, to the bit.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from slimwright.errors import ModelError
from slimwright.swz.bytes_of import Reader, varint
from slimwright.swz.entropy import Coder, Decoder, Encoder, Ints, bits_of

RAW, CONSTANT, CODED = 0, 1, 2
FIRST, LONGEST = 128, 2**16  # bytes coded at once: at first, and at most
Words = NDArray[np.unsignedinteger[Any]]


def encoded(words: Words, *, floats: bool) -> bytes:
    """Return unsigned numbers [n] as bytes; `floats` says that they are the bits of floats."""
    size = words.dtype.itemsize
    turned = _turned(words, 1) if floats else words
    octets = turned.astype(words.dtype.newbyteorder(">")).view(np.uint8).reshape(-1, size)
    return b"".join(_plane(np.ascontiguousarray(octets[:, place])) for place in range(size))


def decoded(data: bytes | memoryview, dtype: np.dtype[Any], count: int, *, floats: bool) -> Words:
    """Return `count` unsigned numbers of a dtype. Raises ModelError where the bytes do not hold them."""
    source = Reader(bytes(data))
    octets = np.empty((count, dtype.itemsize), np.uint8)
    for place in range(dtype.itemsize):
        octets[:, place] = _read_plane(source, count)
    words = octets.reshape(-1).view(dtype.newbyteorder(">")).astype(dtype)
    return _turned(words, 8 * dtype.itemsize - 1) if floats else words


def _turned(words: Words, by: int) -> Words:
    bits = 8 * words.dtype.itemsize
    return (words << words.dtype.type(by)) | (words >> words.dtype.type(bits - by))


def _plane(octets: NDArray[np.uint8]) -> bytes:
    counts = np.bincount(octets, minlength=256)
    present = np.flatnonzero(counts)
    if len(present) == 1:
        return bytes([CONSTANT, int(present[0])])
    if len(present) > 1 and bits_of(counts) < 8 * len(octets):
        low, high = int(present[0]), int(present[-1])
        coder = Encoder()
        _walked(coder, high - low + 1, len(octets), octets.astype(np.int32) - low)
        stream = coder.finished()
        head = bytes([CODED, low, high]) + varint(len(stream))
        if len(head) + len(stream) < len(octets):
            return head + stream
    return bytes([RAW]) + octets.tobytes()


def _read_plane(source: Reader, count: int) -> NDArray[np.uint8]:
    match source.byte():
        case 0:
            return np.frombuffer(source.take(count), np.uint8)
        case 1:
            return np.full(count, source.byte(), np.uint8)
        case 2:
            low, high = source.byte(), source.byte()
            if low >= high:
                raise ModelError(f"bytes from {low} to {high} are claimed")
            coder = Decoder(source.take(source.varint()))
            return (_walked(coder, high - low + 1, count, None) + low).astype(np.uint8)
    raise ModelError("it does not say how its bytes are stored")


def _walked(coder: Coder, kinds: int, count: int, given: Ints | None) -> Ints:
    """Code symbols in or out, by what those before them were: more at once as more is known."""
    seen = np.ones(kinds, np.int64)
    found = np.zeros(count, np.int32)
    start, length = 0, FIRST
    while start < count:
        part = slice(start, min(start + length, count))
        found[part] = coder.symbols(seen, part.stop - start, None if given is None else given[part])
        seen += 16 * np.bincount(found[part], minlength=kinds)
        start, length = part.stop, min(2 * length, LONGEST)
    return found
