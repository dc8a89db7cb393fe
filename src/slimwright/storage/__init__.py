"""The entropy-coded model file."""

from slimwright.storage.packed import (
    SUFFIX,
    Packed,
    PackedTensor,
    packed_bytes,
    plain_bytes,
    read_packed,
    read_tensor,
    tensor_bytes,
    write_packed,
)
from slimwright.swz.grid import multiples

__all__ = [
    "SUFFIX",
    "Packed",
    "PackedTensor",
    "multiples",
    "packed_bytes",
    "plain_bytes",
    "read_packed",
    "read_tensor",
    "tensor_bytes",
    "write_packed",
]
