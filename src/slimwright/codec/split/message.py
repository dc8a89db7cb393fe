"""A message from the phone to the server: which split it is of, under which scale, and the coded components.

    byte 0        0x50, and the version in the four lowest bits
    byte 1        the scale
    bytes 2..5    the first of the split's SHA-256: of both nets, their tables and the cut
    bytes 6..9    CRC-32 of all other bytes
    then          the range coder's bytes

A message is untrusted input: its size, its split and its checksum are looked at before anything is decoded, and what is
decoded is as large as the split says, whatever the bytes are. No message is larger than the cap: what does not fit is
coded under a coarser scale, and the coarsest one sends no components at all.
"""

import struct
import zlib
from collections.abc import Sequence

from slimwright.codec.split.features import Tables, Values, packed, scales_of, unpacked
from slimwright.errors import CodecError, ModelError

MARK, VERSION = 0x50, 1
HEADER_BYTES = 10
ID_BYTES = 4
WHAT = "a message of a split"


def message(values: Values, tables: Sequence[Tables], split_id: bytes, most_bytes: int) -> bytes:
    """Return the components of one image, in steps, as a message of at most `most_bytes`.

    Raises CodecError for components that are no numbers, and for a cap below the header.
    """
    check_cap(most_bytes)
    for scale in range(scales_of(tables) + 1):
        body = packed(values, tables, scale)
        if HEADER_BYTES + len(body) <= most_bytes:
            return _sealed(bytes([MARK | VERSION, scale]) + split_id[:ID_BYTES], body)
    raise AssertionError("a message without components fits any cap")


def check_cap(most_bytes: int) -> None:
    """Raise CodecError for a cap that no message can keep."""
    if most_bytes < HEADER_BYTES:
        raise CodecError(
            f"a cap of {most_bytes} bytes is below the header's {HEADER_BYTES}; allow more with --max-bytes"
        )


def received(data: bytes, tables: Sequence[Tables], split_id: bytes, most_bytes: int) -> Values:
    """Return the components that a message holds, in steps. Raises CodecError, saying what is wrong with it."""
    if len(data) > most_bytes:
        raise CodecError(f"{WHAT} has at most {most_bytes} bytes; this has {len(data):,}")
    if len(data) < HEADER_BYTES:
        raise CodecError(
            f"{WHAT} has at least {HEADER_BYTES} bytes; {len(data)} arrived: it was cut short, send it again"
        )
    if data[0] != MARK | VERSION:
        raise CodecError(f"this is not {WHAT} of version {VERSION}: it begins with {data[0]:#04x}")
    head, body = data[: HEADER_BYTES - 4], data[HEADER_BYTES:]
    if _sealed(head, body) != data:
        raise CodecError("the message's checksum is wrong: it was damaged or cut short, send it again")
    if head[2:] != split_id[:ID_BYTES]:
        raise CodecError("the message is of another split: phone and server must have the same bundle")
    if head[1] > scales_of(tables):
        raise CodecError(f"the message has the scale {head[1]}; this split has {scales_of(tables)}")
    try:
        return unpacked(body, tables, head[1])
    except ModelError as error:
        raise CodecError(f"the message's checksum is right and its content is not: {error}") from error


def _sealed(head: bytes, body: bytes) -> bytes:
    return head + struct.pack("<I", zlib.crc32(body, zlib.crc32(head))) + body
