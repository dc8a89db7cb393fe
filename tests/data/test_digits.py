import sys

import pytest
import torch

from slimwright.data import PARTS, ArrayData, digits, labelled
from slimwright.data.digits import jittered
from slimwright.errors import MissingExtra


def test_the_digits_are_all_there(digit_data: ArrayData) -> None:
    assert sum(digit_data.size(part) for part in PARTS) == 1797
    assert digit_data.image_shape == (1, 32, 32)
    assert digit_data.labels == tuple("0123456789")
    assert all(torch.bincount(labelled(digit_data.parts[part])[1]).min() > 20 for part in PARTS)


def test_without_the_package_that_holds_them_one_is_told_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(
        MissingExtra, match=r"the digits are a file of sklearn: python -m pip install 'slimwright\[data\]'"
    ):
        digits()


def test_the_pixels_are_normalized(digit_data: ArrayData) -> None:  # MEAN and STD are given to three digits
    pixels = torch.cat([labelled(digit_data.parts[part])[0] for part in PARTS])
    assert abs(float(pixels.mean())) < 0.01 and abs(float(pixels.std()) - 1) < 0.01


def test_the_preprocessing_says_how_a_device_does_the_same(digit_data: ArrayData) -> None:
    assert digit_data.preprocessing["resize"] == [32, 32]
    assert {"scale", "mean", "std", "interpolation", "layout"} <= digit_data.preprocessing.keys()


def test_the_seed_fixes_who_is_where(digit_data: ArrayData) -> None:
    assert torch.equal(labelled(digits(0).parts["test"])[0], labelled(digit_data.parts["test"])[0])
    assert not torch.equal(labelled(digits(1).parts["test"])[0], labelled(digit_data.parts["test"])[0])


def test_jitter_moves_images_a_little_and_is_fixed_by_its_generator(digit_data: ArrayData) -> None:
    images = labelled(digit_data.parts["train"])[0][:64]
    one, same = (jittered(images, torch.Generator().manual_seed(3)) for _ in range(2))
    assert one.shape == images.shape and torch.equal(one, same) and not torch.equal(one, images)
    alike = torch.cosine_similarity(one.flatten(1), images.flatten(1))
    assert 0.5 < float(alike.mean()) < 0.999
