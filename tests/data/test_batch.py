import pytest
import torch
from torch import Tensor

from slimwright.data import (
    Targets,
    count_of,
    images_of,
    is_labels,
    joined,
    labelled,
    labels_of,
    like,
    taken,
    tensors_of,
)
from slimwright.errors import DataError

ONE = torch.arange(6.0).reshape(3, 2)
TWO = (ONE, torch.arange(3))


def test_one_tensor_stays_one_and_several_stay_several() -> None:
    assert tensors_of(ONE) == (ONE,) and tensors_of(TWO) == TWO and count_of(ONE) == count_of(TWO) == 3
    assert isinstance(like(ONE, torch.neg), Tensor) and torch.equal(like(TWO, torch.neg)[0], -ONE)
    chosen = taken(TWO, torch.tensor([2, 0]))
    assert torch.equal(chosen[0], ONE[[2, 0]]) and chosen[1].tolist() == [2, 0]
    assert torch.equal(images_of(taken(ONE, slice(1, 3))), ONE[1:]) and images_of((ONE,)) is ONE


def test_batches_are_joined_one_behind_the_other() -> None:
    parts = [taken(TWO, slice(0, 1)), taken(TWO, slice(1, 3))]
    assert all(torch.equal(one, other) for one, other in zip(joined(parts), TWO, strict=True))
    whole = joined([ONE[:2], ONE[2:]])
    assert isinstance(whole, Tensor) and torch.equal(whole, ONE)
    alone = joined([(ONE,), (ONE,)])
    assert isinstance(alone, tuple) and alone[0].shape == (6, 2)  # a tuple of one stays a tuple
    with pytest.raises(ValueError, match="argument"):
        joined([ONE, TWO])


def test_labels_are_whole_numbers_whatever_their_width() -> None:
    images, labels = labelled((ONE, torch.tensor([1, 0, 2], dtype=torch.uint8)))
    assert images is ONE and labels.dtype == torch.int64 and labels.tolist() == [1, 0, 2]
    assert is_labels(labels) and not is_labels(ONE) and not is_labels(TWO) and not is_labels(ONE[:, 0])


@pytest.mark.parametrize(
    ("targets", "why"),
    [
        (torch.zeros(3, 0), "the images have no labels, and this needs a label for each"),
        (ONE, r"the data set gives torch\.float32 \[N, 2\]"),
        (ONE[:, 0], r"gives torch\.float32 \[N\]"),
        (TWO, r"gives torch\.float32 \[N, 2\] and torch\.int64 \[N\]"),
    ],
)
def test_targets_that_are_no_labels_are_told(targets: Targets, why: str) -> None:
    with pytest.raises(DataError, match=why):
        labels_of(targets)


def test_several_inputs_are_not_images_alone() -> None:
    with pytest.raises(DataError, match="works on images alone, and the data set gives 2 inputs for each image"):
        labelled((TWO, torch.zeros(3, dtype=torch.int64)))
