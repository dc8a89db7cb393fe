import gzip
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from slimwright.data import PARTS, labelled, mnist
from slimwright.data.files import unzipped
from slimwright.data.idx import MEAN, STD, read_idx
from slimwright.errors import DataError

NAMES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")


def idx(values: NDArray[np.uint8]) -> bytes:
    header = bytes([0, 0, 8, values.ndim]) + struct.pack(f">{values.ndim}I", *values.shape)
    return header + values.tobytes()


def arrays() -> tuple[NDArray[np.uint8], ...]:
    """120 training and 30 test images of 6x5 pixels, images and labels in turn."""
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (count, 6, 5), dtype=np.uint8) for count in (120, 30)]
    return images[0], (np.arange(120) % 10).astype(np.uint8), images[1], (np.arange(30) % 10).astype(np.uint8)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    for name, values in zip(NAMES, arrays(), strict=True):
        (tmp_path / name).write_bytes(idx(values))
    return tmp_path


def zipped(home: Path) -> Path:
    for name in NAMES:
        (home / f"{name}.gz").write_bytes(gzip.compress((home / name).read_bytes()))
        (home / name).unlink()
    return home


def test_every_image_is_read_back(home: Path) -> None:
    data = mnist(home)
    images, labels, tests, test_labels = arrays()
    assert data.image_shape == (1, 6, 5) and data.labels == tuple("0123456789")
    assert [data.size(part) for part in PARTS] == [100, 10, 10, 30]
    found = torch.cat([batch for batch, _ in map(labelled, data.batches("test", 7))])
    assert torch.allclose(found[:, 0], (torch.from_numpy(tests).float() / 255 - MEAN) / STD)
    assert torch.equal(
        torch.cat([of for _, of in map(labelled, data.batches("test", 7))]), torch.from_numpy(test_labels).long()
    )
    share = data.shares["train"]
    assert np.array_equal(np.asarray(share.read(share.numbers))[:, 0], images[share.numbers])
    assert np.array_equal(share.targets, labels[share.numbers])


def test_gzipped_files_hold_the_same(home: Path) -> None:
    plain = [batch for batch, _ in map(labelled, mnist(home).batches("validation", 64))]
    packed = [batch for batch, _ in map(labelled, mnist(zipped(home)).batches("validation", 64))]
    assert all(torch.equal(one, other) for one, other in zip(plain, packed, strict=True))


def test_names_with_a_point_are_found(home: Path) -> None:
    for name in NAMES:
        (home / name).rename(home / name.replace("-idx", ".idx"))
    assert mnist(home).size("test") == 30


def test_the_preprocessing_can_be_repeated(home: Path) -> None:
    said = mnist(home).preprocessing
    assert said["mean"] == [MEAN] and said["std"] == [STD] and said["size"] == [6, 5] and said["scale"] == 255


def test_a_missing_folder_and_a_missing_file_are_told(home: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere does not exist; name the folder that holds train-images"):
        mnist(home / "nowhere")
    (home / NAMES[3]).unlink()
    with pytest.raises(DataError, match=rf"no {NAMES[3]}, nor {NAMES[3]}\.gz"):
        mnist(home)


@pytest.mark.parametrize(
    ("damage", "why"),
    [
        (lambda data: data[:-1], "cut short"),
        (lambda data: data + b"\0", "too long"),
        (lambda data: data[:3], "does not begin like an IDX file"),
        (lambda data: b"\0\0\x0d\x03" + data[4:], "does not begin like an IDX file"),
        (lambda data: b"\0\0\x08\x01" + data[4:], "does not begin like an IDX file"),
        (lambda _: b"\x80\x04pickle", "does not begin like an IDX file"),
        (lambda data: data[:4] + struct.pack(">3I", 0, 6, 5) + data[16:], "no data set"),
        (lambda data: data[:4] + struct.pack(">3I", 1, 60, 60 * 5) + data[16:], "cut short"),
        (lambda data: data[:4] + struct.pack(">3I", 1, 2**31, 5) + data[16:], "no data set"),
        (lambda data: data[:4] + struct.pack(">3I", 2**32 - 1, 1024, 1024) + data[16:], "no data set"),
        (lambda _: b"", "is empty"),
    ],
)
def test_damaged_images_are_told_with_their_file(damage: object, why: str, home: Path) -> None:
    assert callable(damage)
    path = home / NAMES[0]
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(DataError, match=rf"{NAMES[0]}.*{why}"):
        mnist(home)


def test_gzip_that_is_cut_short_damaged_or_no_gzip_is_told(home: Path) -> None:
    path = zipped(home) / f"{NAMES[0]}.gz"
    good = path.read_bytes()
    for bad in (good[: len(good) // 2], good[:40] + bytes(20) + good[60:], b"not gzip at all"):
        path.write_bytes(bad)
        with pytest.raises(DataError, match=r"idx3-ubyte\.gz is damaged or cut short.*get it again"):
            mnist(home)


def test_a_gzip_bomb_is_not_unpacked(home: Path) -> None:
    """A thousand times what the header says: no more than one byte beyond it is read."""
    path = zipped(home) / f"{NAMES[0]}.gz"
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes()) + bytes(4_000_000)))
    with pytest.raises(DataError, match="too long"):
        mnist(home)
    assert len(unzipped(path, 3617)) == 3617


def test_labels_that_do_not_fit_are_told(home: Path) -> None:
    (home / NAMES[1]).write_bytes(idx(np.zeros(119, np.uint8)))
    with pytest.raises(DataError, match=r"120 images and .* 119 labels"):
        mnist(home)
    (home / NAMES[1]).write_bytes(idx(np.full(120, 10, np.uint8)))
    with pytest.raises(DataError, match="label 10; mnist has the labels 0 to 9"):
        mnist(home)


def test_a_digit_without_images_is_told(home: Path) -> None:
    (home / NAMES[1]).write_bytes(idx((np.arange(120) % 9).astype(np.uint8)))
    with pytest.raises(DataError, match="class '9' has 0 training images"):
        mnist(home)


def test_test_images_of_another_size_are_told(home: Path) -> None:
    (home / NAMES[2]).write_bytes(idx(np.zeros((30, 5, 5), np.uint8)))
    with pytest.raises(DataError, match=r"training images of \(6, 5\) pixels and test images of \(5, 5\)"):
        mnist(home)


def test_a_link_out_of_the_folder_is_told(home: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "labels"
    (home / NAMES[1]).rename(elsewhere)
    (home / NAMES[1]).symlink_to(elsewhere)
    with pytest.raises(DataError, match=r"leads out of .*; copy the file"):
        mnist(home)


def test_a_folder_in_the_place_of_a_file_is_told(home: Path) -> None:
    (home / NAMES[1]).unlink()
    (home / NAMES[1]).mkdir()
    with pytest.raises(DataError, match="is not a plain file"):
        mnist(home)


@given(st.binary(max_size=64))
def test_whatever_bytes_a_file_holds_the_error_is_ours(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.mktemp("bytes") / "file"
    path.write_bytes(b"\0\0\x08\x03" + data)
    try:
        assert read_idx(path.parent, path, 3).ndim == 3
    except DataError as error:
        assert str(path) in str(error)
