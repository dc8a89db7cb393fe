import numpy as np
import torch

from slimwright.codec.colour import matrix_of, restored, rotated, rotation_of
from small_pictures import drawn


def test_a_rotation_is_one_exactly() -> None:
    matrix, whole = matrix_of(rotation_of(drawn(40, 50)))
    assert np.array_equal(matrix @ matrix.T, np.eye(3, dtype=np.int64) * whole * whole)


def test_a_picture_comes_back_from_its_channels() -> None:
    picture = drawn(40, 50)
    rotation = rotation_of(picture)
    channels = rotated(picture[None], rotation, 6).double() / 64
    assert torch.allclose(restored(channels, rotation)[0], picture.double(), atol=0.02)


def test_most_energy_lies_in_the_first_channel() -> None:
    picture = drawn(64, 64)
    channels = rotated(picture[None], rotation_of(picture), 6).double()[0]
    energy = channels.diff(dim=2).square().sum((1, 2))
    assert energy[0] > energy[1] > energy[2]


def test_a_grey_picture_has_empty_colours() -> None:
    grey = drawn(64, 64)[:1].repeat(3, 1, 1)
    channels = rotated(grey[None], rotation_of(grey), 0)[0]
    assert int(channels[1:].abs().max()) <= 4 < int(channels[0].max())


def test_a_picture_of_one_colour_has_a_rotation() -> None:
    blank = torch.full((3, 8, 8), 7, dtype=torch.uint8)
    matrix, whole = matrix_of(rotation_of(blank))
    assert np.array_equal(matrix @ matrix.T, np.eye(3, dtype=np.int64) * whole * whole)
