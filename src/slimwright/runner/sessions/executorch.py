"""ExecuTorch with the XNNPACK delegate: a .pte file. Its wheel brings torch into the process.

The wheel's `executorch.runtime` wraps the extension module that is used here, and imports the exporter with it: that
takes seven seconds of each fresh process instead of two (1.4.0, 2026-11-28).
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from executorch.extension.pybindings import _portable_lib

from slimwright.runner.job import Side
from slimwright.runner.sessions.session import Array, Kernel


class Session:
    """One file: the program. It has no names: inputs and outputs are in the order of the exported program."""

    planned_bytes = None  # the delegate's workspace is not told

    def __init__(self, files: Sequence[Path], side: Side) -> None:
        torch.set_num_threads(side.threads)
        _portable_lib._unsafe_reset_threadpool(side.threads)
        consistent = _portable_lib.Verification.InternalConsistency
        self._program = _portable_lib._load_program(str(files[0]), program_verification=consistent)
        self._method = self._program.load_method("forward")

    def run(self, inputs: Sequence[Array]) -> Sequence[Array]:
        """Return each output, from each input."""
        outputs = self._method([torch.from_numpy(given) for given in inputs])
        return [np.array(output.numpy()) for output in outputs]  # the program's own memory is written over

    def profile(self, inputs: Sequence[Array], runs: int, before: Callable[[], object]) -> list[Kernel]:
        """Nothing: the wheel is built without the event tracer."""
        return []
