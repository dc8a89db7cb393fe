import io

import numpy as np
import pytest
import torch
from PIL import Image

from slimwright.codec.split.uploads import (
    BEST,
    KINDS,
    lowest_quality,
    normalization_of,
    pictures_of,
    raw_bytes,
    scan_of,
    uploaded,
)
from slimwright.data import glyphs
from slimwright.data.glyphs import parsed
from slimwright.errors import CodecError

SAID = {"mean": [0.5], "std": [0.25], "scale": 255.0}


@pytest.fixture(scope="module")
def pictures() -> list[np.ndarray]:
    data = glyphs(parsed("train=20,calibration=20,validation=20,test=20"), 0)
    inputs, _ = next(data.batches("test", 20))
    numbers = normalization_of(data.preprocessing, data.image_shape)
    assert numbers is not None
    found = pictures_of(inputs, numbers)
    assert torch.allclose(numbers.of(torch.from_numpy(np.stack(found)).float()), inputs, atol=1e-5)  # type: ignore[arg-type]
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_a_better_quality_takes_more_bytes_and_is_nearer(kind: str, pictures: list[np.ndarray]) -> None:
    numbers = normalization_of(SAID, (3, 32, 32))
    assert numbers is not None
    given = numbers.of(torch.from_numpy(np.stack(pictures)).float())
    poor, good = (uploaded(kind, quality, pictures, numbers) for quality in (20, 90))
    assert poor.bytes < good.bytes <= good.most_bytes < raw_bytes((3, 32, 32))
    assert float((good.pictures - given).abs().mean()) < float((poor.pictures - given).abs().mean())
    assert good.own_bytes < good.file_bytes


def test_what_counts_of_a_jpeg_is_its_scan(pictures: list[np.ndarray]) -> None:
    file = io.BytesIO()
    Image.fromarray(pictures[0].transpose(1, 2, 0)).save(file, "JPEG", quality=50)
    data = file.getvalue()
    assert (
        scan_of(data) == len(data[data.rfind(b"\xff\xda") :]) - 2 - 12 - 2
    )  # the marker, three channels' header, the end
    with pytest.raises(CodecError, match="no JPEG"):
        scan_of(b"nothing")


def test_grey_pictures_have_one_channel() -> None:
    numbers = normalization_of(SAID, (1, 16, 16))
    assert numbers is not None
    sent = uploaded("JPEG 4:2:0", 80, [np.full((1, 16, 16), 100, np.uint8)], numbers)
    assert sent.pictures.shape == (1, 1, 16, 16)


def test_the_lowest_quality_that_is_good_enough_is_found() -> None:
    assert lowest_quality(lambda quality: quality >= 37) == 37
    assert lowest_quality(lambda _: False) == BEST


@pytest.mark.parametrize(("said", "shape"), [({}, (3, 8, 8)), (SAID, (2, 8, 8))])
def test_what_is_no_picture_has_no_levels(said: dict[str, object], shape: tuple[int, ...]) -> None:
    assert normalization_of(said, shape) is None
