"""ONNX Runtime on this machine's CPU, one thread: export, quantize, run, time, profile.

FP32 models come from `torch.onnx`, INT8 ones from ONNX Runtime's own static quantizer (per-channel weights,
activations calibrated on given images, QDQ format).
"""

import json
import logging
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import torch
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process
from onnxruntime.transformers.float16 import convert_float_to_float16
from torch import Tensor

from slimwright.cost.latency import LayerShape
from slimwright.errors import ModelError, ProofError
from slimwright.graph.net import Net
from slimwright.graph.spelled import with_attention_spelled_out
from slimwright.runner.timing import Latency, interleaved
from slimwright.runtimes.artefact import Array

NAME = "onnxruntime"
VERSION: str = ort.__version__
OPSET = 18
INPUT, OUTPUT = "image", "scores"


class Session:
    """An ONNX model ready to run on one thread."""

    def __init__(self, path: Path, *, profile_prefix: str | None = None) -> None:
        options = _options()
        if profile_prefix:
            options.enable_profiling, options.profile_file_prefix = True, profile_prefix
        try:
            self._session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # ONNX Runtime's errors share no base class
            raise ModelError(f"ONNX Runtime cannot load {path}: {str(error).splitlines()[0]}") from error
        (self._input,) = (entry.name for entry in self._session.get_inputs())
        self.shape = tuple(self._session.get_inputs()[0].shape)

    def run(self, image: Array) -> Array:
        """[1, C, H, W] -> class scores [1, classes]."""
        scores: Array = self._session.run(None, {self._input: image})[0]
        return scores

    def scores(self, images: Tensor) -> Tensor:
        """[N, C, H, W] -> [N, classes], one image at a time, as a device would."""
        return torch.from_numpy(np.concatenate([self.run(image[None]) for image in images.numpy()]))

    def end_profile(self) -> Path:
        """Stop profiling and return the file that holds the events."""
        return Path(self._session.end_profiling())


def export(net: Net, folder: Path, precision: str, images: Array | None) -> list[str]:
    """Write `model.onnx`; FP16 computes in half precision where the processor has kernels for it."""
    path = folder / "model.onnx"
    write_onnx(net, path)
    if precision == "int8":
        assert images is not None
        quantize(path, folder / "model-int8.onnx", torch.from_numpy(images))
        (folder / "model-int8.onnx").replace(path)
    elif precision == "fp16":
        onnx.save(convert_float_to_float16(onnx.load(path), keep_io_types=True), path)
    return [path.name]


def write_onnx(net: Net, path: Path) -> None:
    """Write a net as an FP32 ONNX model for one image. Raises ProofError where the exporter fails."""
    module, example = with_attention_spelled_out(net).to_module(), torch.zeros(net.input.shape)
    try:
        with _quiet():
            program = torch.onnx.export(
                module, (example,), dynamo=True, opset_version=OPSET, verbose=False,
                input_names=[INPUT], output_names=[OUTPUT],
            )  # fmt: skip
    except Exception as error:  # torch.onnx raises errors of many unrelated kinds
        raise ProofError(f"torch.onnx cannot export the net: {_first_cause(error)}") from error
    assert program is not None
    program.save(str(path), external_data=False)


def quantize(fp32: Path, path: Path, images: Tensor) -> None:
    """Write the INT8 model of an FP32 one, activations calibrated on `images` [N, C, H, W]."""
    with tempfile.TemporaryDirectory() as folder, _quiet():
        prepared = Path(folder) / "prepared.onnx"
        quant_pre_process(str(fp32), str(prepared), skip_symbolic_shape=True)
        quantize_static(
            str(prepared), str(path), _Reader(images), quant_format=QuantFormat.QDQ, per_channel=True,
            activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8,
        )  # fmt: skip


def time_models(paths: Mapping[str, Path], *, runs: int = 60, least_s: float = 0.0) -> dict[str, Latency]:
    """Time several models against each other, interleaved, on one thread; median, p10 and p90 of a run."""
    sessions = {name: Session(path) for name, path in paths.items()}
    rng = np.random.default_rng(0)
    images = {name: rng.standard_normal(s.shape, dtype=np.float32) for name, s in sessions.items()}
    return interleaved(
        {name: (lambda s=session, x=images[name]: s.run(x)) for name, session in sessions.items()},  # type: ignore[misc]
        runs=runs,
        least_s=least_s,
    )


def peak_rss_bytes(path: Path | None, runs: int = 5) -> int:
    """Return the peak resident memory of a fresh process that runs the model, or of the empty runtime."""
    probe = Path(__file__).with_name("rss_probe.py")
    command = [sys.executable, "-P", str(probe), *([str(path), str(runs)] if path else [])]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    if done.returncode:
        raise ProofError(
            f"a fresh process could not run {path}: {(done.stderr.strip() or 'no message').splitlines()[-1]}"
        )
    return int(json.loads(done.stdout)["peak_rss_bytes"])


