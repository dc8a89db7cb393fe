"""ncnn on the CPU: a .param and a .bin file.

FP32 computes in float32 everywhere; ncnn would otherwise take half precision by itself on ARM. FP16 stores and, where
the processor can, computes in half precision. INT8 layers are marked in the .param file.
"""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import ncnn
import numpy as np

from slimwright.runner.job import Side
from slimwright.runner.sessions.session import Array, Kernel
from slimwright.runner.timing import undisturbed

BETWEEN_MS = 0.0004  # by which pruned networks exceed what their layers take, for each layer


class Session:
    """Two files: .param, .bin."""

    planned_bytes = None

    def __init__(self, files: Sequence[Path], side: Side) -> None:
        self._files, self._side = files, side
        self._net = self._loaded(light=True)
        self._layers = _layers(files[0])
        self._inputs = side.inputs or tuple(made[0] for _, kind, made in self._layers if kind == "Input")
        self._outputs = side.outputs or (self._layers[-1][2][0],)

    def run(self, inputs: Sequence[Array]) -> Sequence[Array]:
        """Return each output, from each input."""
        extractor = self._net.create_extractor()
        self._give(extractor, inputs)
        found = []
        for k, name in enumerate(self._outputs):
            code, output = extractor.extract(name)
            if code:
                raise RuntimeError(f"ncnn gives code {code} for {name}")
            shape = self._side.output_shapes[k] if self._side.output_shapes else (1, -1)
            found.append(np.array(output).reshape(shape))  # some networks keep the batch, others lose it
        return found

    def _give(self, extractor: Any, inputs: Sequence[Array]) -> None:
        for name, given in zip(self._inputs, inputs, strict=True):
            extractor.input(name, _owned(given))

    def profile(self, inputs: Sequence[Array], runs: int, before: Callable[[], object]) -> list[Kernel]:
        """Each layer's time: every layer's value is asked for in turn, so each has just its own work left.

        Asking again for a value that is there takes what asking itself takes, which is subtracted: what it takes where
        nothing disturbs it, or runs in which asking again was disturbed would count as the fastest. What it takes to
        get from layer to layer is not in that, and added.
        """
        net = self._loaded(light=False)
        taken: list[list[float]] = [[] for _ in self._layers]
        asked: list[list[float]] = [[] for _ in self._layers]
        for _ in range(runs):
            before()
            extractor = net.create_extractor()
            self._give(extractor, inputs)
            for spent, asking, (_, _, blobs) in zip(taken, asked, self._layers, strict=True):
                began = time.perf_counter()
                if extractor.extract(blobs[0], 1)[0]:
                    raise RuntimeError(f"ncnn cannot compute {blobs[0]}")
                done = time.perf_counter()
                extractor.extract(blobs[0], 1)
                spent.append((done - began) * 1e3)
                asking.append((time.perf_counter() - done) * 1e3)
        return [
            Kernel(name, kind, max(undisturbed(spent) - undisturbed(asking), 0.0) + BETWEEN_MS)
            for (name, kind, _), spent, asking in zip(self._layers, taken, asked, strict=True)
            if kind != "Input"
        ]

    def _loaded(self, *, light: bool) -> Any:
        net = ncnn.Net()
        net.opt.num_threads = self._side.threads
        net.opt.lightmode = light
        half = self._side.precision == "fp16"
        net.opt.use_fp16_packed = net.opt.use_fp16_storage = net.opt.use_fp16_arithmetic = half
        if net.load_param(str(self._files[0])) or net.load_model(str(self._files[1])):
            raise RuntimeError("the .param or .bin file is not one that ncnn can read")
        return net


def _owned(given: Array) -> Any:
    """A copy, without the batch: ncnn crashes where a first layer works in place on memory that it does not own."""
    return ncnn.Mat(np.ascontiguousarray(given[0] if given.ndim > 1 else given)).clone()


def _layers(param: Path) -> list[tuple[str, str, list[str]]]:
    """Name, type and output blobs of every layer, from the text of a .param file."""
    found = []
    for line in param.read_text().splitlines()[2:]:
        words = line.split()
        if len(words) >= 4:
            inputs, outputs = int(words[2]), int(words[3])
            found.append((words[1], words[0], words[4 + inputs : 4 + inputs + outputs]))
    return found
