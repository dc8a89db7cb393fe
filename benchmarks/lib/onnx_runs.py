"""Networks and files run in ONNX Runtime on this machine, for the benchmarks."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from slimwright.runner.job import Side
from slimwright.runner.sessions.onnxruntime import Session
from slimwright.runtimes import Artefact
from slimwright.targets import Effort, Local, Measurement, measure
from slimwright.targets.layers import layer_table


def step() -> int:
    """Return the channel step that this machine's ONNX Runtime likes."""
    return layer_table(Local(), "onnxruntime").step()


def onnx_scores(path: Path, images: Tensor) -> Tensor:
    """[N, C, H, W] -> [N, classes], one image at a time, in this process."""
    session = Session([path], Side("", "onnxruntime", "fp32", (path.name,), (tuple(images[:1].shape),)))
    return torch.from_numpy(np.concatenate([session.run([image[None]])[0] for image in images.numpy()]))


def in_turn(paths: Mapping[str, Path], shape: tuple[int, ...], runs: int) -> dict[str, Measurement]:
    """Time models [1, C, H, W] against each other, in one process."""
    return measure(Local(), _artefacts(paths, shape), Effort(runs=runs))


def alone(path: Path, shape: tuple[int, ...]) -> Measurement:
    """Run one model in a fresh process: its memory."""
    return measure(Local(), _artefacts({"": path}, shape), Effort(runs=5))[""]


def _artefacts(paths: Mapping[str, Path], shape: tuple[int, ...]) -> dict[str, Artefact]:
    return {name: Artefact("onnxruntime", "fp32", (path,), (shape,)) for name, path in paths.items()}
