"""How a tensor is stored: dense float32, half precision, or in 2 to 8 bits with a scale for each output channel.

An encoding belongs to a tensor of a `Net`. Counts, prices and exporters read it; the values in the net stay float32.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Literal, TypeAlias, get_args

Precision: TypeAlias = Literal["fp32", "fp16", "int8"]  # what runtimes call a network
PRECISIONS: tuple[Precision, ...] = get_args(Precision)
SCALE_BYTES = 4  # a float32 for each output channel


@dataclass(frozen=True)
class Encoding:
    """A form in which a tensor is stored, with the bits of an element and what each output channel takes besides."""

    name: str
    bits: int
    channel_bytes: int = 0

    def size_bytes(self, shape: Sequence[int]) -> int:
        """Return the bytes of a tensor [C_out, ...] of this shape, exactly."""
        return (self.bits * prod(shape) + 7) // 8 + self.channel_bytes * (shape[0] if shape else 1)

    @classmethod
    def of_bits(cls, bits: int) -> "Encoding":
        """Return the encoding as whole numbers of 2 to 8 bits."""
        return ENCODINGS[f"int{bits}"]


FLOAT32 = Encoding("float32", 32)
FLOAT16 = Encoding("float16", 16)
INTEGERS = tuple(Encoding(f"int{bits}", bits, SCALE_BYTES) for bits in range(2, 9))
INT8 = INTEGERS[-1]
ENCODINGS: Mapping[str, Encoding] = {encoding.name: encoding for encoding in (FLOAT32, FLOAT16, *INTEGERS)}
ENCODED: Mapping[Precision, str] = {"fp32": "float32", "fp16": "float16", "int8": "int8"}


def precision_of(encodings: Iterable[Encoding]) -> Precision:
    """Return what a runtime calls a network with weights in these encodings: the narrowest names it."""
    bits = min((encoding.bits for encoding in encodings), default=FLOAT32.bits)
    return "int8" if bits <= INT8.bits else "fp16" if bits <= FLOAT16.bits else "fp32"
