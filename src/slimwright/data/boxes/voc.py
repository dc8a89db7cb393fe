"""Boxes in Pascal VOC's XML: `Annotations/a.xml` for `JPEGImages/a.jpg`. Objects marked as difficult are left out.

Classes are the names that occur, in alphabetical order. The first pixel is 1, and a box holds its last one. Where
`ImageSets/Main` lists them, `train` or `trainval` are the training pictures and `test` or `val` the test part.
Source: Everingham et al. 2012, the VOC2012 development kit, sec. 4.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from slimwright.data import files
from slimwright.data.boxes.annotated import Annotated, boxed, check_count, no_boxes, size_of
from slimwright.data.pictures import SUFFIXES
from slimwright.data.preprocessing import Preprocessing
from slimwright.data.streamed import StreamedData
from slimwright.errors import DataError
from slimwright.reading import data_of, reading

MOST_BYTES = 4 * 2**20  # of one file
CORNERS = ("xmin", "ymin", "xmax", "ymax")
SHOWN = re.compile(r"\s+(-1|0|1)$")  # behind a name, where a list says whether a class is shown
SETS = {"train": ("trainval", "train"), "test": ("test", "val")}

Named = tuple[str, Sequence[float]]  # a class, and corners


def voc(path: Path, how: Preprocessing, seed: int = 0) -> StreamedData:
    """Return the pictures in `path` with their boxes; `seed` deals what is not given.

    Raises DataError, naming the file.
    """
    files.folder(path, "JPEGImages and Annotations")
    files.folder(path / "Annotations", "an .xml file for each picture")
    found = [[(stem, *_read(path, stem)) for stem in stems] for stems in _stems(path)]
    labels = sorted({name for some in found for _, boxes, _ in some for name, _ in boxes})
    number = {name: place for place, name in enumerate(labels)}
    pictures: list[list[Annotated]] = []
    for some in found:
        pictures.append([])
        for stem, boxes, claimed in some:
            at = _picture(path, stem)
            rows = np.array([[number[name], *corners] for name, corners in boxes]) if boxes else no_boxes()
            known = claimed or size_of(path, at, how)
            pictures[-1].append(Annotated(at, known, check_count(f"{path / 'Annotations' / stem}.xml", rows)))
    return boxed(path, labels, pictures, how, seed)


def _stems(path: Path) -> list[list[str]]:
    """The names of the annotations of the training part, and of the test part where both are listed."""
    home, there = path / "ImageSets" / "Main", {one.stem for one in (path / "Annotations").glob("*.xml")}
    listed = {}
    for part, names in SETS.items():
        files_of = [home / f"{name}.txt" for name in names if (home / f"{name}.txt").exists()]
        if files_of:
            lines = [line.strip() for line in files.lines(path, files_of[0])]
            listed[part] = [SHOWN.sub("", line) for line in lines if line]
    if set(listed) != set(SETS):
        return [sorted(there)]
    for stems in listed.values():
        missing = [stem for stem in stems if stem not in there]
        if missing:
            raise DataError(f"{home} lists {missing[0]!r}, which Annotations does not hold; add or remove it")
    return [listed["train"], listed["test"]]


def _read(path: Path, stem: str) -> tuple[list[Named], tuple[int, int] | None]:
    """The boxes in a file, by name, and the picture's size where it says so."""
    from defusedxml.ElementTree import fromstring  # entities are refused

    at = path / "Annotations" / f"{stem}.xml"
    real = files.held(path, at)
    with reading(at, "plain XML", DataError):
        top = fromstring(data_of(real, "plain XML", DataError, MOST_BYTES), forbid_dtd=True)
    boxes = [_box(at, number, one) for number, one in enumerate(top.findall("object"), 1) if not _difficult(one)]
    return [box for box in boxes if box[1][0] < box[1][2] and box[1][1] < box[1][3]], _size(top)


def _box(at: Path, number: int, one: Any) -> Named:
    name, texts = one.findtext("name"), [one.findtext(f"bndbox/{corner}") for corner in CORNERS]
    try:
        left, top, right, bottom = (float(text) for text in texts)
    except (TypeError, ValueError) as error:
        raise DataError(f"object {number} of {at} has no bndbox with {', '.join(CORNERS)}; correct it") from error
    if not name or not name.strip():
        raise DataError(f"object {number} of {at} has no name; correct it")
    return name.strip(), (left - 1, top - 1, right, bottom)


def _difficult(one: Any) -> bool:
    return (one.findtext("difficult") or "0").strip() == "1"


def _size(top: Any) -> tuple[int, int] | None:
    texts = [top.findtext(f"size/{side}") or "" for side in ("width", "height")]
    if not all(text.strip().isdecimal() and int(text) for text in texts):
        return None
    return int(texts[0]), int(texts[1])


def _picture(path: Path, stem: str) -> str:
    """The path of a picture from the root."""
    names = [f"JPEGImages/{stem}{suffix}" for suffix in (*SUFFIXES, *(suffix.upper() for suffix in SUFFIXES))]
    for name in names:
        if files.there(path / name):
            return name
    raise DataError(f"{path / 'JPEGImages'} holds no picture '{stem}' for its annotation; add it, or remove that")
