"""Single layers made without a converter: each computes what the same layer does in torch."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from layer_outputs import Floats, outputs
from slimwright.cost.latency import LayerShape
from slimwright.errors import RequestError
from slimwright.runtimes.known import RUNTIMES, installed
from slimwright.runtimes.layers import TIMED, layer_artefact

SIZE = (9, 11)
CONVS = {
    "pointwise": LayerShape("conv2d", 8, 12, input_size=SIZE),
    "3x3": LayerShape("conv2d", 8, 5, (3, 3), padding=(1, 1), input_size=SIZE),
    "strided": LayerShape("conv2d", 8, 6, (3, 5), (2, 1), (1, 2), input_size=SIZE),
    "dilated": LayerShape("conv2d", 8, 7, (1, 3), (1, 2), (0, 1), (1, 2), input_size=SIZE),
    "depthwise": LayerShape("conv2d", 8, 8, (3, 3), (2, 2), (1, 1), groups=8, input_size=SIZE),
    "multiplied": LayerShape("conv2d", 8, 16, (3, 3), padding=(0, 1), groups=8, input_size=SIZE),
    "grouped": LayerShape("conv2d", 8, 4, (3, 3), padding=(1, 1), groups=2, input_size=SIZE),
}
LINEAR = LayerShape("linear", 24, 10)
ACTIVATIONS = ("none", "relu", "relu6")
SOME = ("strided", "depthwise")  # where a converter makes each layer


def weights_of(files: Sequence[Path], shape: LayerShape, runtime: str) -> torch.Tensor:
    """The weight that a layer was written with."""
    sizes = [shape.out_channels, shape.in_channels // shape.groups]
    sizes += [] if shape.op == "linear" else shape.kernel
    if runtime == "ncnn":
        held = np.frombuffer(files[1].read_bytes(), "<f4", int(np.prod(sizes)), 4)
    else:
        import onnx

        graph = onnx.load(files[0].parent / "layer.onnx").graph
        held = onnx.numpy_helper.to_array(next(one for one in graph.initializer if one.name == "w"))
    return torch.from_numpy(np.array(held)).reshape(sizes)


def computed(shape: LayerShape, weight: torch.Tensor, image: Floats) -> Floats:
    """The same layer in torch."""
    value = torch.from_numpy(image).relu()  # the layer stands behind a ReLU
    if shape.op == "linear":
        value = F.linear(value, weight)
    else:
        value = F.conv2d(value, weight, None, shape.stride, shape.padding, shape.dilation, shape.groups)
    value = {"none": value, "relu": value.relu(), "relu6": value.clamp(0, 6)}[shape.activation]
    return value.reshape(-1).numpy()


def with_activations(shapes: Iterable[LayerShape]) -> list[LayerShape]:
    return [replace(shape, activation=activation) for shape in shapes for activation in ACTIVATIONS]


@pytest.mark.parametrize("runtime", TIMED)
def test_a_layer_computes_what_it_does_in_torch(runtime: str, tmp_path: Path) -> None:
    if not installed(runtime):
        pytest.skip(f"{RUNTIMES[runtime].title} is not installed")
    convs = [CONVS[name] for name in SOME] if runtime in ("mnn", "openvino") else CONVS.values()
    shapes = with_activations([LINEAR, *convs])
    made = [layer_artefact(shape, runtime, tmp_path / str(k)) for k, shape in enumerate(shapes)]
    images = [40 * np.random.default_rng(1).standard_normal(one.shapes[0], dtype=np.float32) for one in made]
    found = outputs(list(zip(made, images, strict=True)))
    for shape, artefact, image, values in zip(shapes, made, images, found, strict=True):
        expected = computed(shape, weights_of(artefact.files, shape, runtime), image)
        assert values.shape == expected.shape, shape
        assert np.abs(values - expected).max() <= 1e-4 * np.abs(expected).max(), shape
        below, above = expected.min() < 0, expected.max() > 6  # so that each activation shows
        assert (below, above) == (shape.activation == "none", shape.activation != "relu6"), shape
        assert (artefact.runtime, artefact.precision) == (runtime, "fp32")


@pytest.mark.parametrize("runtime", [*sorted(set(RUNTIMES) - set(TIMED)), "abacus"])
def test_runtimes_without_a_profiler_are_refused_with_those_that_have_one(runtime: str, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=rf"cannot be timed in {runtime}; they can in onnxruntime, .*ncnn"):
        layer_artefact(LINEAR, runtime, tmp_path / "layer")
    assert list(tmp_path.iterdir()) == []


def test_the_same_shape_gives_the_same_bytes(tmp_path: Path) -> None:
    first, second = (layer_artefact(CONVS["3x3"], "ncnn", tmp_path / name) for name in ("a", "b"))
    assert [path.read_bytes() for path in first.files] == [path.read_bytes() for path in second.files]
    assert (first.shapes, layer_artefact(LINEAR, "ncnn", tmp_path / "c").shapes) == (((1, 8, *SIZE),), ((1, 24),))
