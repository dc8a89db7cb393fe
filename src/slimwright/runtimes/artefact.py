"""A model as files that one runtime loads."""

import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from slimwright.graph.encoding import PRECISIONS, Precision
from slimwright.runner.job import Side
from slimwright.runtimes.fallbacks import Fallback

__all__ = ["PRECISIONS", "Array", "Artefact", "Precision", "Written", "name_in_job"]

Array: TypeAlias = NDArray[np.float32]


@dataclass(frozen=True)
class Artefact:
    """Files that a runtime loads, the model's main file first; names are unique without their folders.

    Inputs and outputs are those of the net, in its order. An artefact of an older bundle does not know all of them.
    """

    runtime: str
    precision: Precision
    files: tuple[Path, ...]
    shapes: tuple[tuple[int, ...], ...]  # of each input, for one image: [1, C, H, W]
    output_shapes: tuple[tuple[int, ...], ...] = ()  # of each output; () where they are not known
    fallbacks: tuple[Fallback, ...] = ()  # what the runtime's fast path did not take, as far as its converter tells
    dtypes: tuple[str, ...] = ()  # of each input; float32 where there are none
    output_dtypes: tuple[str, ...] = ()
    input_names: tuple[str, ...] = ()  # what the files call each input; those without are taken in the files' order
    output_names: tuple[str, ...] = ()
    free_sizes: tuple[tuple[str, int], ...] = ()  # sizes that the files leave free, and what they are in `shapes`

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
        return Side(
            name,
            self.runtime,
            self.precision,
            files,
            self.shapes,
            threads,
            dtypes=self.dtypes,
            inputs=self.input_names,
            outputs=self.output_names,
            output_shapes=self.output_shapes,
        )


@dataclass(frozen=True)
class Written:
    """What an exporter wrote: its files, and what they call the inputs and outputs of the net, in the net's order."""

    files: tuple[str, ...]
    inputs: tuple[str, ...] = ()  # () where they have no names: they are in the net's order
    outputs: tuple[str, ...] = ()
    free_sizes: tuple[tuple[str, int], ...] = ()  # sizes that the files leave free, and what they are in the net


def name_in_job(number: int, path: Path) -> str:
    """A file's name among those of other artefacts; what belongs together keeps one stem, as OpenVINO wants."""
    return f"{number}-{path.name}"
