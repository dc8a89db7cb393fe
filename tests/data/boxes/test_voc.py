from pathlib import Path

import pytest
from drawn_boxes import COUNT, check_boxes_surround_what_they_name, drawn

from slimwright.cli.sources import load_data
from slimwright.data import PARTS, StreamedData, letterbox, tensors_of, voc, whole
from slimwright.errors import DataError

HOW = letterbox(32, 32)
BOMB = '<!DOCTYPE a [<!ENTITY x "ha"><!ENTITY y "&x;&x;&x;">]><annotation><folder>&y;</folder></annotation>'
FILE = '<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><annotation><folder>&x;</folder></annotation>'


def thing(name: str, box: tuple[int, int, int, int], more: str = "") -> str:
    left, top, right, bottom = box
    corners = f"<xmin>{left + 1}</xmin><ymin>{top + 1}</ymin><xmax>{right}</xmax><ymax>{bottom}</ymax>"
    return f"<object><name>{name}</name>{more}<bndbox>{corners}</bndbox></object>"


def filled(root: Path, *, sized: bool = True) -> None:
    (root / "Annotations").mkdir(parents=True)
    for name, (width, height), kind, box in drawn(root / "JPEGImages"):
        size = f"<size><width>{width}</width><height>{height}</height><depth>3</depth></size>" if sized else ""
        hard = thing("rabbit", (0, 0, 9, 9), "<difficult>1</difficult>")
        text = f"<annotation><filename>{name}</filename>{size}{thing(kind, box)}{hard}</annotation>"
        (root / "Annotations" / name).with_suffix(".xml").write_text(text)


@pytest.mark.parametrize("sized", [True, False])
def test_boxes_follow_their_pictures_and_difficult_ones_are_left_out(sized: bool, tmp_path: Path) -> None:
    filled(tmp_path / "v", sized=sized)
    data = load_data(f"voc:{tmp_path / 'v'}@48x40")
    assert isinstance(data, StreamedData) and data.image_shape == (3, 48, 40)
    check_boxes_surround_what_they_name(data)
    assert sum(data.size(part) for part in PARTS) == COUNT


def test_the_first_pixel_is_one_and_the_last_belongs_to_the_box(tmp_path: Path) -> None:
    filled(tmp_path / "v")
    data = voc(tmp_path / "v", letterbox(64, 64))  # widths of 64, 40 and 30: those of 64 keep their scale
    rows = [tensors_of(whole(data, part)[1])[0] for part in PARTS]
    sides = {tuple(row[0, 1:].tolist()) for part in rows for row in part}
    assert (5.0, 24 + 4.0, 32 + 2.0, 24 + 8 + 2.0) in sides  # picture 2: box 5, 4, 34, 10 behind a frame of 24


def test_lists_of_parts_are_kept(tmp_path: Path) -> None:
    filled(tmp_path)
    lists = tmp_path / "ImageSets" / "Main"
    lists.mkdir(parents=True)
    (lists / "train.txt").write_text("".join(f"p{number:02}\n" for number in range(8)))
    (lists / "val.txt").write_text("p08  1\np09 -1\n")
    data = voc(tmp_path, HOW)
    assert data.size("test") == 2 and sum(data.size(part) for part in PARTS) == 10
    (tmp_path / "JPEGImages" / "p09.png").rename(tmp_path / "JPEGImages" / "my photo 9.png")
    (tmp_path / "Annotations" / "p09.xml").rename(tmp_path / "Annotations" / "my photo 9.xml")
    (lists / "val.txt").write_text("p08\nmy photo 9\n")
    assert voc(tmp_path, HOW).size("test") == 2
    (lists / "val.txt").write_text("p99\n")
    with pytest.raises(DataError, match="lists 'p99', which Annotations does not hold"):
        voc(tmp_path, HOW)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (BOMB, r"p03\.xml is not plain XML"),
        (FILE, r"p03\.xml is not plain XML"),
        ("<annotation>", "is not plain XML"),
        ("", "is not plain XML"),
        ("<annotation><object><name>a</name></object></annotation>", r"object 1 of .*p03\.xml has no bndbox with xmin"),
        (f"<annotation>{thing('', (1, 1, 5, 5))}</annotation>", r"object 1 of .* has no name"),
        (f"<annotation>{thing('a', (1, 1, 5, 5))}</annotation>".replace("<xmin>2", "<xmin>two"), "has no bndbox"),
        (f"<annotation>{thing('a', (1, 1, 5, 5))}</annotation>".replace("<xmin>2", "<xmin>-inf"), "not finite"),
    ],
)
def test_wrong_files_are_named_and_no_entity_is_followed(text: str, why: str, tmp_path: Path) -> None:
    filled(tmp_path)
    (tmp_path / "Annotations" / "p03.xml").write_text(text)
    with pytest.raises(DataError, match=why):
        voc(tmp_path, HOW)


def test_an_annotation_without_a_picture_is_told(tmp_path: Path) -> None:
    filled(tmp_path)
    (tmp_path / "JPEGImages" / "p05.png").unlink()
    with pytest.raises(DataError, match="holds no picture 'p05'"):
        voc(tmp_path, HOW)
