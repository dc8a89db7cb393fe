"""A folder is looked through once: what cannot be read costs that file, and what was passed over is counted."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from slimwright.cli.sources import load_data
from slimwright.data import PARTS, StreamedData, image_folder, square, whole
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


def test_folders_below_those_of_classes_are_told(tmp_path: Path) -> None:
    for number in range(12):
        drawn(tmp_path / ("cat", "dog")[number % 2] / "inner" / f"{number}.png", number)
    events: list[Event] = []
    assert image_folder(tmp_path, square(16), tell=events.append).labels == ()
    said = f"no labels: pictures lie deeper than in the 2 folders of {tmp_path.name} (cat/inner/0.png)"
    assert events[-1] == Event("look through pictures", 12, 12, said)


def masked(home: Path) -> str:
    for number in range(24):
        drawn(home / "images" / f"{number}.png", number)
        Image.fromarray(np.full((20, 20), number % 2, np.uint8)).save(made(home / "masks" / f"{number}.png"))
    return f"masks:{home}@16"


def deep_pairs(home: Path) -> str:
    for number in range(24):
        drawn(home / "input" / f"{number}.png", number)
        Image.fromarray(np.full((20, 20), 40 * number, np.uint16)).save(made(home / "target" / f"{number}.png"))
    return f"pairs:{home}@16"


def listed(home: Path) -> str:
    for number in range(24):
        drawn(home / "images" / f"{number}.png", number)
    made(home / "t.csv").write_text("path,kind\n" + "".join(f"images/{n}.png,{'ab'[n % 2]}\n" for n in range(24)))
    return f"table:{home / 't.csv'}@16"


def annotated(home: Path) -> str:
    for number in range(24):
        drawn(home / "images" / f"{number}.png", number)
        made(home / "labels" / f"{number}.txt").write_text("0 0.5 0.5 0.2 0.2\n")
    return f"yolo:{home}@16"


def made(path: Path) -> Path:
    path.parent.mkdir(exist_ok=True)
    return path


@pytest.mark.parametrize(
    ("kind", "pictures", "partners"),
    [
        (masked, "images", "masks"),
        (deep_pairs, "input", "target"),
        (listed, "images", "images"),
        (annotated, "images", "images"),
    ],
)
def test_a_damaged_file_costs_its_picture_and_no_other(
    kind: Callable[[Path], str], pictures: str, partners: str, tmp_path: Path
) -> None:
    spec, events, cut = kind(tmp_path), list[Event](), tmp_path / partners / "7.png"
    (tmp_path / pictures / "3.png").write_bytes(b"no picture")
    cut.write_bytes(cut.read_bytes()[:-30])
    data = load_data(spec, tell=events.append)
    assert isinstance(data, StreamedData)
    assert sum(len(whole(data, part)[0]) for part in PARTS) == 22
    assert (events[-1].done, events[-1].note.partition(" (")[0]) == (24, "passed over: 2 cannot be read")


def test_nothing_is_left_out_of_sound_pictures_with_partners(tmp_path: Path) -> None:
    events: list[Event] = []
    data = load_data(deep_pairs(tmp_path), tell=events.append)
    assert events == [Event("look through pictures", 24, 24, "")]
    assert sum(data.size(part) for part in PARTS) == 24


def test_a_part_of_which_nothing_can_be_read_is_told(tmp_path: Path) -> None:
    spec = masked(tmp_path)
    for path in (tmp_path / "images").iterdir():
        path.write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"no picture of the \w+ part can be read: .*png cannot be read"):
        load_data(spec)
