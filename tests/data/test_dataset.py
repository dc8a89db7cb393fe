import hashlib

import pytest
import torch

from slimwright.data import (
    PARTS,
    ArrayData,
    Targets,
    calibration_inputs,
    fingerprint,
    images_of,
    labelled,
    part_fingerprint,
    split,
    tensors_of,
    unlabelled_inputs,
    whole,
)
from slimwright.data.dataset import SHARES
from slimwright.errors import DataError


def numbered(count: int, classes: int = 4) -> tuple[torch.Tensor, torch.Tensor]:
    """Images that hold their own number."""
    images = torch.arange(count, dtype=torch.float32).reshape(-1, 1, 1, 1).expand(-1, 1, 2, 2).contiguous()
    return images, torch.arange(count) % classes


def small(count: int = 80) -> ArrayData:
    return ArrayData("numbers", ("a", "b", "c", "d"), split(*numbered(count), seed=0))


def test_the_parts_are_disjoint_and_together_everything() -> None:
    parts = split(*numbered(103), seed=3)
    seen = torch.cat([labelled(parts[part])[0][:, 0, 0, 0] for part in PARTS])
    assert sorted(seen.tolist()) == list(range(103))
    assert all(torch.equal(images[:, 0, 0, 0].long() % 4, labels) for images, labels in map(labelled, parts.values()))


def test_each_class_is_dealt_by_the_shares() -> None:
    parts = split(*numbered(400), seed=1)
    for part in PARTS:
        assert torch.bincount(labelled(parts[part])[1]).tolist() == [round(100 * SHARES[part])] * 4


def test_the_seed_fixes_the_split() -> None:
    one, same, other = (split(*numbered(80), seed=seed) for seed in (5, 5, 6))
    assert all(torch.equal(labelled(one[part])[0], labelled(same[part])[0]) for part in PARTS)
    assert not torch.equal(labelled(one["train"])[0], labelled(other["train"])[0])


def test_batches_without_a_seed_are_plain_and_in_order() -> None:
    data = small()
    images = torch.cat([images for images, _ in map(labelled, data.batches("train", 7))])
    assert torch.equal(images, labelled(data.parts["train"])[0])
    assert data.size("train") == len(images) == 40
    assert data.image_shape == (1, 2, 2)


def test_batches_with_a_seed_are_shuffled_and_augmented() -> None:
    data = ArrayData("numbers", ("a", "b", "c", "d"), small().parts, augment=lambda images, _: images + 1000)
    first, again, other = (
        torch.cat([i for i, _ in map(labelled, data.batches("train", 7, seed=s))])[:, 0, 0, 0] for s in (1, 1, 2)
    )
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert sorted((first - 1000).tolist()) == labelled(data.parts["train"])[0][:, 0, 0, 0].tolist()
    labels = torch.cat([labels for _, labels in map(labelled, data.batches("train", 7, seed=1))])
    assert torch.equal((first - 1000).long() % 4, labels)
    assert float(labelled(whole(data, "train"))[0].max()) < 1000  # a plain pass is not augmented


def test_a_whole_part_is_one_batch() -> None:
    images, labels = labelled(whole(small(), "test"))
    assert torch.equal(images, labelled(small().parts["test"])[0]) and len(labels) == 16


def test_images_without_labels_beyond_those_for_calibration_come_from_the_training_part() -> None:
    data = small()
    own, more = labelled(data.parts["calibration"])[0], labelled(data.parts["train"])[0]
    assert torch.equal(images_of(unlabelled_inputs(data, 3)), own[:3])
    assert torch.equal(images_of(unlabelled_inputs(data, len(own) + 5)), torch.cat([own, more[:5]]))
    assert len(images_of(unlabelled_inputs(data, 1000))) == len(own) + len(more)


def test_calibration_images_are_of_their_own_part_alone() -> None:
    data = small()
    own = labelled(data.parts["calibration"])[0]
    assert torch.equal(images_of(calibration_inputs(data)), own)
    assert torch.equal(images_of(calibration_inputs(data, 3)), own[:3])
    assert torch.equal(images_of(calibration_inputs(data, 1000)), own)


def test_a_part_without_images_is_refused() -> None:
    parts = {**small().parts, "calibration": (torch.zeros(0, 1, 2, 2), torch.zeros(0, dtype=torch.int64))}
    with pytest.raises(DataError, match="no calibration images"):
        ArrayData("numbers", ("a",) * 4, parts)


@pytest.mark.parametrize(
    ("images", "labels", "why"),
    [
        (torch.zeros(3, 2, 2), torch.zeros(3, dtype=torch.int64), "must be"),
        (torch.zeros(3, 1, 2, 2), torch.zeros(2, dtype=torch.int64), "must be"),
        (torch.full((3, 1, 2, 2), float("nan")), torch.zeros(3, dtype=torch.int64), "NaN"),
        (torch.zeros(3, 1, 2, 2), torch.tensor([0, 1, 4]), "run from 0 to 4"),
        (torch.zeros(3, 1, 2, 2), torch.tensor([0, 1, -1]), "run from -1"),
    ],
)
def test_images_and_labels_that_do_not_fit_are_refused(images: torch.Tensor, labels: torch.Tensor, why: str) -> None:
    with pytest.raises(DataError, match=why):
        ArrayData("numbers", ("a",) * 4, {**small().parts, "train": (images, labels)})


