"""Messages and manifests of splits changed at random: components, or an error of ours; nothing else, and no delay."""

import json
import shutil
import struct
import time
import zlib
from pathlib import Path

import pytest

from mutating import as_text, numbered, with_changes, with_other_bytes
from slimwright.codec.split.bundle import MANIFEST, Bundle, load_split
from slimwright.codec.split.message import HEADER_BYTES, received
from slimwright.codec.split.sides import PhoneSide, outputs_in
from slimwright.errors import SlimwrightError
from small_digits import few_digits
from small_split import small_split

MOST_S = 5.0


@pytest.fixture(scope="module")
def bundle(run_folder: Path, cache: Path) -> Bundle:
    return load_split(small_split(run_folder, cache))


@pytest.fixture(scope="module")
def message(bundle: Bundle) -> bytes:
    images, _ = few_digits().parts["test"]
    return PhoneSide.of(bundle).message([images[:1].numpy()])  # type: ignore[union-attr]


def check(data: bytes, bundle: Bundle, number: int) -> None:
    began = time.monotonic()
    try:
        found = received(data, bundle.tables, bundle.split_id, 2**20)
        assert [one.shape for one in found] == [(of.components, of.places) for of in bundle.tables]
    except SlimwrightError as error:
        assert str(error), f"case {number}"
    assert time.monotonic() - began < MOST_S, f"case {number}"


def test_messages_that_were_changed_on_their_way(bundle: Bundle, message: bytes) -> None:
    for number, chance in enumerate(numbered(500)):
        check(with_other_bytes(message, chance), bundle, number)


def test_messages_whose_checksums_are_right(bundle: Bundle, message: bytes) -> None:
    for number, chance in enumerate(numbered(300)):
        head, body = bytearray(message[: HEADER_BYTES - 4]), with_other_bytes(message[HEADER_BYTES:], chance)
        head[1] = chance.randrange(256) if chance.random() < 0.5 else head[1]
        if chance.random() < 0.2:
            body = chance.randbytes(chance.randrange(2000))
        seal = struct.pack("<I", zlib.crc32(body, zlib.crc32(bytes(head))))
        check(bytes(head) + seal + body, bundle, number)


def test_answers_that_were_changed_on_their_way(bundle: Bundle) -> None:
    for number, chance in enumerate(numbered(200)):
        try:
            outputs_in(with_other_bytes(b"\x08\0\0\0\0\0\0\0{}      " + bytes(40), chance), bundle)
        except SlimwrightError as error:
            assert str(error), f"case {number}"


def test_manifests_of_anything(bundle: Bundle, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(bundle.path, copy)
    document = json.loads((copy / MANIFEST).read_text())
    for number, chance in enumerate(numbered(200)):
        (copy / MANIFEST).write_bytes(as_text(with_changes(document, chance), chance))
        try:
            load_split(copy)
        except SlimwrightError as error:
            assert str(error), f"case {number}"
