"""What there is to know about each runtime before it is loaded: formats, precisions, and what its converter needs."""

import importlib.util
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from slimwright.errors import RequestError
from slimwright.runtimes.artefact import PRECISIONS, Precision


@dataclass(frozen=True)
class Runtime:
    """What there is to know about a runtime before it is loaded."""

    title: str
    extra: str  # of the package, to install it
    precisions: tuple[Precision, ...]
    needs: tuple[str, ...]  # modules of its converter
    weight_bits: tuple[int, ...] = ()  # that its files hold, and are computed in float
    apart: bool = False  # its converter's dependencies clash with ours: it has an environment of its own
    varies: str = ""  # what differs between two conversions of one net; "" where they give the same bytes


RUNTIMES: Mapping[str, Runtime] = {
    "onnxruntime": Runtime(
        "ONNX Runtime (.onnx)",
        "onnxruntime",
        ("fp32", "fp16", "int8"),
        ("onnx", "onnxscript"),
        weight_bits=(8, 4, 2),
    ),
    "ort": Runtime(
        "ONNX Runtime, built for phones (.ort)",
        "onnxruntime",
        ("fp32", "int8"),
        ("onnx", "onnxscript"),
        varies="the order of its kernels' types in the file",  # a hash table's (1.31.1, 2026-11-29)
    ),
    "ncnn": Runtime("ncnn (.param, .bin)", "ncnn", ("fp32", "fp16", "int8"), ("pnnx", "ncnn")),
    "mnn": Runtime("MNN (.mnn)", "mnn", ("fp32", "fp16", "int8"), ("MNN", "onnx", "onnxscript")),
    "executorch": Runtime("ExecuTorch with XNNPACK (.pte)", "executorch", ("fp32", "int8"), ("executorch",)),
    "litert": Runtime("LiteRT (.tflite)", "litert", ("fp32", "fp16", "int8"), ("litert_torch",), apart=True),
    "openvino": Runtime("OpenVINO (.xml, .bin)", "openvino", ("fp32", "fp16", "int8"), ("openvino", "onnx")),
}


def of(runtime: str, precision: str = "fp32") -> Runtime:
    """Return a runtime by name. Raises RequestError for one that there is not, or that has no such precision."""
    if runtime not in RUNTIMES:
        raise RequestError(f"there is no runtime '{runtime}'; there is {', '.join(RUNTIMES)}")
    if precision not in RUNTIMES[runtime].precisions:
        has = ", ".join(RUNTIMES[runtime].precisions)
        raise RequestError(f"{RUNTIMES[runtime].title} has no {precision} here; it has {has}")
    return RUNTIMES[runtime]


def pairs(runtimes: Sequence[str], precisions: Sequence[str]) -> list[tuple[str, Precision]]:
    """Return every pair of them, each once; of several, what a runtime does not have is left out.

    Raises RequestError for a runtime or a precision that there is not, and where nothing is left.
    """
    for precision in precisions:
        if precision not in PRECISIONS:
            raise RequestError(f"there is no precision '{precision}'; there is {', '.join(PRECISIONS)}")
    names = list(dict.fromkeys(runtimes))
    asked = dict.fromkeys(precisions)
    found = [(name, precision) for name in names for precision in of(name).precisions if precision in asked]
    if not found:
        of(names[0] if names else "", precisions[0])
    return found


def installed(runtime: str) -> bool:
    """True where both the runtime and its converter are."""
    try:
        converter_python(runtime)
    except RequestError:
        return False
    return True


def converters_home() -> Path:
    """Where environments of converters that clash with ours are looked for."""
    return Path(sys.prefix) / "converters"


def converter_python(runtime: str) -> Sequence[str]:
    """The Python that runs the converter. Raises RequestError, with the command that installs what is missing."""
    known = of(runtime)
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
