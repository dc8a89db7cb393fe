"""The one small interface of all runtimes on a device."""

import importlib
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from numpy.typing import NDArray

from slimwright.runner.job import JobError, Side
from slimwright.runner.machine import PACKAGES, loaded_by

Array = NDArray[Any]


@dataclass(frozen=True)
class Kernel:
    """One kernel of a model, as the runtime calls it, and its time in milliseconds, where nothing disturbs it."""

    name: str
    kind: str
    ms: float


class Session(Protocol):
    """A loaded artefact. Inputs and outputs are those of the network, in its order, one image at a time.

    `planned_bytes` is what the runtime says it set aside for the model; None where it does not say.
    """

    planned_bytes: int | None

    def run(self, inputs: Sequence[Array]) -> Sequence[Array]:
        """Return each output [1, ...], from each input [1, ...]."""

    def profile(self, inputs: Sequence[Array], runs: int, before: Callable[[], object]) -> list[Kernel]:
        """Return the kernels in the order of execution; `before` is called ahead of each run.

        Empty where the runtime has no profiler.
        """


def load_runtime(runtime: str) -> type:
    """Import a runtime and return its session class. Raises JobError where it is not installed."""
    try:
        module = importlib.import_module(f"slimwright.runner.sessions.{loaded_by(runtime)}")
    except ImportError as error:
        fix = f"{sys.executable} -m pip install {PACKAGES[loaded_by(runtime)]}"
        raise JobError("missing", f"{runtime} is not installed here ({error}); install it with: {fix}") from error
    found: type = module.Session
    return found


def open_session(side: Side, folder: Path) -> Session:
    """Load one side's artefact. Raises JobError, with the runtime's own words, where that fails."""
    session = load_runtime(side.runtime)
    try:
        opened: Session = session([folder / name for name in side.files], side)
    except Exception as error:  # the runtimes' errors share no base class
        raise JobError("load", f"{side.runtime} cannot load {side.files[0]}: {first_line(error)}") from error
    return opened


def first_line(error: BaseException) -> str:
    """What an error says, in one line."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
