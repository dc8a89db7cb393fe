import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from slimwright.data import Preprocessing, square
from slimwright.errors import DataError

SIDES = st.integers(8, 90)


def noise(width: int, height: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8))


@given(SIDES, SIDES, st.integers(8, 40), st.sampled_from([1.0, 0.95, 0.875]))
def test_a_crop_has_the_pixels_of_a_resize_of_the_shorter_side_and_a_cut(
    width: int, height: int, side: int, share: float
) -> None:
    shorter, longer = int(side / share), int(int(side / share) * max(width, height) / min(width, height))
    size = (shorter, longer) if width <= height else (longer, shorter)
    across = noise(width, height).resize((size[0], height), Image.Resampling.BICUBIC)  # Pillow 13 may go down first
    resized = np.asarray(across.resize(size, Image.Resampling.BICUBIC))
    top, left = (round((have - side) / 2.0) for have in resized.shape[:2])
    how = Preprocessing(side, side, crop_share=share, interpolation="bicubic")
    expected = resized[top : top + side, left : left + side].transpose(2, 0, 1)
    assert np.array_equal(how.levels(noise(width, height)), expected)


@given(SIDES, SIDES, SIDES, SIDES, st.sampled_from(["crop", "stretch", "letterbox"]))
def test_the_result_has_the_size_and_the_placement_says_where_pixels_went(
    width: int, height: int, tall: int, wide: int, fit: str
) -> None:
    how = Preprocessing(tall, wide, fit=fit, fill=7)  # type: ignore[arg-type]
    where, levels = how.placement(width, height), how.levels(Image.new("RGB", (width, height), (200, 200, 200)))
    assert levels.shape == how.shape == (3, tall, wide)
    shown = np.zeros((tall, wide), bool)
    rows, columns = slice(max(where.top, 0), where.top + where.height), slice(max(where.left, 0), None)
    shown[rows, columns.start : where.left + where.width] = True
    assert (levels[:, shown] == 200).all() and (levels[:, ~shown] == 7).all()
    if fit != "letterbox":
        assert shown.all()
    corners = where.moved(np.array([[0.0, 0.0], [width, height]]))
    assert np.allclose(corners, [[where.left, where.top], [where.left + where.width, where.top + where.height]])


def test_channels_are_in_the_order_that_is_asked_for() -> None:
    image = Image.new("RGB", (8, 8), (10, 20, 30))
    assert Preprocessing(8, 8, channels="BGR").levels(image)[:, 0, 0].tolist() == [30, 20, 10]
    grey = Preprocessing(8, 8, channels="grey", mean=(0.5,), std=(0.5,))
    assert grey.shape == (1, 8, 8) and np.array_equal(grey.levels(image)[0], np.asarray(image.convert("L")))


def test_a_picture_is_turned_as_its_metadata_says_only_where_that_is_asked_for() -> None:
    image, exif = noise(16, 16), Image.Exif()
    exif[0x0112] = 6  # the camera was turned by a quarter
    image.info["exif"] = exif.tobytes()
    stored, turned = square(16).levels(image), Preprocessing(16, 16, upright=True).levels(image)
    assert np.array_equal(turned, np.rot90(stored, -1, (1, 2)))


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"height": 4}, "8 to 4096 pixels a side"),
        ({"crop_share": 0.0}, "between 0.1 and 1"),
        ({"interpolation": "cubic"}, "there is no interpolation 'cubic'; there are nearest"),
        ({"mean": (0.5, 0.5)}, "mean needs one number, or 3"),
        ({"std": (0.5, 0.0, 0.5)}, "no number of std may be 0"),
    ],
)
def test_what_makes_no_sense_is_refused(wrong: dict[str, object], said: str) -> None:
    with pytest.raises(DataError, match=said):
        Preprocessing(**{"height": 16, "width": 16, **wrong})  # type: ignore[arg-type]
