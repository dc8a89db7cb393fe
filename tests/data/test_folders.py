from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from slimwright.data import (
    PARTS,
    StreamedData,
    identities,
    image_folder,
    images_of,
    labelled,
    square,
    tensors_of,
    tiny_imagenet,
    whole,
)
from slimwright.data.preprocessing import MEAN, STD
from slimwright.errors import DataError

GREY = {"cat": 40, "dog": 120, "emu": 200}  # a class is told from the others by how bright it is
IDS = ("n01443537", "n01629819", "n01641577")


def plain(path: Path, level: int, size: tuple[int, int] = (24, 20)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (level, level, level)).save(path)


def fill(home: Path, count: int) -> None:
    for name, level in GREY.items():
        for index in range(count):
            plain(home / name / f"{index}.{('png', 'jpg', 'JPEG')[index % 3]}", level + index % 10)


def levels(images: torch.Tensor) -> torch.Tensor:
    """The grey level 0..255 of each image in the middle."""
    mean, std = (torch.tensor(value).reshape(3, 1, 1) for value in (MEAN, STD))
    return ((images * std + mean) * 255)[:, 1, 4, 4]


def by_level(images: torch.Tensor) -> torch.Tensor:
    return (levels(images) / 80).floor().long()


@pytest.fixture
def flat(tmp_path: Path) -> Path:
    fill(tmp_path / "pets", 20)
    return tmp_path / "pets"


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    (tmp_path / "wnids.txt").write_text("\n".join(IDS) + "\n")
    for place, name in enumerate(IDS):
        for index in range(10):
            plain(tmp_path / "train" / name / "images" / f"{name}_{index}.JPEG", 40 + 80 * place, (64, 64))
    lines = []
    for index in range(6):
        plain(tmp_path / "val" / "images" / f"val_{index}.JPEG", 40 + 80 * (index % 3), (64, 64))
        lines.append(f"val_{index}.JPEG\t{IDS[index % 3]}\t0\t0\t62\t62")
    (tmp_path / "val" / "val_annotations.txt").write_text("\n".join(lines) + "\n")
    (tmp_path / "words.txt").write_text(
        f"n00000001\tentity\n{IDS[0]}\tgoldfish, Carassius auratus\n{IDS[1]}\tcrane\n{IDS[2]}\tcrane, machine\n"
    )
    return tmp_path


def test_a_folder_of_classes_becomes_four_parts(flat: Path) -> None:
    data = image_folder(flat, square(16))
    assert data.name == "pets" and data.labels == ("cat", "dog", "emu") and data.image_shape == (3, 16, 16)
    assert [data.size(part) for part in PARTS] == [36, 42, 6, 12]
    for part in PARTS:
        images, labels = labelled(whole(data, part))
        assert images.shape[1:] == (3, 16, 16) and torch.equal(by_level(images), labels)


def pictures_in(data: StreamedData) -> list[int]:
    """Every picture that is in some part, in order."""
    return sorted(set(np.concatenate([data.shares[part].numbers for part in PARTS]).tolist()))


def test_no_picture_teaches_and_chooses_or_proves(flat: Path) -> None:
    data = image_folder(flat, square(16))
    parts = [set(data.shares[part].numbers.tolist()) for part in PARTS]
    assert not (parts[2] | parts[3]) & (parts[0] | parts[1]) and not parts[2] & parts[3]
    assert set.union(*parts) == set(range(60))


def test_few_pictures_are_taught_and_observed_alike_and_many_are_not(flat: Path) -> None:
    few = image_folder(flat, square(16)).shares
    assert set(few["train"].numbers.tolist()) < set(few["calibration"].numbers.tolist())
    for index in range(20, 270):
        for name, level in GREY.items():
            plain(flat / name / f"{index}.png", level + 4)
    many = image_folder(flat, square(16)).shares
    assert len(many["calibration"].numbers) == 3 * round(0.1 * 0.8 * 270)
    assert not set(many["calibration"].numbers.tolist()) & set(many["train"].numbers.tolist())


