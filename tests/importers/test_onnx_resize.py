"""Upsample, Resize and ConvTranspose in the forms that opsets gave them: as ONNX Runtime computes them."""

from pathlib import Path
from typing import Any

import pytest
import torch
from onnx import helper
from torch import Tensor

from onnx_files import apart, in_onnxruntime, saved
from slimwright.importers.onnx import read_onnx

SHAPE = (1, 2, 5, 6)
LINEAR: dict[str, Any] = {"mode": "linear"}
FLOOR: dict[str, Any] = {"mode": "nearest", "nearest_mode": "floor"}


def reads_like_onnx_runtime(path: Path, shape: tuple[int, ...]) -> bool:
    images = torch.randn(shape, generator=torch.Generator().manual_seed(3))
    return apart(read_onnx(path).run(images)[0], in_onnxruntime(path, images)) < 1e-5


def transformed(base: dict[str, Any], how: str) -> dict[str, Any]:
    return base | {"coordinate_transformation_mode": how}


@pytest.mark.parametrize("opset", [7, 9, 10])
@pytest.mark.parametrize("mode", ["nearest", "linear"])
@pytest.mark.parametrize("scales", [(2.0, 2.0), (1.5, 3.0)])
def test_scales_of_older_opsets(tmp_path: Path, opset: int, mode: str, scales: tuple[float, float]) -> None:
    all_of_them = [1.0, 1.0, *scales]
    reads = ["x"] if opset == 7 else ["x", "s"]
    said: dict[str, Any] = {"scales": all_of_them} if opset == 7 else {}
    node = helper.make_node("Upsample" if opset < 10 else "Resize", reads, ["y"], mode=mode, **said)
    path = saved(
        tmp_path / "m.onnx", [node], SHAPE, {} if opset == 7 else {"s": torch.tensor(all_of_them)}, opset=opset
    )
    assert reads_like_onnx_runtime(path, SHAPE)


RESIZES: dict[str, tuple[int, dict[str, Any], tuple[int, ...], tuple[int, ...]]] = {
    "linear, asymmetric": (13, transformed(LINEAR, "asymmetric"), SHAPE, (10, 13)),
    "linear, asymmetric, smaller": (13, transformed(LINEAR, "asymmetric"), SHAPE, (3, 4)),
    "linear, asymmetric, one axis": (13, transformed(LINEAR, "asymmetric"), SHAPE, (5, 12)),
    "linear, half pixels": (18, transformed(LINEAR, "half_pixel"), SHAPE, (10, 9)),
    "linear, symmetric": (19, transformed(LINEAR, "half_pixel_symmetric"), SHAPE, (10, 9)),
    "nearest, asymmetric": (13, transformed(FLOOR, "asymmetric"), SHAPE, (7, 12)),
    "a row of numbers": (13, transformed(FLOOR, "asymmetric"), (1, 2, 6), (12,)),
    "a row of numbers, linear": (13, transformed(LINEAR, "half_pixel"), (1, 2, 6), (9,)),
    "a volume": (18, transformed(FLOOR, "asymmetric"), (1, 2, 3, 4, 5), (6, 8, 10)),
}


@pytest.mark.parametrize("case", RESIZES)
def test_sizes_of_newer_opsets(tmp_path: Path, case: str) -> None:
    opset, attributes, shape, sizes = RESIZES[case]
    node = helper.make_node("Resize", ["x", "", "", "z"], ["y"], **attributes)
    path = saved(tmp_path / "m.onnx", [node], shape, {"z": torch.tensor([*shape[:2], *sizes])}, opset=opset)
    assert reads_like_onnx_runtime(path, shape)


@pytest.mark.parametrize("attributes", [LINEAR, FLOOR])
@pytest.mark.parametrize("by_size", [False, True])
def test_an_image_with_channels_last(tmp_path: Path, attributes: dict[str, Any], by_size: bool) -> None:
    nodes = [
        helper.make_node("Transpose", ["x"], ["t"], perm=[0, 2, 3, 1]),
        helper.make_node("Resize", ["t", "", *(["", "z"] if by_size else ["z"])], ["r"], **attributes),
        helper.make_node("Transpose", ["r"], ["y"], perm=[0, 3, 1, 2]),
    ]
    wanted = torch.tensor([1, 10, 9, 2]) if by_size else torch.tensor([1, 2.0, 1.5, 1])
    path = saved(tmp_path / "m.onnx", nodes, SHAPE, {"z": wanted}, opset=13)
    assert reads_like_onnx_runtime(path, SHAPE)


TRANSPOSED: dict[str, dict[str, Any]] = {
    "output_padding": {"output_padding": [1, 1], "pads": [1, 1, 1, 1]},
    "uneven pads and output_padding": {"output_padding": [1, 0], "pads": [0, 1, 1, 0]},
    "output_shape": {"output_shape": [9, 13]},
    "output_shape and output_padding": {"output_shape": [10, 13], "output_padding": [1, 1]},
    "same, upper": {"auto_pad": "SAME_UPPER"},
    "same, lower": {"auto_pad": "SAME_LOWER"},
    "dilations": {"dilations": [2, 1], "pads": [1, 0, 1, 0]},
}


@pytest.mark.parametrize("case", TRANSPOSED)
@pytest.mark.parametrize(("groups", "opset"), [(1, 7), (2, 11), (2, 22)])
def test_transposed_convolutions(tmp_path: Path, case: str, groups: int, opset: int) -> None:
    weights: dict[str, Tensor] = {"w": torch.randn(4, 4 // groups, 3, 3), "b": torch.ones(4)}
    node = helper.make_node(
        "ConvTranspose", ["x", "w", "b"], ["y"], group=groups, strides=[2, 2], kernel_shape=[3, 3], **TRANSPOSED[case]
    )
    path = saved(tmp_path / "m.onnx", [node], (1, 4, 5, 6), weights, opset=opset)
    assert reads_like_onnx_runtime(path, (1, 4, 5, 6))  # where nothing of the kernel reaches there is still the bias
