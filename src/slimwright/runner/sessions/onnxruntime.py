"""ONNX Runtime on the CPU: .onnx and .ort files."""

import json
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from onnxruntime.capi.onnxruntime_pybind11_state import NotImplemented  # noqa: A004 - its own name for it

from slimwright.runner.job import Side
from slimwright.runner.sessions.session import Array, Kernel
from slimwright.runner.timing import undisturbed

PROFILER_MS = 0.0007  # of its own that the profiler adds to a kernel: else kernels exceed the run that they make up


class Session:
    """One file: the model."""

    planned_bytes = None

    def __init__(self, files: Sequence[Path], side: Side) -> None:
        self._path, self._threads = files[0], side.threads
        self._session = self._opened(_options(side.threads)) if side.precision != "fp32" else self._exact()
        self._inputs = side.inputs or tuple(entry.name for entry in self._session.get_inputs())
        self._outputs = side.outputs or tuple(entry.name for entry in self._session.get_outputs())

    def run(self, inputs: Sequence[Array]) -> Sequence[Array]:
        """Return each output, from each input."""
        found: list[Array] = self._session.run(self._outputs, dict(zip(self._inputs, inputs, strict=True)))
        return found

    def profile(self, inputs: Sequence[Array], runs: int, before: Callable[[], object]) -> list[Kernel]:
        """Each kernel's time, from the runtime's own profiler."""
        with tempfile.TemporaryDirectory() as folder:
            options = _options(self._threads)
            options.enable_profiling, options.profile_file_prefix = True, str(Path(folder) / "profile")
            session = self._opened(options)
            for _ in range(runs):
                before()
                session.run(self._outputs, dict(zip(self._inputs, inputs, strict=True)))
            return profiled_kernels(Path(session.end_profiling()), runs)

    def _exact(self) -> Any:
        """A session that computes what the file says, also where a model given as it is holds integers.

        On x86 without VNNI, sums of products of bytes saturate unless this is asked for; QGemm of int8 by int8 does
        not saturate, and then cannot be loaded (ONNX Runtime 1.31.1, 2026-11-29).
        """
        options = _options(self._threads)
        options.add_session_config_entry("session.x64quantprecision", "1")
        try:
            return self._opened(options)
        except NotImplemented:
            return self._opened(_options(self._threads))

    def _opened(self, options: Any) -> Any:
        return ort.InferenceSession(str(self._path), options, providers=["CPUExecutionProvider"])


def profiled_kernels(profile: Path, runs: int) -> list[Kernel]:
    """Return the kernels in the file that ONNX Runtime's profiler wrote over `runs` runs."""
    taken = [event for event in json.loads(profile.read_text()) if event["name"].endswith("_kernel_time")]
    each = len(taken) // runs
    ms = np.reshape([event["dur"] for event in taken], (runs, each)).T * 1e-3
    names = [event["name"].removesuffix("_kernel_time") for event in taken[:each]]
    kinds = [event["args"]["op_name"] for event in taken[:each]]
    return [
        Kernel(name, kind, max(undisturbed(took) - PROFILER_MS, 0.0))
        for name, kind, took in zip(names, kinds, ms, strict=True)
    ]


def _options(threads: int) -> Any:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return options
