"""The bytes of a packed file but for its graph: what stands where, and one tensor's bits. docs/swz.md draws them.

A file is untrusted input: what it claims is checked against its size before memory is taken.
"""

import struct
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import BinaryIO

from slimwright.errors import ModelError
from slimwright.swz.bytes_of import Reader, varint, varints
from slimwright.swz.forms import DTYPES, FORMS, Like, Stored

MAGIC, VERSION = b"SWZ", 1
START = struct.Struct("<3sBIII")  # magic, version, bytes of the graph, bytes of the table, their CRC-32
WHAT = "a packed net (.swz)"
FREE_VALUES, VALUES_PER_BYTE = 2**24, 2**12  # a file of n bytes holds at most FREE + n * PER numbers
MOST_RANK = 8


@dataclass(frozen=True)
class Entry:
    """A row of the table: a tensor's form, dtype and shape, where its bytes are, and their CRC-32."""

    form: str
    like: Like
    offset: int
    size_bytes: int
    checksum: int


def started(graph: bytes, rows: Sequence[bytes]) -> bytes:
    """Return the bytes of a file before its tensors, from those of its graph and of each row."""
    table = b"".join(rows)
    checksum = zlib.crc32(table, zlib.crc32(graph))
    return START.pack(MAGIC, VERSION, len(graph), len(table), checksum) + graph + table


def least_bytes(values: int) -> int:
    """Return how many bytes a file has at least that holds so many numbers."""
    return max(-(-(values - FREE_VALUES) // VALUES_PER_BYTE), 0)


def row(like: Like, one: Stored) -> bytes:
    """Return a tensor's row of the table."""
    kind = list(DTYPES).index(like.dtype)
    head = bytes([FORMS.index(one.form) << 4 | kind]) + varints((len(like.shape), *like.shape))
    return head + varint(len(one.data)) + struct.pack("<I", zlib.crc32(one.data))


def opened(file: BinaryIO, size: int, name: object) -> tuple[bytes, Sequence[Entry]]:
    """Return the bytes of the graph and the table of an open file of `size` bytes. Raises ModelError, naming it."""
    start = file.read(START.size)
    if len(start) < START.size or start[:3] != MAGIC:
        raise ModelError(f"{name} is not {WHAT}: it does not begin as one")
    _, version, graph_bytes, table_bytes, checksum = START.unpack(start)
    if version != VERSION:
        raise ModelError(f"{name} is {WHAT} of version {version}; this slimwright reads version {VERSION}")
    if START.size + graph_bytes + table_bytes > size:
        raise ModelError(f"{name} is cut short: its header claims more than its {size:,} bytes")
    said = file.read(graph_bytes + table_bytes)
    if zlib.crc32(said) != checksum:
        raise ModelError(f"{name} was damaged: the checksum of its header is another")
    entries = list(_entries(Reader(said[graph_bytes:]), START.size + len(said)))
    _check_sizes(name, size, entries)
    return said[:graph_bytes], entries


def data_of(file: BinaryIO, entry: Entry, name: object, tensor: object) -> bytes:
    """Return the bytes of one tensor of an open file. Raises ModelError, naming both, where they are damaged."""
    file.seek(entry.offset)
    data = file.read(entry.size_bytes)
    if zlib.crc32(data) != entry.checksum:
        raise ModelError(f"{name} was damaged: the checksum of tensor '{tensor}' is another")
    return data


def _entries(table: Reader, offset: int) -> Iterator[Entry]:
    names = list(DTYPES)
    while table.left:
        kinds = table.byte()
        form, kind = kinds >> 4, kinds & 15
        if form >= len(FORMS) or kind >= len(names):
            raise ModelError(f"a tensor has the unknown form or dtype {kinds}")
        like = Like(names[kind], tuple(table.varint(2**32) for _ in range(table.varint(MOST_RANK))))
        if like.count > 2**40:
            raise ModelError(f"a tensor claims the shape {list(like.shape)}")
        size = table.varint()
        yield Entry(FORMS[form], like, offset, size, struct.unpack("<I", table.take(4))[0])
        offset += size


def _check_sizes(name: object, size: int, entries: Sequence[Entry]) -> None:
    """Raise ModelError where tensors lie beyond the file's end, or have more numbers than it can hold."""
    end = max((entry.offset + entry.size_bytes for entry in entries), default=0)
    if end > size:
        raise ModelError(f"{name} is cut short: its tensors end at byte {end:,}, and it has {size:,}")
    values = sum(entry.like.count for entry in entries)
    if size < least_bytes(values):
        raise ModelError(
            f"{name} claims {values:,} numbers in {size:,} bytes; they take at least {least_bytes(values):,}"
        )
