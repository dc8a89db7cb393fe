"""A folder is looked through once: what cannot be read costs that file, and what was passed over is counted."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from slimwright.data import PARTS, image_folder, square, whole
from slimwright.errors import DataError
from slimwright.progress import Event


def drawn(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (20, 20, 3), dtype=np.uint8)).save(path)


@pytest.fixture
def pets(tmp_path: Path) -> Path:
    for name in ("cat", "dog"):
        for number in range(10):
            drawn(tmp_path / name / f"{number}.{('png', 'jpg', 'webp', 'gif', 'bmp', 'tif')[number % 6]}", number)
    return tmp_path


def test_every_file_that_is_left_out_is_counted_and_the_rest_is_read(pets: Path) -> None:
    for number in (0, 1, 2):
        path = next((pets / "cat").glob(f"{number}.*"))
        path.write_bytes(path.read_bytes()[:-40])
    drawn(pets / "dog" / "more" / "deep.png", 3)
    (pets / "dog" / "film.mp4").write_bytes(b"")
    (pets / "dog" / "phone.heic").write_bytes(b"")
    (pets / "dog" / ".hidden.png").write_bytes(b"")
    (pets / ".git").mkdir()
    Image.fromarray(np.full((20, 20), 40_000, np.uint16)).save(pets / "dog" / "deep.png")
    events: list[Event] = []
    data = image_folder(pets, square(16), tell=events.append)
    assert events[-1] == Event(
        "look through pictures",
        17,
        17,
        "passed over: 4 cannot be read (cat/0.png, cat/1.jpg, ...); 1 too deep in folders (dog/more/deep.png); "
        "2 of other kinds (dog/film.mp4, dog/phone.heic); 2 hidden (.git, dog/.hidden.png)",
    )
    parts = [set(data.shares[part].numbers.tolist()) for part in PARTS]
    assert set.union(*parts) == set(range(17))
    for part in PARTS:
        assert len(whole(data, part)[1]) == data.size(part)


def test_nothing_is_said_where_nothing_is_left_out(pets: Path) -> None:
    events: list[Event] = []
    image_folder(pets, square(16), tell=events.append)
    assert events == [Event("look through pictures", 20, 20, "")]


def test_a_class_of_which_nothing_can_be_read_is_told(pets: Path) -> None:
    for path in (pets / "dog").iterdir():
        path.write_bytes(b"not a picture")
    with pytest.raises(DataError, match=r"dog holds no picture that can be read: .*0\.png cannot be read"):
        image_folder(pets, square(16))
