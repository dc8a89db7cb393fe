import random
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch.export import Dim, export

from example_nets import SHAPE, hand_made
from slimwright.cli.sources import read_original
from slimwright.errors import ModelError
from slimwright.importers.archives import opened
from slimwright.importers.checkpoint import read_checkpoint

CENTRAL, END, LOCATOR, END64 = b"PK\x01\x02", b"PK\x05\x06", b"PK\x06\x07", b"PK\x06\x06"
CHANGES = 150


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A model in a zip archive."""
    path = tmp_path_factory.mktemp("archive") / "model.pt2"
    program = export(hand_made("Flat"), (torch.zeros(2, *SHAPE),), dynamic_shapes=({0: Dim.AUTO},), strict=False)
    torch.export.save(program, path)
    return path.read_bytes()


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A file of torch.save."""
    path = tmp_path_factory.mktemp("weights") / "weights.pth"
    torch.save({"w": torch.randn(3, 4)}, path)
    return path.read_bytes()


def put(data: bytes, at: int, new: bytes) -> bytes:
    return data[:at] + new + data[at + len(new) :]


def of_several_disks(data: bytes) -> bytes:
    """With the record that says on which of two disks the directory lies."""
    end = data.rindex(END)
    record = struct.pack("<4sQ2H2L4Q", END64, 44, 45, 45, 0, 1, 1, 1, 100, 0)
    return data[:end] + record + struct.pack("<4sLQL", LOCATOR, 1, end, 2) + data[end:]


def every_entry(place: int, new: bytes) -> Callable[[bytes], bytes]:
    """With other bytes at a place of each entry of the directory."""

    def changed(data: bytes) -> bytes:
        at = data.find(CENTRAL)
        while at >= 0:
            data, at = put(data, at + place, new), data.find(CENTRAL, at + 4)
        return data

    return changed


DAMAGED: dict[str, Callable[[bytes], bytes]] = {
    "a directory of other entries": every_entry(0, b"PK\x07\x08"),
    "several disks": of_several_disks,
    "names that are not UTF-8": lambda data: every_entry(46, b"\xff\xfe")(every_entry(8, b"\x00\x08")(data)),
    "a later version": every_entry(6, b"\xff\xff"),
    "entries that lie over each other": every_entry(20, struct.pack("<LL", 2**31 - 1, 2**31 - 1)),
    "entries that are encrypted": every_entry(8, b"\x01\x00"),
    "a compression that nobody knows": every_entry(10, b"\x63\x00"),
    "entries that lie elsewhere": every_entry(42, b"\x07\x00\x00\x00"),
}


@pytest.mark.parametrize("damage", DAMAGED)
def test_a_damaged_archive_is_refused(damage: str, archive: bytes, weights: bytes, tmp_path: Path) -> None:
    model, saved = tmp_path / "model.pt2", tmp_path / "weights.pth"
    model.write_bytes(DAMAGED[damage](archive))
    saved.write_bytes(DAMAGED[damage](weights))
    with pytest.raises(ModelError, match=r"model\.pt2"):
        read_original(model)
    with pytest.raises(ModelError, match=r"weights\.pth"):
        read_checkpoint(saved)


def test_an_archive_with_a_few_other_bytes_is_read_or_refused(archive: bytes, weights: bytes, tmp_path: Path) -> None:
    numbers = random.Random(0)
    for name, data, read in (("m.pt2", archive, read_original), ("w.pth", weights, read_checkpoint)):
        directory = data.index(CENTRAL)
        for _ in range(CHANGES):
            spoilt = bytearray(data)
            for _ in range(numbers.choice((1, 2, 5))):
                start = numbers.choice((0, directory))  # of the whole file, or of what zipfile reads first
                spoilt[numbers.randrange(start, len(data))] = numbers.randrange(256)
            (tmp_path / name).write_bytes(spoilt)
            try:
                read(tmp_path / name)
            except ModelError:
                continue


def test_entries_that_are_more_than_the_file_are_refused_before_they_are_read(tmp_path: Path) -> None:
    path = tmp_path / "many.zip"
    with zipfile.ZipFile(path, "w") as made:
        made.writestr("held", bytes(1000))
        held = made.filelist[0]
        made.filelist += [held] * 50  # the same bytes under fifty entries
    with pytest.raises(ModelError, match="more than it has"), opened(path, "a model"):
        pass


def test_a_whole_archive_is_opened(tmp_path: Path) -> None:
    path = tmp_path / "whole.zip"
    with zipfile.ZipFile(path, "w") as made:
        made.writestr("held", "something")
    with opened(path, "a model") as archive:
        assert archive.read("held") == b"something"
