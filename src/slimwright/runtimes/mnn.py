"""MNN: converted from the ONNX file by its own converter.

FP16 stores weights in half precision. INT8 stores them in eight bits, a scale for each output channel; activations are
quantized as they come where the processor has kernels for it, and stay in float elsewhere.
"""

import subprocess
import sys
from pathlib import Path

from slimwright.graph import Net
from slimwright.runtimes import onnxruntime
from slimwright.runtimes.artefact import Array

OPTIONS = {"fp32": [], "fp16": ["--fp16"], "int8": ["--weightQuantBits", "8"]}


def export(net: Net, folder: Path, precision: str, images: Array | None) -> list[str]:
    """Write `model.mnn`."""
    (name,) = onnxruntime.export(net, folder, "fp32", None)
    command = [sys.executable, "-P", "-m", "MNN.tools.mnnconvert", "-f", "ONNX", "--bizCode", "MNN"]
    command += ["--modelFile", name, "--MNNModel", "model.mnn", *OPTIONS[precision]]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if not (folder / "model.mnn").exists():
        raise RuntimeError((done.stdout + done.stderr).strip().splitlines()[-1])
    return ["model.mnn"]