def test_six_pictures_without_labels_are_enough(tmp_path: Path) -> None:
    numbered(tmp_path, DIRECT[:6])
    data = image_folder(tmp_path, square(16))
    assert data.labels == () and [data.size(part) for part in PARTS] == [3, 4, 1, 1]


@pytest.mark.parametrize(
    ("train", "name"),
    [("train", "test"), ("train", "val"), ("train", "valid"), ("Training", "Testing"), ("TRAIN", "Validation")],
)
def test_a_given_test_folder_is_the_test_part(train: str, name: str, tmp_path: Path) -> None:
    fill(tmp_path / train, 10)
    fill(tmp_path / name, 4)
    data = image_folder(tmp_path, square(16))
    assert [data.size(part) for part in PARTS] == [24, 27, 3, 12]
    images, labels = labelled(whole(data, "test"))
    assert torch.equal(by_level(images), labels)


def test_two_folders_for_one_part_are_told(tmp_path: Path) -> None:
    fill(tmp_path / "train", 10)
    fill(tmp_path / "val", 4)
    fill(tmp_path / "valid", 4)
    with pytest.raises(DataError, match="holds val and valid, which are the same part"):
        image_folder(tmp_path, square(16))


def test_with_test_and_val_both_are_what_they_say(tmp_path: Path) -> None:
    fill(tmp_path / "train", 10)
    fill(tmp_path / "test", 4)
    fill(tmp_path / "val", 2)
    data = image_folder(tmp_path, square(16))
    assert [data.size(part) for part in PARTS] == [27, 30, 6, 12]
    assert set(np.concatenate([data.shares[part].numbers for part in PARTS[:2]]).tolist()) == set(range(30))
    for part in PARTS:
        images, labels = labelled(whole(data, part))
        assert torch.equal(by_level(images), labels)


def test_pictures_are_decoded_when_a_batch_asks_for_them(flat: Path) -> None:
    data = image_folder(flat, square(16))
    share = data.shares["train"]
    bad = sorted((flat / "cat").iterdir())[int(share.numbers[0])]
    bad.write_bytes(b"no longer a picture")
    with pytest.raises(DataError, match=f"{bad.name} cannot be read"):
        next(data.batches("train", 1))
    assert len(next(data.batches("test", 4))[1]) == 4


def test_what_is_no_picture_and_what_is_hidden_is_passed_over(flat: Path) -> None:
    (flat / "README.txt").write_text("pets")
    (flat / "cat" / "notes.txt").write_text("nice")
    (flat / "cat" / "._0.jpg").write_bytes(b"\0")
    (flat / ".cache").mkdir()
    assert pictures_in(image_folder(flat, square(16))) == list(range(60))


def test_the_preprocessing_can_be_repeated(flat: Path) -> None:
    said = image_folder(flat, square(16)).preprocessing
    assert said["size"] == [16, 16] and said["mean"] == list(MEAN) and said["std"] == list(STD)
    assert {"fit", "interpolation", "scale", "layout"} <= said.keys()


def test_an_empty_class_is_told(flat: Path) -> None:
    (flat / "owl").mkdir()
    with pytest.raises(DataError, match=r"owl holds no \.jpg, .* file; add pictures, or remove the folder"):
        image_folder(flat, square(16))


def test_a_class_with_too_few_pictures_is_told(flat: Path) -> None:
    for index in range(3):
        plain(flat / "owl" / f"{index}.png", 250)
    with pytest.raises(DataError, match=r"class 'owl' has 3 training images; it needs at least 4"):
        image_folder(flat, square(16))


def test_a_folder_that_is_no_data_set_is_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        image_folder(tmp_path / "none", square(16))
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="is not a folder"):
        image_folder(tmp_path / "file", square(16))
    with pytest.raises(DataError, match="holds 0 folders; it needs one for each of at least two classes"):
        image_folder(tmp_path, square(16))


