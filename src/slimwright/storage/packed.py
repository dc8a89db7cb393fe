"""A net as one small file, `.swz`: its graph, and each tensor in its smallest form. docs/swz.md draws the bytes.

Lossless: a net that is read has the digest of the one that was written. Any tensor can be read by itself. A file is
untrusted input: what it claims is checked against its size before memory is taken.
"""

import struct
import zlib
from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import BinaryIO

import torch
from torch import Tensor

from slimwright.atomic import replacing
from slimwright.errors import ModelError
from slimwright.graph.allowed import DTYPES
from slimwright.graph.net import Net
from slimwright.graph.store import net_of
from slimwright.reading import plain, reading
from slimwright.storage import header
from slimwright.storage.bytes_of import Reader, varint, varints
from slimwright.storage.forms import FORMS, Stored, restored, stored

SUFFIX = ".swz"
MAGIC, VERSION = b"SWZ", 1
START = struct.Struct("<3sBIII")  # magic, version, bytes of the graph, bytes of the table, their CRC-32
WHAT = "a packed net (.swz)"
FREE_VALUES, VALUES_PER_BYTE = 2**24, 2**12  # a file of n bytes holds at most FREE + n * PER numbers
MOST_RANK = 8
PLAIN_BYTES = 4  # of a number


@dataclass(frozen=True)
class PackedTensor:
    """How one tensor is stored: its form, how many numbers it has, and the bytes that they take."""

    name: str
    form: str
    values: int
    size_bytes: int


@dataclass(frozen=True)
class Packed:
    """A packed file: its bytes in all, those of its header, and its tensors."""

    size_bytes: int
    header_bytes: int
    tensors: tuple[PackedTensor, ...]

    @property
    def values(self) -> int:
        """How many numbers it holds."""
        return sum(one.values for one in self.tensors)

    @property
    def times_smaller(self) -> float:
        """How many times smaller it is than the same numbers at four bytes each."""
        return PLAIN_BYTES * self.values / self.size_bytes


@dataclass(frozen=True)
class Entry:
    """A row of the table: a tensor's form, kind and size, where its bytes are, and their CRC-32."""

    form: str
    like: Tensor  # on the device "meta": a dtype and a shape
    offset: int
    size_bytes: int
    checksum: int


def write_packed(net: Net, path: Path, *, base: Net | None = None) -> Packed:
    """Write a net as a packed file, replaced at once, and return what it holds.

    `base` is a net that readers have: tensors of the same name may be stored as what they differ by.
    """
    parts, found = _parts(net, base)
    with replacing(path) as temporary, temporary.open("wb") as file:
        file.writelines(parts)
    return found


def packed_bytes(net: Net, *, base: Net | None = None) -> int:
    """Return how many bytes `write_packed` would write."""
    return _parts(net, base)[1].size_bytes


def plain_bytes(net: Net) -> int:
    """Return the bytes of all numbers of a net at four bytes each, which packed files are compared with."""
    return PLAIN_BYTES * sum(tensor.numel() for tensor in net.tensors.values())


def tensor_bytes(values: Tensor) -> int:
    """Return the bytes of a tensor [...] in its smallest form, without its row in the table."""
    return len(stored(values).data)


def read_packed(path: Path, *, base: Net | None = None, carried: Container[str] = ()) -> Net:
    """Return the net in a packed file, to the bit; `base` is the net that it was written with.

    `carried` are operators besides those that a file may name, as in `load_net`. Raises ModelError, naming the file
    and the fault.
    """
    with reading(path, WHAT, ModelError), plain(path, WHAT, ModelError).open("rb") as file:
        found, entries = _opened(path, file)
        _check_base(path, found.base, base)
        tensors = {
            name: _tensor(path, file, name, entry, base) for name, entry in zip(found.tensors, entries, strict=True)
        }
        return net_of(found.structure, tensors, carried)


def read_tensor(path: Path, name: str, *, base: Net | None = None) -> Tensor:
    """Return one tensor of a packed file; of the others no byte is read. Raises ModelError, naming file and fault."""
    with reading(path, WHAT, ModelError), plain(path, WHAT, ModelError).open("rb", buffering=0) as file:
        found, entries = _opened(path, file)
        if name not in found.tensors:
            raise ModelError(f"{path} holds no tensor '{name}'; it holds {', '.join(found.tensors[:9]) or 'none'}")
        entry = entries[found.tensors.index(name)]
        if entry.form in ("same", "difference"):
            _check_base(path, found.base, base)
        return _tensor(path, file, name, entry, base)


