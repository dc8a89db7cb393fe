from dataclasses import replace

import numpy as np
import pytest
import torch

from slimwright.data import PARTS, Batch, fingerprint, labelled, labels_of, part_fingerprint, tensors_of, whole
from slimwright.data.dataset import Part
from slimwright.data.streamed import MOST, Numbers, Share, StreamedData, cropped, dealt
from slimwright.errors import DataError

SHAPE = (1, 2, 2)


def source(count: int, classes: int = 4, *, first: int = 0) -> Share:
    """Images that hold their own number in every pixel."""

    def read(numbers: Numbers) -> np.ndarray:
        return np.broadcast_to(numbers[:, None, None, None], (len(numbers), *SHAPE)).astype(np.uint8)

    numbers = np.arange(first, first + count)
    return Share(read, numbers, torch.from_numpy(numbers % classes))


def data(shares: dict[Part, Share], names: tuple[str, ...] = ("a", "b", "c", "d")) -> StreamedData:
    return StreamedData("numbers", names, SHAPE, shares, (0.0,), (1 / 255,), {"input": "numbers"})


def four(count: int, *, seed: int = 0) -> dict[Part, Share]:
    return dealt(source(count), None, names=("a", "b", "c", "d"), image_shape=SHAPE, seed=seed)


def test_without_a_test_part_a_fifth_of_each_class_becomes_one() -> None:
    shares = four(200)
    assert sorted(np.concatenate([shares[part].numbers for part in PARTS]).tolist()) == list(range(200))
    assert np.bincount(shares["test"].targets).tolist() == [10] * 4
    assert np.bincount(shares["calibration"].targets).tolist() == [4] * 4
    assert np.bincount(shares["validation"].targets).tolist() == [4] * 4
    assert np.bincount(shares["train"].targets).tolist() == [32] * 4


def test_a_given_test_part_stays_what_it_was() -> None:
    given = source(8, first=100)
    shares = dealt(source(80), given, names=("a", "b", "c", "d"), image_shape=SHAPE, seed=0)
    assert shares["test"] is given
    assert sorted(np.concatenate([shares[part].numbers for part in PARTS[:3]]).tolist()) == list(range(80))


def test_the_seed_deals() -> None:
    one, same, other = (four(200, seed=seed)["validation"].numbers for seed in (3, 3, 4))
    assert np.array_equal(one, same) and not np.array_equal(one, other)


def test_held_out_parts_are_no_larger_than_memory_takes() -> None:
    names = ("a", "b", "c", "d")
    shares = dealt(source(100_000), source(4), names=names, image_shape=SHAPE, seed=0)
    assert {part: len(shares[part].targets) for part in PARTS if part in MOST} == MOST
    large = dealt(source(100_000), source(4), names=names, image_shape=(3, 512, 512), seed=0)
    assert len(large["calibration"].targets) == len(large["validation"].targets) == 340  # 85 a class, of 3 MB each


def test_a_class_with_too_few_images_is_named() -> None:
    with pytest.raises(DataError, match=r"class 'd' has 2 training images; it needs at least 3"):
        dealt(source(11), source(4), names=("a", "b", "c", "d"), image_shape=SHAPE, seed=0)


def test_a_class_without_images_is_named() -> None:
    with pytest.raises(DataError, match=r"class 'e' has 0 training images"):
        dealt(source(20), source(4), names=("a", "b", "c", "d", "e"), image_shape=SHAPE, seed=0)


def test_batches_without_a_seed_are_plain_in_order_and_normalized() -> None:
    numbers = data(four(200))
    images = torch.cat([images for images, _ in map(labelled, numbers.batches("train", 7))])
    assert images.dtype == torch.float32 and images.shape == (numbers.size("train"), *SHAPE)
    assert torch.allclose(images[:, 0, 0, 0], torch.from_numpy(numbers.shares["train"].numbers).float())
    labels = torch.cat([labels for _, labels in map(labelled, numbers.batches("train", 5))])
    assert labels.dtype == torch.int64 and torch.equal(images[:, 0, 1, 1].round().long() % 4, labels)


def test_batches_with_a_seed_are_shuffled_and_augmented() -> None:
    shares = four(200)
    moved = StreamedData(
        "numbers", ("a", "b", "c", "d"), SHAPE, shares, (0.0,), (1 / 255,), augment=lambda images, _: images + 1000
    )
    one, same, other = (
        torch.cat([i for i, _ in map(labelled, moved.batches("train", 7, seed=s))])[:, 0, 0, 0] for s in (1, 1, 2)
    )
    assert torch.equal(one, same) and not torch.equal(one, other)
    assert np.array_equal(np.sort((one - 1000).round().numpy()), shares["train"].numbers)
    labels = torch.cat([labels for _, labels in map(labelled, moved.batches("train", 7, seed=1))])
    assert torch.equal((one - 1000).round().long() % 4, labels)


