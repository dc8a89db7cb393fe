"""Two folders of pictures that belong together by their names: photographs and masks, inputs and targets.

PATH/images, PATH/masks                     every part is dealt from these, or
PATH/train/images, PATH/train/masks         these train, and the same in `test` or `val` is the test part;
                                            where there are both, `val` is the validation part
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch

from slimwright.data import files
from slimwright.data.folders import homes, named_pictures, within
from slimwright.data.pictures import pictures
from slimwright.data.preprocessing import Preprocessing
from slimwright.data.streamed import ReadTargets, Share
from slimwright.errors import DataError


@dataclass(frozen=True)
class Twins:
    """Pictures and, at the same places, those that belong to them, as paths from `root`."""

    root: Path
    first: tuple[str, ...]
    second: tuple[str, ...]

    def share(self, how: Preprocessing, read_targets: ReadTargets) -> Share:
        """Return the first pictures, with targets that are read with them."""
        count = len(self.first)
        pixels = partial(pictures, self.root, self.first, how)
        both = (self.root, self.first), self.second
        return Share(pixels, np.arange(count), torch.zeros(count, 0), read_targets, *both)

    def some(self, most: int) -> list[int]:
        """Return at most so many numbers, spread evenly."""
        return list(range(0, len(self.first), max(len(self.first) // most, 1)))[:most]


def twins(path: Path, folders: tuple[str, str], suffixes: Sequence[str]) -> list[Twins]:
    """Return the pairs of pictures in two folders: of training, then of what else is given, test before validation.

    A picture belongs to the one of the same name but for the suffix, and those of the second folder have one of
    `suffixes`. Raises DataError, naming the folder or the picture that has no partner.
    """
    files.folder(path, f"{folders[0]} and {folders[1]}, with pictures of the same names")
    return [_paired(path, at, folders, suffixes) for at in homes(path)]


def _paired(root: Path, home: Path, folders: tuple[str, str], suffixes: Sequence[str]) -> Twins:
    first, second = (_by_stem(root, home / folder) for folder in folders)
    if not first:
        raise DataError(f"{home / folders[0]} holds no pictures; put them there, or name another folder")
    for stem, path in first.items():
        if stem not in second:
            raise DataError(
                f"{root / path} has no picture of its name in {home / folders[1]}; add {stem}{suffixes[0]} there, or "
                "remove the picture"
            )
        if not second[stem].lower().endswith(tuple(suffixes)):
            raise DataError(f"{root / second[stem]} must be a {' or '.join(suffixes)} file, which keeps every level")
    return Twins(root, tuple(first.values()), tuple(second[stem] for stem in first))


def _by_stem(root: Path, home: Path) -> dict[str, str]:
    """The pictures in a folder by their names without suffix."""
    if not home.is_dir():
        raise DataError(f"{home} is missing; it must hold pictures")
    within(root, home)
    found: dict[str, str] = {}
    for name in named_pictures(home):
        stem = Path(name).stem
        if stem in found:
            raise DataError(f"{home} holds both {Path(found[stem]).name} and {name}; keep one of them")
        found[stem] = (home / name).relative_to(root).as_posix()
    return found
