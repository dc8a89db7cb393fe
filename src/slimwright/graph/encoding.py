"""How a tensor is stored: dense float32, half precision, in 1 to 8 bits with a scale for each output, or hashed.

An encoding belongs to a tensor of a `Net`. Counts, prices and exporters read it; the values in the net stay float32.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Literal, TypeAlias, get_args

from slimwright.swz.hashed import MOST, Hashed

Precision: TypeAlias = Literal["fp32", "fp16", "int8"]  # what runtimes call a network
PRECISIONS: tuple[Precision, ...] = get_args(Precision)
SCALE_BYTES = 4  # a float32 for each output channel
HASHED = re.compile(r"hashed ([1-9][0-9]{0,9}) (0|[1-9][0-9]{0,9})")  # values, seed
WEIGHT_ONLY = " weight-only"  # behind a name


@dataclass(frozen=True)
class Encoding:
    """A form in which a tensor is stored, with the bits of an element and what each output channel takes besides.

    Who reads a tensor whose encoding is for the `weight_only` computes in float32.
    """

    name: str
    bits: int
    channel_bytes: int = 0
    weight_only: bool = False
    hashed: Hashed | None = None  # a float32 for each of its values is all that is stored

    def size_bytes(self, shape: Sequence[int]) -> int:
        """Return the bytes of a tensor [C_out, ...] of this shape, exactly."""
        if self.hashed is not None:
            return self.bits // 8 * self.hashed.values
        return (self.bits * prod(shape) + 7) // 8 + self.channel_bytes * (shape[0] if shape else 1)

    @classmethod
    def of_bits(cls, bits: int, *, weight_only: bool = False) -> "Encoding":
        """Return the encoding as whole numbers of 2 to 8 bits, or as signs: 1 bit."""
        return cls(f"int{bits}{WEIGHT_ONLY if weight_only else ''}", bits, SCALE_BYTES, weight_only)

    @classmethod
    def of_hash(cls, values: int, seed: int) -> "Encoding":
        """Return the encoding of float32 values of which each place takes the one that its hash says."""
        return cls(f"hashed {values} {seed}", 32, weight_only=True, hashed=Hashed(values, seed))


FLOAT32 = Encoding("float32", 32)
FLOAT16 = Encoding("float16", 16)
INT8 = Encoding.of_bits(8)
INTEGERS = [Encoding.of_bits(bits, weight_only=alone) for alone in (False, True) for bits in range(1, 9)]
ENCODINGS: Mapping[str, Encoding] = {encoding.name: encoding for encoding in (FLOAT32, FLOAT16, *INTEGERS)}
ENCODED: Mapping[Precision, str] = {"fp32": "float32", "fp16": "float16", "int8": "int8"}


def encoding_named(name: str) -> Encoding | None:
    """Return the encoding of this name; None where there is none."""
    numbers = HASHED.fullmatch(name)
    if numbers is None:
        return ENCODINGS.get(name)
    values, seed = map(int, numbers.groups())
    return Encoding.of_hash(values, seed) if 0 < values <= MOST and seed <= MOST else None


def precision_of(encodings: Iterable[Encoding]) -> Precision:
    """Return what a runtime calls a network with weights in these encodings: the narrowest that is computed with."""
    bits = min((encoding.bits for encoding in encodings if not encoding.weight_only), default=FLOAT32.bits)
    return "int8" if bits <= INT8.bits else "fp16" if bits <= FLOAT16.bits else "fp32"
