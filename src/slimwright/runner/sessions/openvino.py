"""OpenVINO on the CPU: an .xml and a .bin file."""

import functools
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

# Its package reports to its maker that it was imported, unless what sends the reports cannot be found.
sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]

import openvino

from slimwright.runner.job import Side
from slimwright.runner.sessions.session import Array, Kernel
from slimwright.runner.timing import undisturbed


class Session:
    """Two files: .xml, .bin (beside it, under the same name)."""

    planned_bytes = None

    def __init__(self, files: Sequence[Path], side: Side) -> None:
        self._path, self._side = files[0], side
        compiled = self._compiled(profiling=False)
        self._request = compiled.create_infer_request()
        self._inputs = [compiled.input(name) for name in side.inputs] or compiled.inputs
        self._outputs = [compiled.output(name) for name in side.outputs] or compiled.outputs

    def run(self, inputs: Sequence[Array]) -> Sequence[Array]:
        """Return each output, from each input."""
        self._request.infer(dict(zip(self._inputs, inputs, strict=True)), share_inputs=True)
        return [np.array(self._request.get_tensor(output).data) for output in self._outputs]

    def profile(self, inputs: Sequence[Array], runs: int, before: Callable[[], object]) -> list[Kernel]:
        """Each executed kernel's time, from the runtime's own counters."""
        compiled = self._profiled
        request, names = compiled.create_infer_request(), self._side.inputs
        ports = [compiled.input(name) for name in names] or compiled.inputs
        taken: dict[tuple[str, str], list[float]] = {}
        for _ in range(runs):
            before()
            request.infer(dict(zip(ports, inputs, strict=True)))
            for entry in request.profiling_info:
                if str(entry.status).endswith("EXECUTED"):
                    taken.setdefault((entry.node_name, entry.node_type), []).append(
                        entry.real_time.total_seconds() * 1e3
                    )
        return [Kernel(name, kind, undisturbed(spent)) for (name, kind), spent in taken.items()]

    @functools.cached_property
    def _profiled(self) -> Any:
        return self._compiled(profiling=True)

    def _compiled(self, *, profiling: bool) -> Any:
        core = openvino.Core()
        settings: dict[str, Any] = {
            "INFERENCE_NUM_THREADS": self._side.threads,
            "NUM_STREAMS": 1,
            "PERF_COUNT": profiling,
            "INFERENCE_PRECISION_HINT": "f16" if self._side.precision == "fp16" and _has_half(core) else "f32",
        }
        return core.compile_model(core.read_model(str(self._path)), "CPU", settings)


def _has_half(core: Any) -> bool:
    return "FP16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
