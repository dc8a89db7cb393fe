import pytest
import torch

from slimwright.data import (
    PARTS,
    ArrayData,
    Labelled,
    Part,
    count_of,
    digits,
    labelled,
    of_classes,
    split,
    tensors_of,
    whole,
)
from slimwright.errors import DataError


def numbered(count: int = 80) -> ArrayData:
    """Images of one pixel that say their number; four classes in turn."""
    numbers = torch.arange(count)
    return ArrayData("numbers", tuple("abcd"), split(numbers.float().reshape(-1, 1, 1, 1), numbers % 4, seed=0))


def test_only_images_of_the_classes_are_left_with_their_new_numbers() -> None:
    data = numbered()
    some = of_classes(data, [3, 1])
    assert some.labels == ("d", "b") and some.image_shape == data.image_shape and "d, b" in some.name
    for part in PARTS:
        images, labels = labelled(whole(some, part))
        assert len(labels) == some.size(part) > 0
        assert torch.equal(images[:, 0, 0, 0].long() % 4, torch.tensor([3, 1])[labels])


def test_batches_are_full_but_for_the_last() -> None:
    some = of_classes(digits(), [0, 7])
    sizes = [len(labels) for _, labels in map(labelled, some.batches("train", 16, seed=3))]
    assert set(sizes[:-1]) == {16} and 0 < sizes[-1] <= 16 and sum(sizes) == some.size("train")


def test_a_shuffled_pass_shows_every_image_once() -> None:
    some = of_classes(numbered(), [0, 2])
    plain, shuffled = (
        torch.cat([x.flatten() for x, _ in map(labelled, some.batches("train", 4, seed=seed))]) for seed in (None, 5)
    )
    assert sorted(plain.tolist()) == sorted(shuffled.tolist()) and plain.tolist() != shuffled.tolist()


@pytest.mark.parametrize("classes", [[], [4], [-1], [1, 1]])
def test_classes_that_are_not_there_are_told(classes: list[int]) -> None:
    with pytest.raises(DataError, match="no distinct classes of the 4 of 'numbers'"):
        of_classes(numbered(), classes)


def test_inputs_beside_the_images_are_chosen_too() -> None:
    data = numbered()
    parts = {part: ((images, images.flatten(1) * 2), labels) for part, (images, labels) in numbered_parts(data).items()}
    some = of_classes(ArrayData("two", data.labels, parts), [2])
    for inputs, labels in some.batches("train", 3):
        images, doubled = tensors_of(inputs)
        assert torch.equal(images.flatten(1) * 2, doubled) and bool((images.flatten() % 4 == 2).all())
        assert count_of(labels) == len(images) > 0


def numbered_parts(data: ArrayData) -> dict[Part, Labelled]:
    return {part: labelled(data.parts[part]) for part in PARTS}


def test_classes_of_data_with_several_labels_for_an_image_are_told() -> None:
    data = numbered()
    flags = {part: (images, torch.eye(4)[labels]) for part, (images, labels) in numbered_parts(data).items()}
    with pytest.raises(DataError, match=r"for each image \[N\], and the data set gives torch\.float32 \[N, 4\]"):
        of_classes(ArrayData("flags", data.labels, flags), [1])


def test_a_part_without_the_classes_is_told() -> None:
    data = numbered()
    images, labels = labelled(data.parts["test"])
    short = ArrayData("short", data.labels, {**data.parts, "test": (images[labels == 0], labels[labels == 0])})
    with pytest.raises(DataError, match=r"'short' has no test images of the classes \[2\]"):
        of_classes(short, [2])
