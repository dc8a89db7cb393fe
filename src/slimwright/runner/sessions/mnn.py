"""MNN on the CPU: an .mnn file."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import MNN
import numpy as np
from MNN import expr

from slimwright.runner.job import Side
from slimwright.runner.sessions.session import Array, Kernel
from slimwright.runner.timing import undisturbed

MEMORY, NONE_OF_IT = 0, -1.0  # MNN's codes for session information: megabytes


class Session:
    """One file: the model."""

    def __init__(self, files: Sequence[Path], side: Side) -> None:
        self._path, self._side = files[0], side
        precision = "low" if side.precision == "fp16" else "high"
        settings = {"backend": "CPU", "numThread": side.threads, "precision": precision}
        self._manager = MNN.nn.create_runtime_manager((settings,))  # borrowed by the module: must live as long
        self._net = MNN.nn.load_module_from_file(str(files[0]), [], [], runtime_manager=self._manager)
        interpreter, session = self._interpreter()
        megabytes = interpreter.getSessionInfo(session, MEMORY)
        self.planned_bytes = int(megabytes * 1e6) if megabytes and megabytes != NONE_OF_IT else None

    def run(self, image: Array) -> Array:
        """[1, C, H, W] -> class scores [1, classes]."""
        given = expr.const(np.ascontiguousarray(image), list(image.shape), expr.NCHW)
        scores = expr.convert(self._net.forward([given])[0], expr.NCHW)
        return np.array(scores.read(), dtype=np.float32).reshape(1, -1)

    def profile(self, image: Array, runs: int, before: Callable[[], object]) -> list[Kernel]:
        """Each operator's time, taken by callbacks before and after it."""
        interpreter, session = self._interpreter()
        entry = interpreter.getSessionInput(session)
        held = MNN.Tensor(
            entry.getShape(), MNN.Halide_Type_Float, np.ascontiguousarray(image), MNN.Tensor_DimensionType_Caffe
        )
        names: list[tuple[str, str]] = []
        taken: list[list[float]] = []
        began = 0.0
        step = 0

        def begin(_: Any, op: Any) -> bool:
            nonlocal began
            began = time.perf_counter()
            return True

        def end(_: Any, op: Any) -> bool:
            nonlocal step
            took = (time.perf_counter() - began) * 1e3
            if step == len(names):
                names.append((op.getName(), op.getType()))
                taken.append([])
            taken[step].append(took)
            step += 1
            return True

        for _ in range(runs):
            step = 0
            before()
            entry.copyFrom(held)  # each time: MNN reuses the buffer of its input
            interpreter.runSessionWithCallBackInfo(session, begin, end)
        return [Kernel(name, kind, undisturbed(spent)) for (name, kind), spent in zip(names, taken, strict=True)]

    def _interpreter(self) -> tuple[Any, Any]:
        interpreter = MNN.Interpreter(str(self._path))
        session = interpreter.createSession({"numThread": self._side.threads, "precision": "high"})
        return interpreter, session
