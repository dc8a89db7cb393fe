"""A compressed picture (.swi) as packets that stand for themselves: found again in any order, and told from damage.

A packet begins with a mark, a kind and its length, and ends with the CRC-32 of all that. What is between two whole
packets is passed over. docs/codec.md draws the bytes. A file is untrusted input: nothing is believed before its
checksum, and the search for packets never looks at a byte more than a few times.
"""

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

from slimwright.codec.colour import MOST, Rotation
from slimwright.codec.wavelet import MULTIPLE
from slimwright.errors import CodecError, ModelError
from slimwright.swz.bytes_of import Reader, varint, varints

MARK, VERSION = b"SWI", 1
HEAD, TILE = 0, 1
CHECKSUM_BYTES = 4
MOST_PACKET = 2**24
LOOKED = 16  # times the file's size, that checksums are computed of at most
MOST_PIXELS, FREE_PIXELS, PIXELS_PER_BYTE = 2**26, 2**21, 2**14
MOST_TILE, MOST_STEP = 1024, 64
WHAT = "a compressed picture (.swi)"


@dataclass(frozen=True)
class Head:
    """What all tiles have in common.

    `step` is an index of the quantizer's step, `shared` the CRC-32 of the shared parameters, and `own` the bytes of
    what this picture's own parameters differ by, if it has any.
    """

    width: int
    height: int
    tile: int
    step: int
    rotation: Rotation
    shared: int
    own: bytes = b""

    @property
    def quality(self) -> int:
        """Eighths of an octave from the coarsest step up."""
        return MOST_STEP - self.step

    @property
    def low_size(self) -> tuple[int, int]:
        """The height and width of the lowest band."""
        return -(-self.height // MULTIPLE), -(-self.width // MULTIPLE)

    def packed(self) -> bytes:
        """Return the head as bytes."""
        sizes = varints((self.width, self.height, self.tile // MULTIPLE, self.step))
        return sizes + struct.pack("<4bI", *self.rotation, self.shared) + self.own

    @property
    def number(self) -> int:
        """What tiles name their head by: 16 bits of its checksum."""
        return zlib.crc32(self.packed()) & 0xFFFF


def packet(kind: int, body: bytes) -> bytes:
    """Return a packet."""
    said = MARK + bytes([VERSION << 4 | kind]) + varint(len(body)) + body
    return said + struct.pack("<I", zlib.crc32(said))


def written(head: Head, tiles: list[bytes], copies: int) -> bytes:
    """Return the file of a head, which is repeated at the end and between where there are more copies, and tiles."""
    number = struct.pack("<H", head.number)
    first = packet(HEAD, head.packed())
    packets = [packet(TILE, number + varint(place) + tile) for place, tile in enumerate(tiles)]
    for copy in range(1, copies):
        packets.insert(len(tiles) * copy // (copies - 1) + copy - 1, first)
    return first + b"".join(packets)


def read(data: bytes) -> tuple[Head, dict[int, bytes]]:
    """Return the head and the tiles by number, of those packets that are whole. Raises CodecError without a head."""
    heads: dict[int, Head] = {}
    found: list[tuple[int, int, bytes]] = []
    for kind, body in _packets(data):
        try:
            if kind == HEAD:
                head = _head(Reader(body), len(data))
                heads.setdefault(head.number, head)
            elif kind == TILE:
                reader = Reader(body)
                number = int.from_bytes(reader.take(2), "little")
                found.append((number, reader.varint(), bytes(reader.rest())))
        except ModelError as error:
            raise CodecError(f"a packet's checksum is right and its content is not: {error}") from error
    if not heads:
        raise CodecError(f"no whole head was found: this is not {WHAT}, or its head was lost; send it again")
    head = max(heads.values(), key=lambda one: sum(number == one.number for number, _, _ in found))
    tiles: dict[int, bytes] = {}
    for number, place, tile in found:
        if number == head.number:
            tiles.setdefault(place, tile)
    return head, tiles


def _packets(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Give the kind and the body of each whole packet."""
    at, left = data.find(MARK), LOOKED * len(data) + 2**16
    while at >= 0:
        end = at + 1
        try:
            reader = Reader(data[at + len(MARK) : at + len(MARK) + 12])
            kinds, size = reader.byte(), reader.varint(MOST_PACKET)
            start = at + len(MARK) + reader.at
            closed = start + size + CHECKSUM_BYTES
            if closed <= len(data) and left > 0:
                left -= closed - at
                if zlib.crc32(data[at : start + size]) == int.from_bytes(data[start + size : closed], "little"):
                    if kinds >> 4 != VERSION:
                        raise CodecError(f"this is version {kinds >> 4}; this slimwright reads version {VERSION}")
                    yield kinds & 15, data[start : start + size]
                    end = closed
        except ModelError:  # no length that a packet can have
            pass
        at = data.find(MARK, end)


def _head(reader: Reader, size: int) -> Head:
    width, height, side, step = (reader.varint(most) for most in (2**16, 2**16, MOST_TILE // MULTIPLE, MOST_STEP))
    *rotation, shared = struct.unpack("<4bI", reader.take(8))
    pixels = width * height
    if not pixels or not side or pixels > MOST_PIXELS or pixels > FREE_PIXELS + PIXELS_PER_BYTE * size:
        raise ModelError(f"it claims {width}x{height} pixels in {size:,} bytes")
    if not any(rotation) or max(map(abs, rotation)) > MOST:
        raise ModelError("its colours are no rotation")
    a, b, c, d = rotation
    return Head(width, height, side * MULTIPLE, step, (a, b, c, d), shared, bytes(reader.rest()))
