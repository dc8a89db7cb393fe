"""ONNX Runtime: an .onnx file.

FP32 models come from `torch.onnx`, INT8 ones from ONNX Runtime's own static quantizer (per-channel weights,
activations calibrated on given images, QDQ format).
"""

import logging
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import onnx
import torch
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process
from onnxruntime.transformers.float16 import convert_float_to_float16
from torch import Tensor

from slimwright.errors import ProofError
from slimwright.graph.net import Net
from slimwright.lowering.decompositions import with_attention_spelled_out
from slimwright.runtimes.artefact import Array

OPSET = 18
INPUT, OUTPUT = "image", "scores"


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


def _first_cause(error: BaseException) -> str:
    """What went wrong first, in one line: the exporter wraps it in advice on how to report it."""
    while error.__cause__ is not None:
        error = error.__cause__
    return (str(error).splitlines() or [type(error).__name__])[0]


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
