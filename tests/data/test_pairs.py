from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from dense_folders import HIGH, WIDE, pair_home, save, squares
from slimwright.cli.sources import load_data
from slimwright.data import PARTS, Preprocessing, StreamedData, images_of, pair_folder, tensors_of, whole
from slimwright.data.preprocessing import Fit
from slimwright.errors import DataError


def how(height: int, width: int, fit: Fit = "cut") -> Preprocessing:
    return Preprocessing(height, width, fit, mean=(0.0,), std=(1.0,))


def pairs_of(data: StreamedData) -> tuple[torch.Tensor, torch.Tensor]:
    inputs, targets = whole(data, "train")
    return images_of(inputs), tensors_of(targets)[0]


@pytest.mark.parametrize("factor", [1, 2])
def test_targets_are_pictures_from_0_to_1_of_the_size_that_the_factor_says(tmp_path: Path, factor: int) -> None:
    data = pair_folder(pair_home(tmp_path, factor=factor), how(HIGH // factor, WIDE // factor))
    inputs, targets = pairs_of(data)
    assert data.task == "restoration" and sum(data.size(part) for part in PARTS) == 24
    assert targets.shape[1:] == (3, HIGH, WIDE) and targets.dtype == torch.float32 and targets.max() <= 1
    assert (F.avg_pool2d(targets, factor) - inputs).abs().max() < 1.01 / 255  # levels were rounded twice


@pytest.mark.parametrize("fit", ["cut", "crop", "letterbox", "stretch"])
@pytest.mark.parametrize("size", [(9, 13), (16, 8), (24, 30)])
def test_a_target_is_placed_to_the_pixel_as_its_input_is(tmp_path: Path, fit: Fit, size: tuple[int, int]) -> None:
    """The mean of a target's 2x2 pixels is the input's pixel, wherever corners are; resized, none is a pixel off."""
    inputs, targets = pairs_of(pair_folder(pair_home(tmp_path, 12), how(*size, fit)))
    error = (F.avg_pool2d(targets, 2) - inputs).abs()
    off = [F.avg_pool2d(targets.roll(by, axis), 2) - inputs for by in (-1, 1) for axis in (2, 3)]
    assert all(error.mean() < other.abs().mean() for other in off)
    assert fit != "cut" or error.max() < 1.01 / 255


def test_a_pair_is_neither_resized_nor_normalized_by_the_command_line(tmp_path: Path) -> None:
    data = load_data(f"pairs:{pair_home(tmp_path)}@12x16")
    inputs, targets = pairs_of(data)  # type: ignore[arg-type]
    assert inputs.shape[1:] == (3, 12, 16) and targets.shape[1:] == (3, 24, 32)
    assert inputs.min() >= 0 and inputs.max() <= 1 and data.preprocessing["fit"] == "cut"
    assert ((255 * inputs).round() - 255 * inputs).abs().max() < 1e-4


def test_a_grey_target_of_16_bits_is_a_map(tmp_path: Path) -> None:
    for number, square in enumerate(squares(12)):
        save(tmp_path / "input" / f"{number}.jpg", square.picture)
        save(tmp_path / "target" / f"{number}.png", (square.mask.astype(np.uint16) * 20_001))
    _, targets = pairs_of(pair_folder(tmp_path, how(HIGH, WIDE)))
    assert targets.shape[1:] == (1, HIGH, WIDE)
    assert torch.unique(targets).tolist() == pytest.approx([0, 20_001 / 65_535, 40_002 / 65_535])


def test_targets_of_another_size_are_told(tmp_path: Path) -> None:
    home = pair_home(tmp_path)
    save(home / "target" / "0.png", squares(1)[0].picture[:, :7])
    with pytest.raises(DataError, match=r"target/0.png is 7 pixels wide, and its input 20"):
        pair_folder(home, how(16, 20))
    save(home / "target" / "0.png", squares(1)[0].picture)
    save(home / "target" / "1.png", squares(1)[0].picture[1:])
    with pytest.raises(DataError, match=r"target/1.png is 40x31 and its input 20x16; every target must be 2 times"):
        for seed in (0, 1):
            list(pair_folder(home, how(16, 20), seed).batches("train", 50))
