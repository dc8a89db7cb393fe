import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from slimwright.data import PARTS, cifar10, cifar100, labelled
from slimwright.errors import DataError

NAMES = ("plane", "car", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


def pixels(count: int, seed: int) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (count, 3072), dtype=np.uint8)


def records(labels: NDArray[np.int64], seed: int) -> bytes:
    """Labels [N] or [N, 2] before random pixels."""
    return np.hstack([labels.reshape(len(labels), -1).astype(np.uint8), pixels(len(labels), seed)]).tobytes()


@pytest.fixture
def ten(tmp_path: Path) -> Path:
    """Three training files of 40, 30 and 50 records, and 20 test records."""
    for number, count in enumerate((40, 30, 50), 1):
        (tmp_path / f"data_batch_{number}.bin").write_bytes(records(np.arange(count) % 10, number))
    (tmp_path / "test_batch.bin").write_bytes(records(np.arange(20) % 10, 9))
    (tmp_path / "batches.meta.txt").write_text("\n".join(NAMES) + "\n\n")
    return tmp_path


@pytest.fixture
def hundred(tmp_path: Path) -> Path:
    """Class f belongs to super-class f // 5."""
    for name, count, seed in (("train", 400, 1), ("test", 100, 2)):
        fine = np.arange(count) % 100
        (tmp_path / f"{name}.bin").write_bytes(records(np.stack([fine // 5, fine], 1), seed))
    (tmp_path / "fine_label_names.txt").write_text("\n".join(f"fine{i}" for i in range(100)))
    (tmp_path / "coarse_label_names.txt").write_text("\n".join(f"coarse{i}" for i in range(20)))
    return tmp_path


def test_cifar10_is_read_back_across_its_files(ten: Path) -> None:
    data = cifar10(ten)
    assert data.name == "cifar10" and data.labels == NAMES and data.image_shape == (3, 32, 32)
    assert [data.size(part) for part in PARTS] == [100, 10, 10, 20]
    every = np.concatenate([pixels(40, 1), pixels(30, 2), pixels(50, 3)]).reshape(-1, 3, 32, 32)
    for part in PARTS[:3]:
        share = data.shares[part]
        assert np.array_equal(share.read(share.numbers), every[share.numbers])
    backwards = np.array([119, 0, 69, 70, 39, 40])
    assert np.array_equal(data.shares["train"].read(backwards), every[backwards])
    images, labels = labelled(next(data.batches("test", 20)))
    raw = torch.from_numpy(pixels(20, 9).reshape(-1, 3, 32, 32)).float() / 255
    mean, std = (torch.tensor(data.preprocessing[key]).reshape(3, 1, 1) for key in ("mean", "std"))
    assert torch.allclose(images, (raw - mean) / std, atol=1e-6) and labels.tolist() == [*range(10)] * 2


def test_classes_are_numbered_where_no_file_names_them(ten: Path) -> None:
    (ten / "batches.meta.txt").unlink()
    assert cifar10(ten).labels == tuple("0123456789")


def test_training_batches_are_shuffled_and_moved(ten: Path) -> None:
    data = cifar10(ten)
    images, labels = labelled(next(data.batches("train", 100, seed=4)))
    again, _ = labelled(next(data.batches("train", 100, seed=4)))
    assert images.shape == (100, 3, 32, 32) and torch.equal(images, again)
    assert torch.bincount(labels).tolist() == [10] * 10


def test_cifar100_has_its_fine_classes_in_super_classes(hundred: Path) -> None:
    data = cifar100(hundred)
    assert data.labels[42] == "fine42" and [data.size(part) for part in PARTS] == [200, 100, 100, 100]
    assert data.superclasses["coarse3"] == (15, 16, 17, 18, 19)
    assert sorted(member for members in data.superclasses.values() for member in members) == list(range(100))
    images, labels = labelled(next(data.batches("test", 100)))
    assert labels.tolist() == list(range(100)) and images.shape == (100, 3, 32, 32)
    share = data.shares["test"]
    assert np.array_equal(share.read(share.numbers), pixels(100, 2).reshape(-1, 3, 32, 32))


def test_super_classes_are_numbered_where_no_file_names_them(hundred: Path) -> None:
    (hundred / "coarse_label_names.txt").unlink()
    assert cifar100(hundred).superclasses["3"] == (15, 16, 17, 18, 19)


def test_a_class_in_two_super_classes_is_damage(hundred: Path) -> None:
    path = hundred / "train.bin"
    data = bytearray(path.read_bytes())
    data[0] = 19
    path.write_bytes(data)
    with pytest.raises(DataError, match=r"train\.bin puts class 0 into two super-classes"):
        cifar100(hundred)


@pytest.mark.parametrize(
    ("damage", "why"),
    [
        (lambda data: data[:-1], "no whole number of cifar10 records of 3073"),
        (lambda data: data + b"\0", "no whole number of cifar10 records"),
        (lambda _: b"", "is empty"),
        (lambda data: data[:3073] + b"\x0a" + data[3074:], "record 1 of .* has the label 10, and cifar10 has 0 to 9"),
    ],
)
def test_damaged_records_are_told(damage: object, why: str, ten: Path) -> None:
    assert callable(damage)
    path = ten / "data_batch_2.bin"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(DataError, match=why) as caught:
        cifar10(ten)
    assert "data_batch_2.bin" in str(caught.value)


def test_damaged_labels_of_cifar100_are_told(hundred: Path) -> None:
    path = hundred / "test.bin"
    data = path.read_bytes()
    for place, limit in ((0, 19), (1, 99)):
        path.write_bytes(data[:place] + b"\xc8" + data[place + 1 :])
        with pytest.raises(
            DataError, match=rf"record 0 of .*test\.bin has the label 200, and cifar100 has 0 to {limit}"
        ):
            cifar100(hundred)


def test_missing_files_are_told(ten: Path) -> None:
    (ten / "data_batch_2.bin").rename(ten / "kept")
    with pytest.raises(DataError, match=r"no data_batch_2\.bin"):
        cifar10(ten)
    (ten / "kept").rename(ten / "data_batch_2.bin")
    (ten / "test_batch.bin").unlink()
    with pytest.raises(DataError, match=r"no test_batch\.bin; name the folder that holds"):
        cifar10(ten)
    with pytest.raises(DataError, match=r"no train\.bin; name the folder that holds train\.bin and test\.bin"):
        cifar100(ten)


def test_the_python_version_is_not_opened(tmp_path: Path) -> None:
    (tmp_path / "data_batch_1").write_bytes(pickle.dumps({"data": []}))
    with pytest.raises(DataError, match="Python version of cifar10, whose pickles can run code"):
        cifar10(tmp_path)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (b"one\ntwo\n", "2 names in 2 lines for 10 classes"),
        (b"\n".join([b"a", b"", *[b"c"] * 8]), "9 names in 10 lines for 10 classes"),
        (b"\xff\xfe\x00", "not a text in UTF-8"),
    ],
)
def test_names_that_do_not_fit_are_told(text: bytes, why: str, ten: Path) -> None:
    (ten / "batches.meta.txt").write_bytes(text)
    with pytest.raises(DataError, match=why):
        cifar10(ten)


def test_a_link_out_of_the_folder_is_told(ten: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "batch"
    (ten / "data_batch_1.bin").rename(elsewhere)
    (ten / "data_batch_1.bin").symlink_to(elsewhere)
    with pytest.raises(DataError, match="leads out of"):
        cifar10(ten)