def _parts(net: Net, base: Net | None) -> tuple[list[bytes], Packed]:
    """The bytes of a file, and what it holds."""
    known = base.tensors if base else {}
    about = header.header_of(net, base)
    made = {name: stored(net.tensors[name], known.get(name)) for name in about.tensors}
    graph = header.encoded(about)
    table = b"".join(_row(net.tensors[name], one) for name, one in made.items())
    start = START.pack(MAGIC, VERSION, len(graph), len(table), zlib.crc32(table, zlib.crc32(graph)))
    parts = [start, graph, table, *(one.data for one in made.values())]
    values = sum(tensor.numel() for tensor in net.tensors.values())
    size = sum(map(len, parts))
    parts.append(bytes(max(-(-(values - FREE_VALUES) // VALUES_PER_BYTE) - size, 0)))
    tensors = tuple(PackedTensor(k, v.form, net.tensors[k].numel(), len(v.data)) for k, v in made.items())
    return parts, Packed(size + len(parts[-1]), len(start + graph + table), tensors)


def _row(values: Tensor, one: Stored) -> bytes:
    kind = DTYPES.index(str(values.dtype).removeprefix("torch."))
    head = bytes([FORMS.index(one.form) << 4 | kind]) + varint(values.ndim) + varints(values.shape)
    return head + varint(len(one.data)) + struct.pack("<I", zlib.crc32(one.data))


def _opened(path: Path, file: BinaryIO) -> tuple[header.Header, Sequence[Entry]]:
    """The header and the table of an open file."""
    size = path.stat().st_size
    start = file.read(START.size)
    if len(start) < START.size or start[:3] != MAGIC:
        raise ModelError(f"{path} is not {WHAT}: it does not begin as one")
    _, version, graph_bytes, table_bytes, checksum = START.unpack(start)
    if version != VERSION:
        raise ModelError(f"{path} is {WHAT} of version {version}; this slimwright reads version {VERSION}")
    if START.size + graph_bytes + table_bytes > size:
        raise ModelError(f"{path} is cut short: its header claims more than its {size:,} bytes")
    said = file.read(graph_bytes + table_bytes)
    if zlib.crc32(said) != checksum:
        raise ModelError(f"{path} was damaged: the checksum of its header is another")
    found = header.decoded(said[:graph_bytes])
    entries = list(_entries(Reader(said[graph_bytes:]), START.size + len(said)))
    if len(entries) != len(found.tensors):
        raise ModelError(f"{path} names {len(found.tensors)} tensors, and its table has {len(entries)}")
    _check_sizes(path, size, entries)
    return found, entries


def _entries(table: Reader, offset: int) -> Iterator[Entry]:
    while table.left:
        kinds = table.byte()
        form, kind = kinds >> 4, kinds & 15
        if form >= len(FORMS) or kind >= len(DTYPES):
            raise ModelError(f"a tensor has the unknown form or dtype {kinds}")
        shape = tuple(table.varint(2**32) for _ in range(table.varint(MOST_RANK)))
        if prod(shape) > 2**40:
            raise ModelError(f"a tensor claims the shape {list(shape)}")
        like = torch.empty(shape, dtype=getattr(torch, DTYPES[kind]), device="meta")
        size = table.varint()
        yield Entry(FORMS[form], like, offset, size, struct.unpack("<I", table.take(4))[0])
        offset += size


def _check_sizes(path: Path, size: int, entries: Sequence[Entry]) -> None:
    """Raise ModelError where tensors lie beyond the file's end, or have more numbers than it can hold."""
    end = max((entry.offset + entry.size_bytes for entry in entries), default=0)
    if end > size:
        raise ModelError(f"{path} is cut short: its tensors end at byte {end:,}, and it has {size:,}")
    values = sum(entry.like.numel() for entry in entries)
    most = FREE_VALUES + size * VALUES_PER_BYTE
    if values > most:
        raise ModelError(f"{path} claims {values:,} numbers in {size:,} bytes; that many hold at most {most:,}")


def _check_base(path: Path, wanted: str, base: Net | None) -> None:
    """Raise ModelError unless the net that a file builds on is there, if it builds on one."""
    if not wanted:
        return
    if base is None:
        raise ModelError(
            f"{path} holds what differs from another net; unpack it with that one: "
            f"slimwright unpack {path} --base MODEL"
        )
    if base.digest != wanted:
        raise ModelError(f"{path} builds on another base: on the net with the digest {wanted[:16]}…")


def _tensor(path: Path, file: BinaryIO, name: str, entry: Entry, base: Net | None) -> Tensor:
    file.seek(entry.offset)
    data = file.read(entry.size_bytes)
    if zlib.crc32(data) != entry.checksum:
        raise ModelError(f"{path} was damaged: the checksum of tensor '{name}' is another")
    try:
        return restored(entry.form, data, entry.like, base.tensors.get(name) if base else None)
    except ModelError as error:
        raise ModelError(f"tensor '{name}' of {path} cannot be read: {error}") from error
