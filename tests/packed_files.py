"""Packed nets whose parts were changed, with checksums that are right again."""

import zlib
from contextlib import suppress
from pathlib import Path

from slimwright.swz.bytes_of import Reader, varints
from slimwright.swz.file import START


def resealed(path: Path) -> None:
    """Make the checksums of a file those of its bytes, as far as its parts can be told; else leave it alone."""
    data = path.read_bytes()
    if len(data) < START.size:
        return
    magic, version, graph_bytes, table_bytes, _ = START.unpack(data[: START.size])
    graph_end = START.size + graph_bytes
    end = graph_end + table_bytes
    if end > len(data):
        return
    graph, table = data[START.size : graph_end], data[graph_end:end]
    with suppress(Exception):
        table = _with_sums(table, data, end)
    start = START.pack(magic, version, len(graph), len(table), zlib.crc32(table, zlib.crc32(graph)))
    path.write_bytes(start + graph + table + data[end:])


def _with_sums(table: bytes, data: bytes, offset: int) -> bytes:
    source, made = Reader(table), b""
    while source.left:
        made += bytes([source.byte()])
        shape = [source.varint() for _ in range(source.varint(8))]
        size = source.varint()
        source.take(4)
        sum_ = zlib.crc32(data[offset : offset + size]).to_bytes(4, "little")
        made += varints((len(shape), *shape, size)) + sum_
        offset += size
    return made
