"""MNN: converted from the ONNX file by its own converter.

FP16 stores weights in half precision. INT8 stores them in eight bits, a scale for each output channel; activations are
quantized as they come where the processor has kernels for it, and stay in float elsewhere.

The converter gives each file a number by chance. Here the number follows from the rest of the file, so that the same
net gives the same bytes.
"""

import hashlib
import re
import struct
import subprocess
import sys
import uuid
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import MNN
import onnx

from slimwright.graph import Net
from slimwright.lowering.steps import with_steps_for_weights
from slimwright.runtimes import onnxruntime
from slimwright.runtimes.artefact import Array, Written
from slimwright.runtimes.onnxruntime import with_names_alone

# The converter itself: MNN.tools around it would install a package that reports every conversion to its maker.
CONVERT = "import sys, _tools; _tools.mnnconvert(sys.argv)"
LEAST_STEP = 2e-6  # of weights in INT8: those of steps below 1e-6 come out wrong (3.6.1, 2026-12-01)
NUMBER_FIELD = 11  # mnn_uuid among the fields of the table Net (schema/default/MNN.fbs)
NUMBER = re.compile(rb"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
OPTIONS = {"fp32": [], "fp16": ["--fp16"], "int8": ["--weightQuantBits", "8"]}


def export(net: Net, folder: Path, precision: str, calibration: Sequence[Array] | None) -> Written:
    """Write `model.mnn`."""
    if net.float_layers:
        raise RuntimeError("single layers cannot stay in float in MNN here; quantize all of them, or none")
    if precision == "int8":
        net = with_steps_for_weights(net, LEAST_STEP)
    written = onnxruntime.export(with_names_alone(net), folder, "fp32", None)
    path = folder / written.files[0]
    onnx.save(with_outputs_apart(onnx.load(path)), path)
    made = converted(path, folder, precision)
    try:
        MNN.nn.load_module_from_file(str(made), list(written.inputs), list(written.outputs))
    except SystemError as error:
        raise RuntimeError(f"MNN's converter lost one of the outputs {', '.join(written.outputs)}") from error
    made.write_bytes(with_number_of_content(made.read_bytes()))
    return replace(written, files=(made.name,))


def with_outputs_apart(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a model whose outputs nothing inside reads.

    MNN's converter may merge the layer that makes such a value into another, under its name (3.6.1, 2026-11-28).
    """
    graph = model.graph
    inner = {name: f"{name}_inner" for node in graph.node for name in node.input}
    apart = [output.name for output in graph.output if output.name in inner]
    for node in graph.node:
        for names in (node.input, node.output):
            names[:] = [inner[name] if name in apart else name for name in names]
    graph.node.extend(onnx.helper.make_node("Identity", [inner[name]], [name]) for name in apart)
    return model


def converted(path: Path, folder: Path, precision: str = "fp32") -> Path:
    """Write the model of an ONNX file. Raises RuntimeError with the converter's last words."""
    command = [sys.executable, "-P", "-c", CONVERT, "-f", "ONNX", "--bizCode", "MNN"]
    command += ["--modelFile", str(path), "--MNNModel", "model.mnn", *OPTIONS[precision]]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if not (folder / "model.mnn").exists():
        raise RuntimeError((done.stdout + done.stderr).strip().splitlines()[-1])
    return folder / "model.mnn"


def with_number_of_content(model: bytes) -> bytes:
    """Return a .mnn file whose number follows from its other bytes; one that has no number as it is.

    The file is a FlatBuffer: its first four bytes lead to a table, whose own first four lead back to where its fields
    are listed.
    """
    (table,) = struct.unpack_from("<I", model)
    (back,) = struct.unpack_from("<i", model, table)
    (listed,) = struct.unpack_from("<H", model, table - back)  # bytes of the list
    entry = 4 + 2 * NUMBER_FIELD
    field = struct.unpack_from("<H", model, table - back + entry)[0] if entry < listed else 0
    if not field:
        return model
    text = table + field + struct.unpack_from("<I", model, table + field)[0] + 4  # after its length
    found = NUMBER.match(model, text)
    if found is None:
        return model
    blank = model[:text] + bytes(len(found[0])) + model[found.end() :]
    number = uuid.uuid5(uuid.NAMESPACE_OID, hashlib.sha256(blank).hexdigest())
    return model[:text] + str(number).encode() + model[found.end() :]
