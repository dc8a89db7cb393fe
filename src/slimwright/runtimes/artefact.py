"""A model as files that one runtime loads."""

import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

from slimwright.runner.job import Side
from slimwright.runtimes.fallbacks import Fallback

Array: TypeAlias = NDArray[np.float32]
Precision: TypeAlias = Literal["fp32", "fp16", "int8"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)


@dataclass(frozen=True)
class Artefact:
    """Files that a runtime loads, the model's main file first; names are unique without their folders."""

    runtime: str
    precision: Precision
    files: tuple[Path, ...]
    shape: tuple[int, ...]  # of the image: [1, C, H, W]
    fallbacks: tuple[Fallback, ...] = ()  # what the runtime's fast path did not take, as far as its converter tells

    @property
    def size_bytes(self) -> int:
        """All files together."""
        return sum(path.stat().st_size for path in self.files)

    def copied(self, folder: Path, stem: str) -> "Artefact":
        """Copy the files into `folder` under another name, each with its own suffix."""
        made = tuple(folder / f"{stem}{path.suffix}" for path in self.files)
        for path, copy in zip(self.files, made, strict=True):
            shutil.copyfile(path, copy)
        return replace(self, files=made)

    def side(self, name: str, number: int, threads: int) -> Side:
        """Describe this artefact as the `number`-th side of a job."""
        files = tuple(name_in_job(number, path) for path in self.files)
        return Side(name, self.runtime, self.precision, files, self.shape, threads)


def name_in_job(number: int, path: Path) -> str:
    """A file's name among those of other artefacts; what belongs together keeps one stem, as OpenVINO wants."""
    return f"{number}-{path.name}"