def paired(count: int = 80) -> ArrayData:
    """Two inputs and two targets, all of which tell the number of the image."""
    images, numbers = numbered(count)[0], torch.arange(count)
    parts = split((images, numbers[:, None].float()), (numbers * 2.0, numbers[:, None, None]), seed=0)
    return ArrayData("pairs", (), parts)


def test_several_inputs_and_targets_go_together() -> None:
    data = paired()
    assert data.image_shape == (1, 2, 2) and [data.size(part) for part in PARTS] == [40, 12, 12, 16]
    for seed in (None, 3):
        seen = []
        for inputs, targets in data.batches("train", 7, seed=seed):
            (images, vector), (doubled, square) = tensors_of(inputs), tensors_of(targets)
            assert torch.equal(images[:, 0, 0, 0], vector[:, 0]) and torch.equal(2 * vector[:, 0], doubled)
            assert torch.equal(square.flatten().float(), vector[:, 0]) and len(vector) <= 7
            seen += vector.flatten().tolist()
        assert len(set(seen)) == 40 and (sorted(seen) == seen) is (seed is None)
    inputs, targets = whole(data, "test")
    assert [len(t) for t in (*tensors_of(inputs), *tensors_of(targets))] == [16] * 4
    assert part_fingerprint(data, "test") == fingerprint((inputs, targets))


def test_the_fingerprint_of_images_and_labels_is_that_of_their_shapes_and_bytes() -> None:
    images, labels = numbered(5)
    hasher = hashlib.sha256(b"(5, 1, 2, 2)" + images.numpy().tobytes() + b"(5,)" + labels.numpy().tobytes())
    assert fingerprint((images, labels)) == hasher.hexdigest()


def test_data_without_labels_has_targets_without_columns() -> None:
    data = ArrayData("plain", (), split(numbered(80)[0], torch.zeros(80, 0), seed=0))
    assert data.labels == () and tensors_of(whole(data, "train")[1])[0].shape == (40, 0)


def replaced(targets: Targets, names: tuple[str, ...] = ("a", "b", "c", "d")) -> ArrayData:
    """Four classes, with other targets for three images of the train part."""
    first = torch.zeros(3, 1, 2, 2)
    return ArrayData("numbers", names, {**small().parts, "train": (first, targets)})


def test_flags_of_each_class_are_labels_too() -> None:
    assert replaced(torch.eye(4)[:3]).size("train") == 3
    assert replaced((torch.zeros(3, 7, 7), torch.zeros(3, 2))).size("train") == 3  # the task's concern
    assert replaced(torch.zeros(3, 7, 7)).size("train") == 3


@pytest.mark.parametrize(
    ("targets", "why"),
    [
        (torch.zeros(3, 3), r"shape \[3, 3\] and run from 0 to 0; for 4 classes .* zeros and ones \[N, 4\]"),
        (torch.full((3, 4), 2), "run from 2 to 2"),
        (torch.full((3, 4), 0.5), "run from 0.5 to 0.5"),
        (torch.zeros(3, 0), r"shape \[3, 0\] and run from nothing to nothing"),
        (torch.zeros(2, 4), "with a target for each"),
        ((torch.zeros(3), torch.zeros(2)), r"for targets of shape \[3\] and \[2\]"),
        (torch.tensor(1), "with a target for each"),
    ],
)
def test_targets_that_do_not_fit_are_refused(targets: Targets, why: str) -> None:
    with pytest.raises(DataError, match=why):
        replaced(targets)


def test_labels_of_classes_without_names_are_refused() -> None:
    with pytest.raises(DataError, match="run from 0 to 3, but it has 0 classes"):
        ArrayData("numbers", (), small().parts)


def test_inputs_that_do_not_fit_are_refused() -> None:
    vectors = split((torch.zeros(80, 2), torch.zeros(80, 3)), torch.zeros(80, 0), seed=0)
    with pytest.raises(DataError, match=r"shape \[40, 2\] and \[40, 3\] for .* \[40, 0\]; they must be \[N, C, H, W\]"):
        ArrayData("vectors", (), vectors)
    with pytest.raises(DataError, match="has several inputs, and `augment` changes images alone"):
        ArrayData("pairs", (), paired().parts, augment=lambda images, _: images)
    parts = dict(small().parts)
    del parts["validation"]
    with pytest.raises(DataError, match="'numbers' has no validation images; every part needs at least one"):
        ArrayData("numbers", ("a", "b", "c", "d"), parts)