def test_the_preprocessing_says_what_the_normalization_is() -> None:
    assert data(four(200)).preprocessing == {
        "input": "numbers",
        "scale": 255.0,
        "mean": [0.0],
        "std": [1 / 255],
        "layout": "NCHW",
    }


def test_the_fingerprint_of_a_part_is_that_of_the_whole_part() -> None:
    numbers = data(four(200))
    assert part_fingerprint(numbers, "validation") == fingerprint(whole(numbers, "validation"))
    assert part_fingerprint(numbers, "validation") != part_fingerprint(numbers, "calibration")


def test_the_fingerprint_of_several_inputs_and_targets_is_that_of_the_whole_part() -> None:
    shares = {part: doubled(share) for part, share in four(440).items()}
    both = StreamedData("both", ("a", "b", "c", "d"), SHAPE, shares, (0.0,), (1 / 255,))
    inputs, targets = whole(both, "train")
    assert both.size("train") > 256  # more than a batch
    assert part_fingerprint(both, "train") == fingerprint((inputs, targets))
    (images, vector), (labels, flags) = tensors_of(inputs), tensors_of(targets)
    others = ((images, vector), labels), ((images, vector, labels), flags), (images, (vector, labels, flags))
    swapped = ((images, vector), (flags, labels)), ((images, vector + 1), (labels, flags))
    batches: list[Batch] = [(inputs, targets), *others, *swapped]
    assert len({fingerprint(batch) for batch in batches}) == 6


def doubled(share: Share) -> Share:
    """Images and a vector of half the number; labels, and whether they are even."""

    def read(numbers: Numbers) -> tuple[np.ndarray, ...]:
        return np.asarray(share.read(numbers)), (numbers[:, None] / 2).astype(np.float32)

    labels = labels_of(share.targets)
    return Share(read, share.numbers, (labels, labels % 2 == 0))


def test_several_inputs_are_read_and_only_bytes_are_normalized() -> None:
    shares = {part: doubled(share) for part, share in four(200).items()}
    both = StreamedData("both", ("a", "b", "c", "d"), SHAPE, shares, (51.0,), (1 / 255,))
    for inputs, targets in both.batches("train", 9, seed=4):
        (images, vector), (labels, even) = tensors_of(inputs), tensors_of(targets)
        assert torch.allclose(images[:, 0, 0, 0] + 51 * 255, 2 * vector[:, 0], atol=0.01)
        assert torch.equal((2 * vector[:, 0]).long() % 4, labels) and torch.equal(labels % 2 == 0, even)
    moved = replace(both, augment=lambda images, _: images)
    with pytest.raises(DataError, match="works on images alone, and the data set gives 2 inputs"):
        next(moved.batches("train", 9, seed=4))


def test_images_without_labels_are_dealt_as_one_class() -> None:
    share = source(200)
    shares = dealt(replace(share, targets=torch.zeros(200, 0)), None, names=(), image_shape=SHAPE, seed=0)
    assert sorted(np.concatenate([shares[part].numbers for part in PARTS]).tolist()) == list(range(200))
    assert [len(shares[part].numbers) for part in PARTS] == [128, 16, 16, 40]
    unlabelled = data(shares, ())
    assert unlabelled.labels == () and tensors_of(whole(unlabelled, "test")[1])[0].shape == (40, 0)


def test_a_part_without_images_or_with_labels_beyond_the_classes_is_refused() -> None:
    shares = four(200)
    with pytest.raises(DataError, match="no test images"):
        data({**shares, "test": source(0)})
    with pytest.raises(DataError, match="run from 0 to 4, but it has 4 classes"):
        data({**shares, "test": source(5, classes=5)})


def test_a_crop_moves_every_image_whole_and_mirrors_half_of_them() -> None:
    image = torch.arange(1.0, 26).reshape(1, 1, 5, 5).expand(400, 2, 5, 5)
    moved = cropped(image, torch.Generator().manual_seed(0), margin=1, mirror=True)
    padded = torch.nn.functional.pad(image[0, 0], [1] * 4)
    windows = [padded[y : y + 5, x : x + 5] for y in range(3) for x in range(3)]
    expected = windows + [window.flip(1) for window in windows]
    found = [[torch.equal(one[0], window) for window in expected] for one in moved]
    assert all(any(row) for row in found) and torch.equal(moved[:, 0], moved[:, 1])
    counts = torch.tensor(found).sum(0)
    assert int(counts.min()) > 5 and 150 < int(counts[:9].sum()) < 250


def test_a_crop_without_margin_or_mirror_changes_nothing() -> None:
    images = torch.rand(3, 3, 4, 6)
    assert torch.equal(cropped(images, torch.Generator().manual_seed(0), margin=0, mirror=False), images)
