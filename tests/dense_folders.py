"""Folders and files with targets of every kind, of bright squares on dark pictures."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

WIDE, HIGH, SIDE = 40, 32, 10  # of a picture and of the square in it


@dataclass(frozen=True)
class Square:
    """A picture [H, W, 3] with a bright square, and where its corner is."""

    picture: NDArray[np.uint8]
    left: int
    top: int
    kind: int  # 1 or 2: grey or red

    @property
    def mask(self) -> NDArray[np.uint8]:
        """The square's kind where it is, else 0."""
        found = np.zeros((HIGH, WIDE), np.uint8)
        found[self.top : self.top + SIDE, self.left : self.left + SIDE] = self.kind
        return found


def squares(count: int, seed: int = 0) -> list[Square]:
    """So many pictures."""
    rng = np.random.default_rng(seed)
    found = []
    for number in range(count):
        picture = rng.integers(0, 60, (HIGH, WIDE, 3), dtype=np.uint8)
        left, top, kind = int(rng.integers(0, WIDE - SIDE)), int(rng.integers(0, HIGH - SIDE)), 1 + number % 2
        picture[top : top + SIDE, left : left + SIDE, : 3 if kind == 1 else 1] += 180
        found.append(Square(picture, left, top, kind))
    return found


def save(path: Path, levels: NDArray[np.uint8] | NDArray[np.uint16]) -> None:
    """Write a picture, with its folders."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(levels).save(path)


def mask_home(home: Path, count: int = 24, seed: int = 0) -> Path:
    """A folder with pictures and masks."""
    for number, square in enumerate(squares(count, seed)):
        save(home / "images" / f"{number}.png", square.picture)
        save(home / "masks" / f"{number}.png", square.mask)
    return home


def pair_home(home: Path, count: int = 24, factor: int = 2) -> Path:
    """A folder with pictures and what they were, before they were made smaller by a factor."""
    for number, square in enumerate(squares(count)):
        small = Image.fromarray(square.picture).resize((WIDE // factor, HIGH // factor), Image.Resampling.BOX)
        save(home / "target" / f"{number}.png", square.picture)
        save(home / "input" / f"{number}.png", np.asarray(small))
    return home


def point_table(home: Path, count: int = 24) -> Path:
    """A table of the squares' corners, left above and right below."""
    lines = ["path,first_x,first_y,last_x,last_y"]
    for number, square in enumerate(squares(count)):
        save(home / "pictures" / f"{number}.png", square.picture)
        corners = square.left, square.top, square.left + SIDE, square.top + SIDE
        lines.append(f"pictures/{number}.png,{','.join(map(str, corners))}")
    (home / "points.csv").write_text("\n".join(lines))
    return home / "points.csv"


def box_home(home: Path, count: int = 24) -> Path:
    """A folder of pictures with boxes as YOLO's text files have them: of a grey and a red square."""
    for number, square in enumerate(squares(count)):
        save(home / "images" / f"{number}.png", square.picture)
        centre = (square.left + SIDE / 2) / WIDE, (square.top + SIDE / 2) / HIGH
        (home / "labels").mkdir(exist_ok=True)
        sides = *centre, SIDE / WIDE, SIDE / HIGH
        (home / "labels" / f"{number}.txt").write_text(" ".join(map(str, (square.kind - 1, *sides))))
    (home / "classes.txt").write_text("grey\nred\n")
    return home
