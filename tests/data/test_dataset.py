import pytest
import torch

from slimwright.data import PARTS, ArrayData, split, whole
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
    seen = torch.cat([parts[part][0][:, 0, 0, 0] for part in PARTS])
    assert sorted(seen.tolist()) == list(range(103))
    assert all(torch.equal(images[:, 0, 0, 0].long() % 4, labels) for images, labels in parts.values())


def test_each_class_is_dealt_by_the_shares() -> None:
    parts = split(*numbered(400), seed=1)
    for part in PARTS:
        assert torch.bincount(parts[part][1]).tolist() == [round(100 * SHARES[part])] * 4


def test_the_seed_fixes_the_split() -> None:
    one, same, other = (split(*numbered(80), seed=seed) for seed in (5, 5, 6))
    assert all(torch.equal(one[part][0], same[part][0]) for part in PARTS)
    assert not torch.equal(one["train"][0], other["train"][0])


def test_batches_without_a_seed_are_plain_and_in_order() -> None:
    data = small()
    images = torch.cat([images for images, _ in data.batches("train", 7)])
    assert torch.equal(images, data.parts["train"][0])
    assert data.size("train") == len(images) == 40
    assert data.image_shape == (1, 2, 2)


def test_batches_with_a_seed_are_shuffled_and_augmented() -> None:
    data = ArrayData("numbers", ("a", "b", "c", "d"), small().parts, augment=lambda images, _: images + 1000)
    first, again, other = (torch.cat([i for i, _ in data.batches("train", 7, seed=s)])[:, 0, 0, 0] for s in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert sorted((first - 1000).tolist()) == data.parts["train"][0][:, 0, 0, 0].tolist()
    labels = torch.cat([labels for _, labels in data.batches("train", 7, seed=1)])
    assert torch.equal((first - 1000).long() % 4, labels)
    assert float(whole(data, "train")[0].max()) < 1000  # a plain pass is not augmented


def test_a_whole_part_is_one_batch() -> None:
    images, labels = whole(small(), "test")
    assert torch.equal(images, small().parts["test"][0]) and len(labels) == 16


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
