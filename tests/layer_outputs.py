"""What artefacts give for an image, in a process of its own: several runtimes in one process are asking for trouble."""

from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from slimwright.runner.job import Side
from slimwright.runner.sessions import open_session

if TYPE_CHECKING:  # the process does without torch
    from slimwright.runtimes import Artefact

Floats = NDArray[np.float32]


def outputs(given: "Sequence[tuple[Artefact, Floats]]") -> list[Floats]:
    """Run each artefact on its image, [1, C, H, W] or [1, C]; return the results, flat."""
    sides = [(made.files[0].parent, _side(made), image) for made, image in given]
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        return pool.submit(run, sides).result()


def run(sides: Sequence[tuple[Path, Side, Floats]]) -> list[Floats]:
    """What the process does."""
    return [np.array(open_session(side, folder).run([image])[0]).reshape(-1) for folder, side, image in sides]


def _side(made: "Artefact") -> Side:
    return Side("layer", made.runtime, made.precision, tuple(path.name for path in made.files), made.shapes)
