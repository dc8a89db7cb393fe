"""What a net gives, and how near an artefact comes to it, where the outputs are scores of classes."""

import platform
from pathlib import Path

import pytest
from torch import Tensor

from slimwright.graph import Net
from slimwright.measure.prove import parity as outputs_parity
from slimwright.measure.records import Parity
from slimwright.tasks import Classification


def net_scores(net: Net, images: Tensor) -> Tensor:
    """The net's own scores: [N, C, H, W] -> [N, classes]."""
    (scores,) = net.run(images)
    return scores


def parity(found: Tensor, expected: Tensor, precision: str) -> Parity:
    """Scores [N, classes] against those expected."""
    return outputs_parity(_task(expected), (found,), (expected,), precision)


def share_right(scores: Tensor, labels: Tensor) -> float:
    """The share, 0 to 1, of images whose label has the largest score."""
    return accuracy(scores, labels) / 100


def accuracy(scores: Tensor, labels: Tensor) -> float:
    """That share in percent."""
    return _task(scores).score((scores,), labels)


def _task(scores: Tensor) -> Classification:
    return Classification(tuple(map(str, range(scores.shape[1]))))


def skip_if_saturating(runtime: str, precision: str) -> None:
    """End the test on x86 without VNNI, where ONNX Runtime adds pairs of products of bytes in 16 bits."""
    info = Path("/proc/cpuinfo")
    old = platform.machine() == "x86_64" and info.exists() and "vnni" not in info.read_text()
    if old and precision == "int8" and runtime in ("onnxruntime", "ort"):
        pytest.skip("on this processor ONNX Runtime's sums of products of bytes saturate")
