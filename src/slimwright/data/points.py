"""Pictures with points: the keypoints of a COCO file, or a table of coordinates.

    FILE.json     COCO's keypoints: every annotation that has some is an image of its own, cut out by its box; pictures
                  lie beside the file, or in `images` there
    FILE.csv      path,nose_x,nose_y,...: pixels in the whole picture; two empty cells for a point that is hidden

A box is made wider or higher until it has the proportions of the wanted size, and then 1.25 times as large: what nets
see that were trained as in Xiao et al. 2018 (arXiv 1804.06208) and their code.

Targets are [N, K, 3] float32: x and y in pixels of the placed picture, and 1 for a point that is marked and in it.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from pydantic import BaseModel, ConfigDict
from torch import Tensor

from slimwright.data import files
from slimwright.data.pictures import MOST_PIXELS, opened, size
from slimwright.data.preprocessing import Preprocessing
from slimwright.data.streamed import Numbers, Share, StreamedData, of_pictures, parted
from slimwright.data.table import Table, read_table
from slimwright.errors import DataError
from slimwright.reading import reading

ROOMY = 1.25  # of a box
JSON_BYTES = 2**30  # COCO's own largest file has 250 MB
Box = tuple[float, float, float, float]  # left, top, width, height


@dataclass(frozen=True)
class Marked:
    """A picture, or the part of it in `box`, and where its points are: [K, 3], x and y in pixels, 1 if it is marked."""

    path: Path
    points: NDArray[np.float64]
    box: Box | None = None


def point_file(path: Path, how: Preprocessing, seed: int = 0) -> StreamedData:
    """Return the pictures that a COCO file or a table lists, with their points; `seed` deals them into the parts.

    Raises DataError, naming the annotation, or the line and the column.
    """
    names, marked = _of_coco(path) if path.suffix.lower() == ".json" else _of_table(read_table(path))
    root = path.parent
    boxed = any(one.box for one in marked)  # parts of pictures are not files
    share = Share(
        partial(_pictures, root, marked, how),
        np.arange(len(marked)),
        torch.zeros(len(marked), 0),
        partial(_points, root, marked, how),
        None if boxed else (root, [os.path.relpath(one.path, root) for one in marked]),
    )
    parts = parted([share], names=(), image_shape=how.shape, seed=seed)
    cut = {"box": f"of proportions as the size, {ROOMY:g} times as large"} if marked[0].box else {}
    made = of_pictures(path.stem, names, how, parts, task="keypoints")
    return replace(made, raw={**cut, **made.raw})


def _pictures(root: Path, marked: Sequence[Marked], how: Preprocessing, numbers: Numbers) -> NDArray[np.uint8]:
    found = []
    for one in (marked[number] for number in numbers):
        box = _cut(one, how, size(root, one.path, how)) if one.box else None

        def use(image: Image.Image, box: tuple[int, int, int, int] | None = box) -> NDArray[np.uint8]:
            return how.levels(image if box is None else how.turned(image).crop(box))

        found.append(opened(root, one.path, use))
    return np.stack(found)


def _points(root: Path, marked: Sequence[Marked], how: Preprocessing, numbers: Numbers) -> Tensor:
    return torch.from_numpy(np.stack([_placed(root, marked[number], how) for number in numbers]))


def _placed(root: Path, one: Marked, how: Preprocessing) -> NDArray[np.float32]:
    """The points [K, 3] of a picture in pixels of the result; those that are not in it count as not marked."""
    whole = size(root, one.path, how)
    left, top, right, bottom = _cut(one, how, whole) if one.box else (0, 0, *whole)
    places = how.placement(right - left, bottom - top).moved(one.points[:, :2] - [left, top])
    inside = ((places >= 0) & (places < [how.width, how.height])).all(1) & (one.points[:, 2] > 0)
    return np.concatenate([np.where(inside[:, None], places, 0), inside[:, None]], 1).astype(np.float32)


def _cut(one: Marked, how: Preprocessing, whole: tuple[int, int]) -> tuple[int, int, int, int]:
    """Left, top, right and bottom of what is cut out of a picture of this size; some may lie outside of it."""
    assert one.box is not None
    low = np.clip(one.box[:2], 0, whole)
    high = np.clip(np.add(one.box[:2], one.box[2:]), 0, whole)
    if (high - low < 1).any():
        raise DataError(f"a box of {one.path} lies outside of the picture, which is {whole[0]}x{whole[1]}; correct it")
    across, down = high - low
    across, down = max(across, down * how.width / how.height), max(down, across * how.height / how.width)
    sides = np.maximum(np.round(ROOMY * np.array([across, down])), 1).astype(int)
    if sides.prod() > MOST_PIXELS:
        raise DataError(f"a box of {one.path} would have {sides[0]}x{sides[1]} pixels; give pictures another size")
    left, top = np.round((low + high) / 2 - sides / 2).astype(int)
    return int(left), int(top), int(left + sides[0]), int(top + sides[1])


class _Read(BaseModel):
    model_config = ConfigDict(extra="ignore", allow_inf_nan=False)


class _Picture(_Read):
    id: int
    file_name: str


class _Annotation(_Read):
    id: int = 0
    image_id: int
    keypoints: list[float] = []
    bbox: Box | None = None
    iscrowd: int = 0


class _Category(_Read):
    keypoints: list[str] = []


class _Coco(_Read):
    images: list[_Picture]
    annotations: list[_Annotation]
    categories: list[_Category] = []


def _of_coco(path: Path) -> tuple[tuple[str, ...], list[Marked]]:
    """The points' names, and the annotations that have any of them."""
    with reading(path, "COCO's JSON of keypoints", DataError):
        read = _Coco.model_validate_json(files.text(path.parent, path, JSON_BYTES))
    pictures = {image.id: path.parent / image.file_name for image in read.images}
    used = [one for one in read.annotations if any(one.keypoints[2::3]) and not one.iscrowd]
    if not used:
        raise DataError(f"no annotation in {path} marks a keypoint; give the file of keypoints, not of boxes")
    count = len(used[0].keypoints)
    names = next((kind.keypoints for kind in read.categories if 3 * len(kind.keypoints) == count), None)
    for one in used:
        if len(one.keypoints) != count or count % 3:
            raise DataError(
                f"annotation {one.id} in {path} has {len(one.keypoints)} numbers of keypoints; every one needs three "
                f"for each point, as many as the first, which has {count}"
            )
        if one.image_id not in pictures:
            raise DataError(f"annotation {one.id} in {path} is of picture {one.image_id}, which is not listed there")
    places = {number: _found(path.parent, pictures[number]) for number in {one.image_id for one in used}}
    marked = [Marked(places[one.image_id], np.reshape(one.keypoints, (-1, 3)), one.bbox) for one in used]
    return tuple(names or (f"point {k + 1}" for k in range(count // 3))), marked


def _found(root: Path, path: Path) -> Path:
    """A picture beside the file, or in the folder `images` there."""
    inner = root / "images" / path.relative_to(root) if path.is_relative_to(root) else path
    place = inner if not files.there(path) and files.there(inner) else path
    files.held(root, place)
    return place


def _of_table(table: Table) -> tuple[tuple[str, ...], list[Marked]]:
    """The points' names, and a picture for each line."""
    across, down = table.columns[0::2], table.columns[1::2]
    names = tuple(column.removesuffix("_x") for column in across)
    if tuple(f"{name}_x" for name in names) != across or tuple(f"{name}_y" for name in names) != down:
        raise DataError(
            f"the columns of {table.at} must be the picture's path and then, of each point, NAME_x and NAME_y, as in "
            f"path,nose_x,nose_y; they are {', '.join(table.columns)[:80]}"
        )
    return names, [
        Marked(table.at.parent / path, np.array([_point(table, row, k) for k in range(len(names))]))
        for row, path in enumerate(table.paths)
    ]


def _point(table: Table, row: int, point: int) -> tuple[float, float, float]:
    """x, y and 1, or zeros where both cells are empty."""
    if not any(table.cells[row][2 * point : 2 * point + 2]):
        return 0.0, 0.0, 0.0
    return table.number(row, 2 * point), table.number(row, 2 * point + 1), 1.0
