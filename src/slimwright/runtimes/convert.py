"""Turn a net into an artefact, in a child process that may print, litter, hang or crash without harm."""

import importlib.util
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import Tensor

from slimwright.errors import ConversionError, RequestError
from slimwright.graph import Net, save_net
from slimwright.runtimes.artefact import Artefact, Precision

TIMEOUT_S = 900.0
REQUEST, ANSWER, IMAGES = "request.json", "answer.json", "images.npy"


@dataclass(frozen=True)
class Runtime:
    """What there is to know about a runtime before it is loaded."""

    title: str
    extra: str  # of the package, to install it
    precisions: tuple[Precision, ...]
    needs: tuple[str, ...]  # modules of its converter
    apart: bool = False  # its converter's dependencies clash with ours: it has an environment of its own


RUNTIMES: Mapping[str, Runtime] = {
    "onnxruntime": Runtime("ONNX Runtime (.onnx)", "onnxruntime", ("fp32", "fp16", "int8"), ("onnx", "onnxscript")),
    "ort": Runtime("ONNX Runtime, built for phones (.ort)", "onnxruntime", ("fp32", "int8"), ("onnx", "onnxscript")),
    "ncnn": Runtime("ncnn (.param, .bin)", "ncnn", ("fp32", "fp16", "int8"), ("pnnx", "ncnn")),
    "mnn": Runtime("MNN (.mnn)", "mnn", ("fp32", "fp16", "int8"), ("MNN", "onnx", "onnxscript")),
    "executorch": Runtime("ExecuTorch with XNNPACK (.pte)", "executorch", ("fp32", "int8"), ("executorch",)),
    "litert": Runtime("LiteRT (.tflite)", "litert", ("fp32", "fp16", "int8"), ("litert_torch",), apart=True),
    "openvino": Runtime("OpenVINO (.xml, .bin)", "openvino", ("fp32", "fp16", "int8"), ("openvino", "onnx")),
}


def convert(
    net: Net,
    runtime: str,
    precision: Precision,
    folder: Path,
    *,
    images: Tensor | None = None,
    timeout_s: float = TIMEOUT_S,
) -> Artefact:
    """Write a net's artefact for one runtime into `folder`, its files replaced at once.

    `images` [N, C, H, W] calibrate INT8. Raises RequestError for what the runtime cannot do or where it is not
    installed, and ConversionError, with the converter's own words, where it fails, crashes or takes too long.
    """
    known = of(runtime, precision)
    if precision == "int8" and images is None:
        raise RequestError("INT8 is calibrated on images: name them with --data")
    python = _converter(runtime, known)
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".converting-", dir=folder) as name:
        scratch = Path(name)
        save_net(net, scratch / "net")
        if images is not None:
            np.save(scratch / IMAGES, images.numpy())
        (scratch / REQUEST).write_text(json.dumps({"runtime": runtime, "precision": precision}))
        answer = _answer([*python, "-m", "slimwright.runtimes.child", str(scratch)], scratch, timeout_s)
        if "error" in answer:
            raise ConversionError(f"{known.title}, {precision}: {answer['error']}")
        files = []
        for made in map(Path, answer["files"]):
            files.append(folder / made.name)
            (scratch / made.name).replace(files[-1])
    return Artefact(runtime, precision, tuple(files), net.input.shape)


def of(runtime: str, precision: str = "fp32") -> Runtime:
    """Return a runtime by name. Raises RequestError for one that there is not, or that has no such precision."""
    if runtime not in RUNTIMES:
        raise RequestError(f"there is no runtime '{runtime}'; there is {', '.join(RUNTIMES)}")
    if precision not in RUNTIMES[runtime].precisions:
        has = ", ".join(RUNTIMES[runtime].precisions)
        raise RequestError(f"{RUNTIMES[runtime].title} has no {precision} here; it has {has}")
    return RUNTIMES[runtime]


def installed(runtime: str) -> bool:
    """True where both the runtime and its converter are."""
    try:
        _converter(runtime, RUNTIMES[runtime])
    except RequestError:
        return False
    return True


def converters_home() -> Path:
    """Where environments of converters that clash with ours are looked for."""
    return Path(sys.prefix) / "converters"


def _converter(runtime: str, known: Runtime) -> Sequence[str]:
    """The Python that runs the converter. Raises RequestError, with the command that installs what is missing."""
    if known.apart and importlib.util.find_spec(known.needs[0]) is None:
        home = converters_home() / runtime
        python = home / "bin" / "python"
        if not python.exists():
            raise RequestError(
                f"the converter of {known.title} needs an environment of its own; make it with: "
                f"{sys.executable} -m venv {home} && {python} -m pip install 'slimwright[{runtime}-converter]'"
            )
        return [str(python)]
    missing = [name for name in known.needs if importlib.util.find_spec(name) is None]
    if missing:
        raise RequestError(
            f"{known.title} is not installed ({', '.join(missing)}): pip install 'slimwright[{known.extra}]'"
        )
    return [sys.executable, "-P"]


def _answer(command: Sequence[str], scratch: Path, timeout_s: float) -> dict[str, list[str] | str]:
    """Run a converter's process to its end; what it printed is only told where it failed."""
    log = scratch / "log"
    with log.open("wb") as printed:
        child = subprocess.Popen(command, stdout=printed, stderr=printed, cwd=scratch, start_new_session=True)
        try:
            child.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return {"error": f"the converter was stopped after {timeout_s:g} s"}
        finally:
            if child.poll() is None:
                os.killpg(child.pid, signal.SIGKILL)  # and whatever it started
                child.wait()
    if (scratch / ANSWER).exists():
        found: dict[str, list[str] | str] = json.loads((scratch / ANSWER).read_text())
        return found
    lines = log.read_text(errors="replace").strip().splitlines()
    how = f"was killed by {signal.Signals(-child.returncode).name}" if child.returncode < 0 else "ended early"
    return {"error": f"the converter {how}: {lines[-1] if lines else 'it said nothing'}"}
