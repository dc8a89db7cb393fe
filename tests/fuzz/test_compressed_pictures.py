"""Compressed pictures changed at random: a picture, or an error of ours; nothing else is raised, and nothing hangs."""

import random
import time
import zlib

import pytest

from mutating import numbered, with_other_bytes
from slimwright.codec import packets
from slimwright.codec.decoding import decoded
from slimwright.codec.encoding import Aim, Options, encoded
from slimwright.codec.parameters import parameters
from slimwright.codec.picturing import source_of
from slimwright.errors import SlimwrightError
from slimwright.progress import silent
from slimwright.swz.bytes_of import varint
from small_pictures import drawn

SHARED = parameters()
MOST_S = 10.0


@pytest.fixture(scope="module")
def whole() -> bytes:
    return encoded(source_of(drawn(70, 60)), SHARED, Aim(quality=30), Options(64, copies=2), silent).data


def check(data: bytes, number: int) -> None:
    began = time.monotonic()
    try:
        decoded(data, SHARED, silent)
    except SlimwrightError as error:
        assert str(error), f"case {number}"
    assert time.monotonic() - began < MOST_S, f"case {number}"


def test_bytes_that_were_changed_on_their_way(whole: bytes) -> None:
    for number, chance in enumerate(numbered(150)):
        check(with_other_bytes(whole, chance), number)


def test_packets_whose_checksums_are_right(whole: bytes) -> None:
    head, tiles = packets.read(whole)
    for number, chance in enumerate(numbered(80)):
        check(sealed(head, tiles, chance), number)


def sealed(head: packets.Head, tiles: dict[int, bytes], chance: random.Random) -> bytes:
    """A file of changed content whose checksums fit."""
    body = with_other_bytes(head.packed(), chance) if chance.random() < 0.4 else head.packed()
    number = (zlib.crc32(body) & 0xFFFF).to_bytes(2, "little")
    data = packets.packet(packets.HEAD, body)
    for place, tile in tiles.items():
        changed = with_other_bytes(tile, chance) if chance.random() < 0.7 else tile
        data += packets.packet(packets.TILE, number + varint(place) + changed)
    return data
