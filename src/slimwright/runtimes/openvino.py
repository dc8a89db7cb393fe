"""OpenVINO: read from the ONNX file; INT8 from its quantize and dequantize operators."""

from pathlib import Path

import openvino

from slimwright.graph import Net
from slimwright.runtimes import onnxruntime
from slimwright.runtimes.artefact import Array


def export(net: Net, folder: Path, precision: str, images: Array | None) -> list[str]:
    """Write `model.xml` and `model.bin`; FP16 stores weights in half precision."""
    (name,) = onnxruntime.export(net, folder, "int8" if precision == "int8" else "fp32", images)
    model = openvino.convert_model(str(folder / name))
    openvino.save_model(model, str(folder / "model.xml"), compress_to_fp16=precision == "fp16")
    return ["model.xml", "model.bin"]
