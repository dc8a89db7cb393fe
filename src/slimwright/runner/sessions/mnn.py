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
        names = list(side.inputs), list(side.outputs)
        self._net = MNN.nn.load_module_from_file(str(files[0]), *names, runtime_manager=self._manager)
        interpreter, session = self._interpreter()
        megabytes = interpreter.getSessionInfo(session, MEMORY)
        self.planned_bytes = int(megabytes * 1e6) if megabytes and megabytes != NONE_OF_IT else None

    def run(self, inputs: Sequence[Array]) -> Sequence[Array]:
        """Return each output, from each input."""
        given = [_variable(array) for array in inputs]
        found = [expr.convert(output, expr.NCHW) for output in self._net.forward(given)]
        shapes = self._side.output_shapes or [output.shape for output in found]
        return [  # it gives what has three dimensions a fourth
            np.array(output.read()).reshape(shape) for output, shape in zip(found, shapes, strict=True)
        ]

    def profile(self, inputs: Sequence[Array], runs: int, before: Callable[[], object]) -> list[Kernel]:
        """Each operator's time, taken by callbacks before and after it."""
        interpreter, session = self._interpreter()
        entries = [interpreter.getSessionInput(session, name) for name in self._side.inputs]
        entries = entries or [interpreter.getSessionInput(session)]
        held = [_tensor(entry, given) for entry, given in zip(entries, inputs, strict=True)]
        kernels: list[tuple[str, str]] = []
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
            if step == len(kernels):
                kernels.append((op.getName(), op.getType()))
                taken.append([])
            taken[step].append(took)
            step += 1
            return True

        for _ in range(runs):
            step = 0
            before()
            for entry, tensor in zip(entries, held, strict=True):  # each time: MNN reuses the buffers of its inputs
                entry.copyFrom(tensor)
            interpreter.runSessionWithCallBackInfo(session, begin, end)
        return [Kernel(name, kind, undisturbed(spent)) for (name, kind), spent in zip(kernels, taken, strict=True)]

    def _interpreter(self) -> tuple[Any, Any]:
        interpreter = MNN.Interpreter(str(self._path))
        session = interpreter.createSession({"numThread": self._side.threads, "precision": "high"})
        return interpreter, session


def _variable(given: Array) -> Any:
    kind = expr.float if given.dtype.kind == "f" else expr.int  # MNN's integers have 32 bits
    plain = np.ascontiguousarray(given, np.float32 if given.dtype.kind == "f" else np.int32)
    return expr.const(plain, list(plain.shape), expr.NCHW, kind)


def _tensor(entry: Any, given: Array) -> Any:
    kind = MNN.Halide_Type_Float if given.dtype.kind == "f" else MNN.Halide_Type_Int
    plain = np.ascontiguousarray(given, np.float32 if given.dtype.kind == "f" else np.int32)
    return MNN.Tensor(entry.getShape(), kind, plain, MNN.Tensor_DimensionType_Caffe)
