"""Numbers as bytes, and bytes read with a check before each: a claim is never larger than what is there."""

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from slimwright.errors import ModelError

MOST_VARINT_BYTES = 9  # 63 bits


def varint(number: int) -> bytes:
    """Return a whole number from 0 in seven bits a byte, the lowest first; a set high bit says that more follow."""
    made = bytearray()
    while number > 0x7F:
        made.append(number & 0x7F | 0x80)
        number >>= 7
    made.append(number)
    return bytes(made)


def varints(numbers: Iterable[int]) -> bytes:
    """Return several whole numbers, one behind the other."""
    return b"".join(map(varint, numbers))


def bit_mask(mask: NDArray[np.bool_]) -> bytes:
    """Return truth values [n], eight a byte, the first in the lowest bit."""
    return np.packbits(mask, bitorder="little").tobytes()


class Reader:
    """Bytes that are taken from the front. Raises ModelError where fewer are left than are asked for."""

    def __init__(self, data: bytes) -> None:
        self.data = memoryview(data)
        self.at = 0

    @property
    def left(self) -> int:
        """How many bytes are left."""
        return len(self.data) - self.at

    def take(self, count: int) -> memoryview:
        """Return the next `count` bytes."""
        if not 0 <= count <= self.left:
            raise ModelError(f"a part of {count:,} bytes is claimed where {self.left:,} are left")
        self.at += count
        return self.data[self.at - count : self.at]

    def rest(self) -> memoryview:
        """Return all bytes that are left."""
        return self.take(self.left)

    def byte(self) -> int:
        """Return the next byte as a number."""
        return self.take(1)[0]

    def varint(self, most: int = 2**62) -> int:
        """Return the next whole number. Raises ModelError where it is larger than `most`."""
        number = 0
        for place in range(MOST_VARINT_BYTES):
            part = self.byte()
            number |= (part & 0x7F) << 7 * place
            if part < 0x80:
                break
        else:
            raise ModelError("a whole number has more than nine bytes")
        if number > most:
            raise ModelError(f"a number is {number:,} where at most {most:,} is possible")
        return number

    def mask(self, count: int) -> NDArray[np.bool_]:
        """Return `count` truth values of `bit_mask`."""
        packed = np.frombuffer(self.take((count + 7) // 8), np.uint8)
        return np.unpackbits(packed, count=count, bitorder="little").astype(bool)
