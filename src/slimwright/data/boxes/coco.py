"""Boxes in COCO's JSON: lists of images, annotations and categories. Crowds are left out.

Classes are the categories in the order of their ids. Source: the format's page, cocodataset.org/#format-data.
"""

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from slimwright.data import files
from slimwright.data.boxes.annotated import Annotated, boxed, check_count, no_boxes
from slimwright.data.preprocessing import Preprocessing
from slimwright.data.streamed import StreamedData
from slimwright.errors import DataError
from slimwright.reading import json_of

MOST_BYTES = 2**30  # of the file; COCO's largest has 470 MB
MOST_SIDE = 100_000
Entry = Mapping[str, Any]


def coco(path: Path, how: Preprocessing, seed: int = 0) -> StreamedData:
    """Return the pictures and boxes that a JSON file lists; `seed` deals them into the parts.

    Pictures lie in `images` beside the file, in its own folder, or, as COCO has it, for `annotations/instances_X.json`
    in a folder `X` beside `annotations`. Raises DataError, naming file and entry.
    """
    path = path.resolve()
    said = _parsed(path)
    categories = {_whole(path, name, entry, "id"): _text(path, name, entry, "name")
                  for name, entry in _entries(path, said, "categories")}  # fmt: skip
    labels = {number: place for place, number in enumerate(sorted(categories))}
    images = {_whole(path, name, entry, "id"): (name, entry) for name, entry in _entries(path, said, "images")}
    boxes: dict[int, list[list[float]]] = {number: [] for number in images}
    for name, entry in _entries(path, said, "annotations"):
        image, category = _whole(path, name, entry, "image_id"), _whole(path, name, entry, "category_id")
        if image not in images or category not in labels:
            missing = f"image {image}" if image not in images else f"category {category}"
            raise DataError(f"{name} of {path} is of {missing}, which the file does not list; correct or remove it")
        if not entry.get("iscrowd", 0):
            boxes[image] += _box(path, name, entry, labels[category])
    pictures = [_picture(path, *images[number], boxes[number]) for number in images]
    if not pictures:
        raise DataError(f"{path} lists no images; name the file of a data set")
    root = _root(path, pictures[0].path)
    return boxed(root, [categories[number] for number in labels], [pictures], how, seed)


def _parsed(path: Path) -> Entry:
    real = files.held(path.parent, path)
    said = json_of(real, "JSON with images, annotations and categories", DataError, MOST_BYTES)
    if not isinstance(said, dict):
        raise DataError(f"{path} holds no object with images, annotations and categories; name a file in COCO's format")
    return said


def _entries(path: Path, said: Entry, kind: str) -> Iterator[tuple[str, Entry]]:
    """The entries of a list, each with what to call it."""
    found = said.get(kind)
    if not isinstance(found, list):
        raise DataError(f"{path} has no list of {kind}; name a file in COCO's format for detection")
    for number, entry in enumerate(found):
        if not isinstance(entry, dict):
            raise DataError(f"{kind}[{number}] of {path} is not an object; correct or remove it")
        yield f"{kind}[{number}]", entry


def _picture(path: Path, name: str, entry: Entry, boxes: list[list[float]]) -> Annotated:
    width, height = (_whole(path, name, entry, side) for side in ("width", "height"))
    if not (0 < width < MOST_SIDE and 0 < height < MOST_SIDE):
        raise DataError(f"{name} of {path} claims {width}x{height} pixels; correct it")
    rows = check_count(f"{name} of {path}", np.array(boxes) if boxes else no_boxes())
    return Annotated(_text(path, name, entry, "file_name"), (width, height), rows)


def _box(path: Path, name: str, entry: Entry, label: int) -> list[list[float]]:
    """A row, or none where the box is empty."""
    box = entry.get("bbox")
    if not (isinstance(box, list) and len(box) == 4 and all(map(_is_number, box))):
        raise DataError(f"{name} of {path} has no bbox of four numbers x, y, width, height; correct or remove it")
    left, top, width, height = map(float, box)
    return [[label, left, top, left + width, top + height]] if width > 0 and height > 0 else []


def _root(path: Path, first: str) -> Path:
    """The folder of the pictures, told by where the first one lies."""
    home = path.parent
    folders = [home / "images", home, home.parent / path.stem.rpartition("_")[2]]
    for folder in folders:
        if files.there(folder / first):
            return folder
    raise DataError(
        f"{first!r}, which {path} lists, is in none of {', '.join(map(str, folders))}; put the pictures there"
    )


def _whole(path: Path, name: str, entry: Entry, key: str) -> int:
    value = entry.get(key)
    if not isinstance(value, int) or isinstance(value, bool):
        raise DataError(f"{name} of {path} has no whole number under '{key}'; correct or remove it")
    return value


def _text(path: Path, name: str, entry: Entry, key: str) -> str:
    value = entry.get(key)
    if not isinstance(value, str) or not value:
        raise DataError(f"{name} of {path} has no text under '{key}'; correct or remove it")
    return value


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
