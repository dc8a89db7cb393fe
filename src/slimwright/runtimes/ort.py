"""ONNX Runtime's own format for phones: an .ort file, optimized without anything that only this processor can run."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import onnxruntime as ort

from slimwright.graph import Net
from slimwright.runtimes import onnxruntime
from slimwright.runtimes.artefact import Array, Written


def export(net: Net, folder: Path, precision: str, calibration: Sequence[Array] | None) -> Written:
    """Write `model.ort`."""
    written = onnxruntime.export(net, folder, precision, calibration)
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED  # beyond, layouts are this CPU's
    options.add_session_config_entry("session.save_model_format", "ORT")
    options.optimized_model_filepath = str(folder / "model.ort")
    ort.InferenceSession(str(folder / written.files[0]), options, providers=["CPUExecutionProvider"])
    return replace(written, files=("model.ort",))