@pytest.mark.parametrize("size", [0, 7, 4097])
def test_sizes_that_make_no_sense_are_told(size: int, flat: Path) -> None:
    with pytest.raises(DataError, match="8 to 4096 pixels a side"):
        image_folder(flat, square(size))


def test_train_and_test_must_hold_the_same_classes(tmp_path: Path) -> None:
    fill(tmp_path / "train", 10)
    fill(tmp_path / "test", 4)
    plain(tmp_path / "test" / "owl" / "0.png", 250)
    with pytest.raises(DataError, match="do not hold the same classes: 'owl' is in one of them only"):
        image_folder(tmp_path, square(16))


def test_a_linked_folder_outside_is_told(flat: Path, tmp_path: Path) -> None:
    plain(tmp_path / "elsewhere" / "0.png", 250)
    (flat / "owl").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(DataError, match=r"owl leads out of .*copy the folder"):
        image_folder(flat, square(16))


def test_linked_pictures_outside_are_told(flat: Path, tmp_path: Path) -> None:
    plain(tmp_path / "elsewhere.png", 40)
    for path in (flat / "cat").iterdir():
        path.unlink()
        path.symlink_to(tmp_path / "elsewhere.png")
    with pytest.raises(DataError, match=r"leads out of .*copy the file"):
        image_folder(flat, square(16))


def numbered(home: Path, names: Sequence[str]) -> None:
    """A picture at each path, each of another brightness."""
    for number, name in enumerate(names):
        plain(home / name, 4 * number)


DIRECT = [f"{number}.png" for number in range(30)]
NESTED = [f"2024/{number % 3}/{number}.png" if number < 15 else f"2025/a/b/{number}.png" for number in range(30)]


@pytest.mark.parametrize(
    "names",
    [
        DIRECT,
        [f"DCIM/{name}" for name in DIRECT],
        NESTED,
        [*DIRECT[:15], *(f"more/{name}" for name in DIRECT[15:])],
    ],
    ids=["directly", "in one folder", "in folders of folders", "directly and in one folder"],
)
def test_pictures_without_folders_of_classes_are_unlabelled(names: list[str], tmp_path: Path) -> None:
    numbered(tmp_path / "photos", names)
    (tmp_path / "photos" / "notes.txt").write_text("nice")
    (tmp_path / "photos" / ".hidden").mkdir()
    plain(tmp_path / "photos" / ".hidden" / "thumb.png", 0)
    data = image_folder(tmp_path / "photos", square(16))
    assert data.labels == () and data.name == "photos" and [data.size(part) for part in PARTS] == [20, 22, 2, 6]
    found = []
    for part in PARTS:
        inputs, targets = whole(data, part)
        assert tensors_of(targets)[0].shape == (data.size(part), 0)
        found += levels(images_of(inputs)).round().int().tolist()
    assert sorted(set(found)) == [4 * number for number in range(30)]


def test_unlabelled_pictures_keep_the_parts_that_are_given(tmp_path: Path) -> None:
    for name, count in (("train", 20), ("test", 5), ("val", 4)):
        numbered(tmp_path / name, DIRECT[:count])
    data = image_folder(tmp_path, square(16))
    assert data.labels == () and [data.size(part) for part in PARTS] == [18, 20, 4, 5]
    inputs, targets = whole(data, "train")
    assert len(images_of(inputs)) == 18 and tensors_of(targets)[0].shape == (18, 0)


def test_pictures_beside_folders_of_classes_are_told(flat: Path) -> None:
    plain(flat / "cover.png", 9)
    with pytest.raises(DataError, match=r"holds 1 pictures \(cover\.png, \.\.\.\) beside 3 folders of classes; move"):
        image_folder(flat, square(16))


def test_too_few_unlabelled_pictures_are_told(tmp_path: Path) -> None:
    numbered(tmp_path, DIRECT[:3])
    with pytest.raises(DataError, match=r"the data set has 3 training images; it needs at least 4, .* Add images$"):
        image_folder(tmp_path, square(16))


