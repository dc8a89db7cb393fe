from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from slimwright.data.glyphs.atlas import atlas
from slimwright.data.glyphs.counter_rng import keys
from slimwright.data.glyphs.distortions import EASY, HARD, Distortions, distortions
from slimwright.data.glyphs.scene import CHUNK, pictures
from slimwright.data.glyphs.strokes import chosen

MAPS = atlas(chosen(10))
STILL = Distortions(0, 0, 0, 0, 0.8, 0, 0.5, 0.9, 0, 0, 0, 0, 0)  # nothing in the way


def drawn(difficulty: Distortions, *, size: int = 32, count: int = 100) -> NDArray[np.float64]:
    numbers = np.arange(count)
    return pictures(MAPS, numbers % 10, keys(0, 0, numbers), size, difficulty) / 255


def roughness(images: NDArray[np.float64]) -> float:
    """Mean absolute difference of neighbouring pixels within the outermost columns, where no character should be."""
    edge = images[..., [0, -1]]
    return float(np.abs(np.diff(edge, axis=2)).mean())


def test_the_extent_of_distortions_runs_from_easy_to_hard() -> None:
    assert distortions(0) == EASY and distortions(1) == HARD
    middle = distortions(0.5)
    assert middle.turn == (EASY.turn + HARD.turn) / 2 and middle.contrast == (EASY.contrast + HARD.contrast) / 2


@pytest.mark.parametrize("size", [16, 32, 64, 65])
def test_pictures_are_bytes_of_the_size(size: int) -> None:
    found = pictures(MAPS, np.arange(5), keys(0, 0, np.arange(5)), size, HARD)
    assert found.dtype == np.uint8 and found.shape == (5, 3, size, size)


def test_no_pictures_are_no_pictures() -> None:
    none = np.zeros(0, np.int64)
    assert pictures(MAPS, none, keys(0, 0, none), 32, HARD).shape == (0, 3, 32, 32)


@pytest.mark.parametrize("size", [32, 33])
def test_a_picture_is_the_same_in_whatever_batch_it_is_drawn(size: int) -> None:
    together = drawn(HARD, size=size, count=2 * CHUNK + 7)
    for number in (0, 1, CHUNK - 1, CHUNK, 2 * CHUNK + 6):
        alone = pictures(MAPS, np.array([number % 10]), keys(0, 0, np.array([number])), size, HARD)
        assert np.array_equal(alone[0] / 255, together[number])


def test_without_distortions_a_picture_has_two_colours_and_edges_between_them() -> None:
    for image in drawn(STILL, count=50):
        grey = image.mean(0)
        dark, light = grey.min(), grey.max()
        assert light - dark > 0.5  # the contrast, less what is clipped
        at_one_of_them = (grey - dark < 0.02) | (light - grey < 0.02)
        assert at_one_of_them.mean() > 0.5


def test_the_same_picture_at_twice_the_size_shows_the_same() -> None:
    small, large = drawn(distortions(0.3), count=30), drawn(distortions(0.3), size=64, count=30)
    halved = large.reshape(30, 3, 32, 2, 32, 2).mean((3, 5))
    alike = [np.corrcoef(one.flatten(), other.flatten())[0, 1] for one, other in zip(small, halved, strict=True)]
    assert min(alike) > 0.9


def test_every_disturbance_changes_the_picture() -> None:
    plain = drawn(STILL, count=20)
    for name in ("turn", "slant", "tilt", "shift", "wobble", "texture", "clutter", "shade", "blur", "noise"):
        changed = drawn(replace(STILL, **{name: getattr(HARD, name)}), count=20)
        assert np.abs(changed - plain).mean() > 0.005, name


def test_noise_and_texture_roughen_the_edges() -> None:
    assert roughness(drawn(STILL)) < 0.02 < 0.05 < roughness(drawn(replace(STILL, noise=0.2, texture=0.4)))
