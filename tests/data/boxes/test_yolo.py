from pathlib import Path

import pytest
from drawn_boxes import COUNT, check_boxes_surround_what_they_name, drawn
from PIL import Image

from slimwright.cli.sources import load_data
from slimwright.data import PARTS, StreamedData, letterbox, whole, yolo
from slimwright.errors import DataError

HOW = letterbox(32, 32)
NUMBERS = {"cat": 0, "dog": 1}


def filled(images: Path, labels: Path, *, outline: bool = False) -> None:
    labels.mkdir(parents=True, exist_ok=True)
    for name, (width, height), kind, (left, top, right, bottom) in drawn(images):
        x1, y1, x2, y2 = left / width, top / height, right / width, bottom / height
        row = [x1, y1, x2, y1, x2, y2, x1, y2] if outline else [(x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1]
        text = f"{NUMBERS[kind]} {' '.join(f'{number:.6f}' for number in row)}\n\n"
        (labels / name).with_suffix(".txt").write_text(text)


@pytest.mark.parametrize("outline", [False, True])
def test_boxes_and_outlines_follow_their_pictures(outline: bool, tmp_path: Path) -> None:
    filled(tmp_path / "images", tmp_path / "labels", outline=outline)
    (tmp_path / "classes.txt").write_text("cat\ndog\n")
    data = load_data(f"yolo:{tmp_path}@40")
    assert isinstance(data, StreamedData) and data.image_shape == (3, 40, 40)
    check_boxes_surround_what_they_name(data)


@pytest.mark.parametrize("layout", ["images/{}", "{}/images"])
@pytest.mark.parametrize("test", ["test", "val", "valid"])
def test_parts_that_are_given_stay_apart(layout: str, test: str, tmp_path: Path) -> None:
    for part in ("train", test):
        images = tmp_path / layout.format(part)
        filled(images, Path(str(images).replace("images", "labels")))
    (tmp_path / "data.yaml").write_text("names: [cat, dog]\n")
    data = yolo(tmp_path, HOW)
    assert data.size("test") == COUNT and sum(data.size(part) for part in PARTS) == 2 * COUNT
    check_boxes_surround_what_they_name(data)


@pytest.mark.parametrize(
    "text",
    [
        "path: x\nnames: ['cat', \"dog\"]  # two\nnc: 2\n",
        "names:\n  - cat\n  - dog\nnc: 2\n",
        "names:\n- cat\n- dog\n",
        "train: x\nnames:\n  # all of them\n  0: cat\n  1: dog\n\ndownload: y\n",
        "names:\n  1: dog\n  0: cat\n",
        "names: {0: cat, 1: dog}\n",
        "names: [cat,\n  dog]\n",
    ],
)
def test_names_are_read_from_yaml_as_people_write_it(text: str, tmp_path: Path) -> None:
    filled(tmp_path / "images", tmp_path / "labels")
    (tmp_path / "data.yaml").write_text(text)
    assert yolo(tmp_path, HOW).labels == ("cat", "dog")


@pytest.mark.parametrize("text", ["nc: 2\n", "names: *other\n", "names:\n  0: cat\n  2: dog\n", "names: []\n"])
def test_names_that_cannot_be_read_are_told_with_the_way_out(text: str, tmp_path: Path) -> None:
    filled(tmp_path / "images", tmp_path / "labels")
    (tmp_path / "data.yaml").write_text(text)
    with pytest.raises(DataError, match=r"data\.yaml .*write classes\.txt"):
        yolo(tmp_path, HOW)


def test_a_name_may_hold_a_comma_where_it_is_quoted(tmp_path: Path) -> None:
    filled(tmp_path / "images", tmp_path / "labels")
    (tmp_path / "data.yaml").write_text("names: ['cat, large', \"dog's\", é]\n")
    assert yolo(tmp_path, HOW).labels == ("cat, large", "dog's", "é")


def test_lists_of_names_have_no_mark_and_no_gaps(tmp_path: Path) -> None:
    filled(tmp_path / "images", tmp_path / "labels")
    (tmp_path / "classes.txt").write_text("\ufeffcat\ndog\n", encoding="utf-8")
    assert yolo(tmp_path, HOW).labels == ("cat", "dog")
    (tmp_path / "classes.txt").write_text("cat\n\ndog\n")
    with pytest.raises(DataError, match=r"line 2 of .*classes\.txt is empty, and names a class"):
        yolo(tmp_path, HOW)


def test_without_names_classes_are_called_by_their_numbers(tmp_path: Path) -> None:
    filled(tmp_path / "images", tmp_path / "labels")
    assert yolo(tmp_path, HOW).labels == ("0", "1")


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("0 0.5 0.5 0.1", r"line 2 of .*p00\.txt is not a class and four numbers"),
        ("0 0.5 0.5 0.1 x", "is not a class and four numbers"),
        ("-1 0.5 0.5 0.1 0.1", "is not a class"),
        ("0.5 0.5 0.5 0.1 0.1", "is not a class"),
        ("nan 0.5 0.5 0.1 0.1", "is not a class"),
        ("99999999999 0.5 0.5 0.1 0.1", "is not a class"),
        ("0 0.5 0.5 nan 0.1", r"numbers beyond 0\.\.1"),
        ("0 20 10 40 20", r"line 2 of .*p00\.txt has numbers beyond 0\.\.1"),
        ("2 0.5 0.5 0.1 0.1", "names 2 classes, and a box is of class 2"),
    ],
)
def test_wrong_lines_are_named(line: str, why: str, tmp_path: Path) -> None:
    filled(tmp_path / "images", tmp_path / "labels")
    (tmp_path / "classes.txt").write_text("cat\ndog\n")
    (tmp_path / "labels" / "p00.txt").write_text(f"0 0.5 0.5 0.2 0.2\n{line}\n")
    with pytest.raises(DataError, match=why):
        yolo(tmp_path, HOW)


def test_a_folder_without_images_is_told_what_should_be_in_it(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no folder images"):
        yolo(tmp_path, HOW)


def test_links_that_lead_out_of_the_folder_are_refused(tmp_path: Path) -> None:
    root = tmp_path / "data"
    filled(root / "images", root / "labels")
    (tmp_path / "secret.txt").write_text("0 0.5 0.5 0.1 0.1\n")
    (root / "labels" / "p01.txt").unlink()
    (root / "labels" / "p01.txt").symlink_to(tmp_path / "secret.txt")
    with pytest.raises(DataError, match="leads out of"):
        yolo(root, HOW)


def test_a_picture_that_was_changed_is_told(tmp_path: Path) -> None:
    filled(tmp_path / "images", tmp_path / "labels")
    data = yolo(tmp_path, HOW)
    for path in (tmp_path / "images").iterdir():
        Image.new("RGB", (9, 9)).save(path)
    with pytest.raises(DataError, match="has 9x9 pixels, and its boxes are for"):
        whole(data, "train")
