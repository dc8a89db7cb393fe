"""OpenVINO: read from the ONNX file; INT8 from its quantize and dequantize operators."""

from pathlib import Path

import openvino

from slimwright.graph import Net
from slimwright.runtimes import onnxruntime
from slimwright.runtimes.artefact import Array


def export(net: Net, folder: Path, precision: str, images: Array | None) -> list[str]:
    """Write `model.xml` and `model.bin`; FP16 stores weights in half precision."""
    (name,) = onnxruntime.export(net, folder, "int8" if precision == "int8" else "fp32", images)
    return [path.name for path in converted(folder / name, folder, half=precision == "fp16")]


def converted(path: Path, folder: Path, *, half: bool = False) -> list[Path]:
    """Write the model of an ONNX file, its weights stored in half precision if they are to be."""
    openvino.save_model(openvino.convert_model(str(path)), str(folder / "model.xml"), compress_to_fp16=half)
    return [folder / "model.xml", folder / "model.bin"]
