"""Boxes in YOLO's text files: beside `images/a.jpg` a file `labels/a.txt`, a line a box.

    class cx cy width height      centre and size, as shares of the picture's sides
    class x1 y1 x2 y2 x3 y3 ...   an outline instead: its box counts

A picture without a file, or with an empty one, has no boxes. Classes are named in `classes.txt`, a line each, or under
`names` in `data.yaml`, as a list or numbered; else they are called by their numbers. There may be folders `train`,
`test` and `val` (or `valid`) in `images` and `labels`, or these two in each of those; `val` alone is the test part.
Source: docs.ultralytics.com/datasets/detect.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from slimwright.data import files
from slimwright.data.boxes.annotated import Annotated, Rows, boxed, check_count, no_boxes, size_of
from slimwright.data.folders import pictures_below
from slimwright.data.preprocessing import Preprocessing
from slimwright.data.streamed import StreamedData
from slimwright.errors import DataError

ITEM = re.compile(r"""(?:[^,'"]|'[^']*'|"[^"]*")+""")  # of a list, whose names may hold commas where they are quoted
TESTS = ("test", "val", "valid")
SLACK = 0.01  # of a side, by which a coordinate may lie outside
MOST_CLASSES = 10_000
Pair = tuple[Path, Path]  # a folder of pictures, and one of their texts


def yolo(path: Path, how: Preprocessing, seed: int = 0) -> StreamedData:
    """Return the pictures in `path/images` with the boxes in `path/labels`; `seed` deals what is not given.

    Raises DataError, naming file and line.
    """
    files.folder(path, "images and labels")
    names = _names(path)
    found = [_pictures(path, pair, how) for pair in _pairs(path)]
    largest = max((int(one.boxes[:, 0].max()) for some in found for one in some if len(one.boxes)), default=0)
    if names and largest >= len(names):
        raise DataError(f"{path} names {len(names)} classes, and a box is of class {largest}; add its name")
    return boxed(path, names or [str(number) for number in range(largest + 1)], found, how, seed)


def _pairs(path: Path) -> list[Pair]:
    """The folders of the training pictures, then of the test and the validation part, where there are such."""
    inner = {part: (path / "images" / part, path / "labels" / part) for part in ("train", *TESTS)}
    outer = {part: (path / part / "images", path / part / "labels") for part in ("train", *TESTS)}
    for layout in (inner, outer):
        if layout["train"][0].is_dir():
            return [layout["train"], *[layout[part] for part in TESTS if layout[part][0].is_dir()][:2]]
    if not (path / "images").is_dir():
        raise DataError(f"{path} holds no folder images; put the pictures there, and their boxes into labels beside it")
    return [(path / "images", path / "labels")]


def _pictures(root: Path, pair: Pair, how: Preprocessing) -> list[Annotated]:
    images, labels = pair
    found = []
    for name in pictures_below(root, images):
        shown = size_of(root, name, how)
        text = labels / (root / name).relative_to(images).with_suffix(".txt")
        boxes = _boxes(root, text, shown) if text.exists() or text.is_symlink() else no_boxes()
        found.append(Annotated(name, shown, boxes))
    return found


def _boxes(root: Path, path: Path, shown: tuple[int, int]) -> Rows:
    """The boxes [B, 5] in pixels of the picture."""
    rows = [_row(f"line {number} of {path}", line) for number, line in enumerate(files.lines(root, path), 1) if line]
    if not rows:
        return no_boxes()
    return check_count(str(path), np.array(rows) * [1, *shown, *shown])


def _row(where: str, line: str) -> list[float]:
    """Class and corners, as shares of the picture's sides."""
    try:
        kind, *numbers = map(float, line.split())
    except ValueError:
        kind, numbers = -1.0, []
    sides = np.array(numbers)
    if len(sides) < 4 or len(sides) % 2 or not (0 <= kind < MOST_CLASSES and kind.is_integer()):
        raise DataError(f"{where} is not a class and four numbers, cx cy width height: {line[:60]!r}; correct it")
    if not ((sides >= -SLACK) & (sides <= 1 + SLACK)).all():
        raise DataError(
            f"{where} has numbers beyond 0..1, the shares of the picture's sides: {line[:60]!r}; correct it"
        )
    if len(sides) == 4:
        corners = [*(sides[:2] - sides[2:] / 2), *(sides[:2] + sides[2:] / 2)]
    else:
        points = sides.reshape(-1, 2)
        corners = [*points.min(0), *points.max(0)]
    return [kind, *map(float, corners)]


def _names(path: Path) -> list[str]:
    """The names of the classes; none where there are none."""
    if (path / "classes.txt").exists():
        return _each_named(path / "classes.txt", [line.strip() for line in files.lines(path, path / "classes.txt")])
    for name in ("data.yaml", "dataset.yaml", "data.yml"):
        if (path / name).exists():
            return _named(path / name, files.lines(path, path / name))
    return []


def _named(path: Path, lines: Sequence[str]) -> list[str]:
    """What stands under `names` in a YAML file: a list in brackets, a list of dashes, or numbers and names."""
    starts = [place for place, line in enumerate(lines) if re.match(r"names\s*:", line)]
    if not starts:
        raise DataError(f"{path} has no names; list them there under 'names:', or write classes.txt, a name a line")
    first = lines[starts[0]].partition(":")[2].partition(" #")[0].strip()
    rest = [line for line in lines[starts[0] + 1 :] if line.strip() and not line.lstrip().startswith("#")]
    block: list[str] = []
    for line in rest:
        if not re.match(r"\s+\S|-\s", line):
            break
        block.append(line.partition(" #")[0].strip())
    if first.startswith(("[", "{")):
        whole = " ".join([first, *block])[1:].rpartition("]" if first[0] == "[" else "}")[0]
        items = map(str.strip, ITEM.findall(whole))
        block = [f"- {item}" if first[0] == "[" else item for item in items if item]
    return _listed(path, block)


def _listed(path: Path, block: Sequence[str]) -> list[str]:
    """Lines "- name", or "number: name", which need not be in order."""
    dashed = [_bare(line[1:]) for line in block if line.startswith("-")]
    numbered: Mapping[int, str] = {int(m[1]): _bare(m[2]) for line in block if (m := re.match(r"(\d+)\s*:(.*)", line))}
    names = dashed or [numbered[number] for number in sorted(numbered)]
    if not names or len(names) != len(block) or (numbered and sorted(numbered) != list(range(len(numbered)))):
        raise DataError(f"the names in {path} cannot be read; write classes.txt beside it, a name a line")
    return names


def _each_named(path: Path, names: list[str]) -> list[str]:
    if "" in names:
        raise DataError(
            f"line {names.index('') + 1} of {path} is empty, and names a class; write its name, or remove it"
        )
    return names


def _bare(text: str) -> str:
    return text.strip().strip("'\"")
