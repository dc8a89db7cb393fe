"""LiteRT on the CPU (XNNPACK): a .tflite file."""

from collections.abc import Callable, Sequence
from pathlib import Path

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
        (self._input,) = self._interpreter.get_input_details()
        (self._output,) = self._interpreter.get_output_details()

    def run(self, image: Array) -> Array:
        """[1, C, H, W] -> class scores [1, classes]."""
        scale, zero_point = self._input["quantization"]
        if scale:
            bounds = np.iinfo(self._input["dtype"])
            quantized = np.clip(np.rint(image / scale) + zero_point, bounds.min, bounds.max)
            image = quantized.astype(self._input["dtype"])
        self._interpreter.set_tensor(self._input["index"], image)
        self._interpreter.invoke()
        scores: Array = self._interpreter.get_tensor(self._output["index"]).astype(np.float32)
        scale, zero_point = self._output["quantization"]
        return (scores - zero_point) * np.float32(scale) if scale else scores

    def profile(self, image: Array, runs: int, before: Callable[[], object]) -> list[Kernel]:
        """Nothing: the interpreter tells of no kernels."""
        return []