def time_layer(shape: LayerShape, runs: int = 40) -> float:
    """Return one layer's kernel time in milliseconds, from the runtime's own profiler: the mean of the fastest quarter.

    Kernels cannot be interleaved with what they are compared to, and whatever else runs only ever slows them down.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "layer.onnx"
        onnx.save(_layer_model(shape), str(path))
        session = Session(path, profile_prefix=str(Path(folder) / "profile"))
        image = np.random.default_rng(0).standard_normal(session.shape, dtype=np.float32)
        for _ in range(runs):
            session.run(image)
        taken = [t for op, t in _kernels(session.end_profile()) if op in KERNELS]
    per_run = np.sort(np.reshape(taken, (runs, -1)).sum(axis=1))
    return float(per_run[: -(-runs // 4)].mean()) * 1e-3


def time_by_op(path: Path, runs: int = 40) -> dict[str, float]:
    """Return the mean milliseconds per run that a model spends in each kind of kernel."""
    total: dict[str, float] = {}
    for op, microseconds in _profiled(path, runs):
        total[op] = total.get(op, 0.0) + microseconds * 1e-3 / runs
    return total


def typical_by_op(path: Path, runs: int = 30) -> dict[str, float]:
    """Return the milliseconds that a model typically spends in each kind of kernel: each kernel's median over the runs.

    Where whatever else runs interrupts a kernel, the mean would give all of that time to one kind.
    """
    taken = _profiled(path, runs)
    each = len(taken) // runs
    medians = np.median(np.reshape([microseconds for _, microseconds in taken], (runs, each)), axis=0)
    total: dict[str, float] = {}
    for (op, _), microseconds in zip(taken[:each], medians, strict=True):
        total[op] = total.get(op, 0.0) + float(microseconds) * 1e-3
    return total


def _profiled(path: Path, runs: int) -> list[tuple[str, float]]:
    """Kind of kernel and microseconds, for every kernel of every run."""
    with tempfile.TemporaryDirectory() as folder:
        session = Session(path, profile_prefix=str(Path(folder) / "profile"))
        image = np.random.default_rng(0).standard_normal(session.shape, dtype=np.float32)
        for _ in range(runs):
            session.run(image)
        return list(_kernels(session.end_profile()))


KERNELS = {"Conv", "FusedConv", "Gemm", "FusedGemm", "MatMul"}  # not the layout changes around them


def _layer_model(shape: LayerShape) -> onnx.ModelProto:
    """One layer with a ReLU behind it, as ONNX."""
    rng = np.random.default_rng(0)
    if shape.op == "linear":
        weight = rng.standard_normal((shape.out_channels, shape.in_channels), dtype=np.float32) * 0.1
        size: list[int] = [1, shape.in_channels]
        layer = helper.make_node("Gemm", ["x", "w", "b"], ["y"], transB=1)
    else:
        per_group = shape.in_channels // shape.groups
        weight = rng.standard_normal((shape.out_channels, per_group, *shape.kernel), dtype=np.float32) * 0.1
        size = [1, shape.in_channels, *shape.input_size]
        layer = helper.make_node(
            "Conv", ["x", "w", "b"], ["y"], kernel_shape=list(shape.kernel), strides=list(shape.stride),
            pads=[*shape.padding, *shape.padding], dilations=list(shape.dilation), group=shape.groups,
        )  # fmt: skip
    weights = [
        numpy_helper.from_array(weight, "w"),
        numpy_helper.from_array(np.zeros(shape.out_channels, np.float32), "b"),
    ]
    graph = helper.make_graph(
        [layer, helper.make_node("Relu", ["y"], ["z"])], "layer",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, size)],
        [helper.make_tensor_value_info("z", TensorProto.FLOAT, None)], weights,
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=10)


def _kernels(profile: Path) -> Iterator[tuple[str, float]]:
    """Kind of kernel and microseconds, for every kernel event of a profile."""
    for event in json.loads(profile.read_text()):
        if event["name"].endswith("_kernel_time"):
            yield event["args"]["op_name"], float(event["dur"])


def _first_cause(error: BaseException) -> str:
    """What went wrong first, in one line: the exporter wraps it in advice on how to report it."""
    while error.__cause__ is not None:
        error = error.__cause__
    return (str(error).splitlines() or [type(error).__name__])[0]


def _options() -> Any:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return options


class _Reader(CalibrationDataReader):  # type: ignore[misc]
    """Feeds images to the quantizer one at a time."""

    def __init__(self, images: Tensor) -> None:
        self._images = iter(images.numpy())

    def get_next(self) -> dict[str, Array] | None:
        image = next(self._images, None)
        return None if image is None else {INPUT: image[None]}


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the exporters' remarks about packages that are not installed."""
    loggers = [
        logging.getLogger(name) for name in ("torch.onnx", "torch.onnx._internal.exporter._registration", "root")
    ]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)
