"""A net as one small file, `.swz`: its graph, and each tensor in its smallest form. docs/swz.md draws the bytes.

Lossless: a net that is read has the digest of the one that was written. Any tensor can be read by itself. A file is
untrusted input: what it claims is checked against its size before memory is taken.
"""

from collections.abc import Container, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from torch import Tensor

from slimwright.atomic import replacing
from slimwright.errors import ModelError
from slimwright.graph.net import Net
from slimwright.graph.store import net_of
from slimwright.reading import plain, reading
from slimwright.storage import header
from slimwright.storage.tensors import like_of, restored, stored
from slimwright.swz.file import WHAT, Entry, data_of, least_bytes, opened, row, started

SUFFIX = ".swz"
PLAIN_BYTES = 4  # of a number
BASED = ("same", "difference")  # forms that are read with a base; a file without them needs none


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
    def is_delta(self) -> bool:
        """True where it holds what differs from a base."""
        return any(one.form in BASED for one in self.tensors)

    @property
    def values(self) -> int:
        """How many numbers it holds."""
        return sum(one.values for one in self.tensors)

    @property
    def times_smaller(self) -> float:
        """How many times smaller it is than the same numbers at four bytes each."""
        return PLAIN_BYTES * self.values / self.size_bytes


def write_packed(net: Net, path: Path, *, base: Net | None = None) -> Packed:
    """Write a net as a packed file, replaced at once, and return what it holds.

    `base` is a net that readers have: tensors of the same name may be stored as what they differ by, where that is
    smaller. A file in which none is needs no base.
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
        if entry.form in BASED:
            _check_base(path, found.base, base)
        return _tensor(path, file, name, entry, base)


def _parts(net: Net, base: Net | None) -> tuple[list[bytes], Packed]:
    """The bytes of a file, and what it holds."""
    known = base.tensors if base else {}
    by_hash = {name: encoding.hashed for name, encoding in net.encodings.items()}
    names = dict.fromkeys(name for node in net.nodes for name in node.tensors.values())
    made = {name: stored(net.tensors[name], known.get(name), by_hash.get(name)) for name in names}
    about = header.header_of(net, base if any(one.form in BASED for one in made.values()) else None)
    start = started(header.encoded(about), [row(like_of(net.tensors[name]), one) for name, one in made.items()])
    parts = [start, *(one.data for one in made.values())]
    values = sum(tensor.numel() for tensor in net.tensors.values())
    size = sum(map(len, parts))
    parts.append(bytes(max(least_bytes(values) - size, 0)))
    tensors = tuple(PackedTensor(k, v.form, net.tensors[k].numel(), len(v.data)) for k, v in made.items())
    return parts, Packed(size + len(parts[-1]), len(start), tensors)


def _opened(path: Path, file: BinaryIO) -> tuple[header.Header, Sequence[Entry]]:
    """The header and the table of an open file."""
    graph, entries = opened(file, path.stat().st_size, path)
    found = header.decoded(graph)
    if len(entries) != len(found.tensors):
        raise ModelError(f"{path} names {len(found.tensors)} tensors, and its table has {len(entries)}")
    return found, entries


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
    data = data_of(file, entry, path, name)
    try:
        return restored(entry.form, data, entry.like, base.tensors.get(name) if base else None)
    except ModelError as error:
        raise ModelError(f"tensor '{name}' of {path} cannot be read: {error}") from error