def test_linked_folders_of_unlabelled_pictures_are_not_read_twice_nor_followed_out(tmp_path: Path) -> None:
    numbered(tmp_path / "photos" / "all", DIRECT)
    (tmp_path / "photos" / "all" / "again").symlink_to(tmp_path / "photos" / "all")
    assert pictures_in(image_folder(tmp_path / "photos", square(16))) == list(range(30))
    plain(tmp_path / "elsewhere" / "0.png", 250)
    (tmp_path / "photos" / "all" / "out").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(DataError, match=r"out leads out of .*copy the folder"):
        image_folder(tmp_path / "photos", square(16))


def test_tiny_imagenet_is_read_from_its_layout(tiny: Path) -> None:
    data = tiny_imagenet(tiny)
    assert data.name == "tiny-imagenet" and data.image_shape == (3, 64, 64)
    assert data.labels == ("goldfish", f"crane ({IDS[1]})", f"crane ({IDS[2]})")
    assert [data.size(part) for part in PARTS] == [24, 3, 3, 6]
    for part in PARTS:
        images, labels = labelled(whole(data, part))
        assert torch.equal(by_level(images), labels)


def test_tiny_imagenet_without_words_has_ids_as_names(tiny: Path) -> None:
    (tiny / "words.txt").unlink()
    assert tiny_imagenet(tiny).labels == IDS


@pytest.mark.parametrize(
    ("file", "text", "why"),
    [
        ("wnids.txt", "../../etc\nn01443537\n", "names the class '../../etc', which is no WordNet id"),
        ("wnids.txt", "n01443537\nn01443537\n", "names 1 classes in 2 lines"),
        ("wnids.txt", "n01443537\nn09999999\n", r"n09999999/images is missing"),
        ("wnids.txt", "", "names 0 classes"),
        ("val/val_annotations.txt", "../../../etc/passwd\tn01443537\t0\n", "line 1 of .* is no picture"),
        ("val/val_annotations.txt", "val_0.JPEG\tn01443537\nval_1.JPEG\tn09999999\n", "line 2 of .* is no picture"),
        ("val/val_annotations.txt", "val_0.JPEG\n", "line 1 of .* is no picture"),
        ("val/val_annotations.txt", "", "no test images"),
    ],
)
def test_damaged_lists_of_tiny_imagenet_are_told(file: str, text: str, why: str, tiny: Path) -> None:
    (tiny / file).write_text(text)
    with pytest.raises(DataError, match=why):
        tiny_imagenet(tiny)


def test_missing_pieces_of_tiny_imagenet_are_told(tiny: Path) -> None:
    (tiny / "val" / "images" / "val_3.JPEG").unlink()
    with pytest.raises(DataError, match=r"val_3\.JPEG is missing"):
        whole(tiny_imagenet(tiny), "test")
    for path in (tiny / "train" / IDS[0] / "images").iterdir():
        path.unlink()
    with pytest.raises(DataError, match=rf"{IDS[0]}/images holds no \.jpg"):
        tiny_imagenet(tiny)
    (tiny / "wnids.txt").unlink()
    with pytest.raises(DataError, match=r"wnids\.txt is missing"):
        tiny_imagenet(tiny)


def test_a_part_holds_identities_that_no_other_knows(tmp_path: Path) -> None:
    for number in range(13):
        for index in range(1 + number % 3):
            plain(tmp_path / "faces" / f"person{number:02}" / f"{index}.png", 10 * number)
    data = identities(tmp_path / "faces", square(16), seed=1)
    assert data.task == "embedding" and len(data.labels) == 13
    shown = [set(labelled(whole(data, part))[1].tolist()) for part in PARTS]
    assert [len(some) for some in shown] == [6, 2, 2, 3] and set.union(*shown) == set(range(13))
    with pytest.raises(DataError, match="holds 3 identities; each of 4 parts needs at least two"):
        fill(tmp_path / "few", 2)
        identities(tmp_path / "few", square(16))
