"""ONNX Runtime's own format for phones: an .ort file, optimized without anything that only this processor can run."""

from pathlib import Path

import onnxruntime as ort

from slimwright.graph import Net
from slimwright.runtimes import onnxruntime
from slimwright.runtimes.artefact import Array


def export(net: Net, folder: Path, precision: str, images: Array | None) -> list[str]:
    """Write `model.ort`."""
    (name,) = onnxruntime.export(net, folder, precision, images)
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED  # beyond, layouts are this CPU's
    options.add_session_config_entry("session.save_model_format", "ORT")
    options.optimized_model_filepath = str(folder / "model.ort")
    ort.InferenceSession(str(folder / name), options, providers=["CPUExecutionProvider"])
    return ["model.ort"]
