"""LiteRT on the CPU (XNNPACK): a .tflite file."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ai_edge_litert.interpreter import Interpreter

from slimwright.runner.job import Side
from slimwright.runner.sessions.session import Array, Kernel


class Session:
    """One file: the model. INT8 inputs and outputs are quantized here, as a device's program would."""

    planned_bytes = None

    def __init__(self, files: Sequence[Path], side: Side) -> None:
        self._interpreter = Interpreter(str(files[0]), num_threads=side.threads)
        self._interpreter.allocate_tensors()
        self._inputs, self._outputs = self._interpreter.get_input_details(), self._interpreter.get_output_details()
        if side.inputs and side.outputs:
            signature = self._interpreter.get_signature_runner()
            given, found = signature.get_input_details(), signature.get_output_details()
            self._inputs = [given[name] for name in side.inputs]
            self._outputs = [found[name] for name in side.outputs]

    def run(self, inputs: Sequence[Array]) -> Sequence[Array]:
        """Return each output, from each input."""
        for details, given in zip(self._inputs, inputs, strict=True):
            self._interpreter.set_tensor(details["index"], _quantized(given, details))
        self._interpreter.invoke()
        return [_as_float(self._interpreter.get_tensor(details["index"]), details) for details in self._outputs]

    def profile(self, inputs: Sequence[Array], runs: int, before: Callable[[], object]) -> list[Kernel]:
        """Nothing: the interpreter tells of no kernels."""
        return []


def _quantized(given: Array, details: dict[str, Any]) -> Array:
    scale, zero_point = details["quantization"]
    if not scale or given.dtype.kind != "f":
        return given.astype(details["dtype"], copy=False)
    bounds = np.iinfo(details["dtype"])
    steps: Array = np.clip(np.rint(given / scale) + zero_point, bounds.min, bounds.max)
    return steps.astype(details["dtype"])


def _as_float(output: Array, details: dict[str, Any]) -> Array:
    scale, zero_point = details["quantization"]
    if not scale:
        return output
    floats: Array = (output.astype(np.float32) - zero_point) * np.float32(scale)
    return floats
