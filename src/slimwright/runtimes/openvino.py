"""OpenVINO: read from the ONNX file; INT8 from its quantize and dequantize operators."""

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

# Its package reports its use to its maker, unless what sends the reports cannot be found. This is a child process.
sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]

import openvino

from slimwright.graph import Net
from slimwright.runtimes import onnxruntime
from slimwright.runtimes.artefact import Array, Written
from slimwright.runtimes.onnxruntime import with_names_alone


def export(net: Net, folder: Path, precision: str, calibration: Sequence[Array] | None) -> Written:
    """Write `model.xml` and `model.bin`; FP16 stores weights in half precision."""
    written = onnxruntime.export(with_names_alone(net), folder, "int8" if precision == "int8" else "fp32", calibration)
    made = converted(folder / written.files[0], folder, half=precision == "fp16")
    return replace(written, files=tuple(path.name for path in made))


def converted(path: Path, folder: Path, *, half: bool = False) -> list[Path]:
    """Write the model of an ONNX file, its weights stored in half precision if they are to be."""
    openvino.save_model(openvino.convert_model(str(path)), str(folder / "model.xml"), compress_to_fp16=half)
    return [folder / "model.xml", folder / "model.bin"]
