"""INT8 for ncnn, byte by byte: files of one or two layers written by hand, quantized, and read by hand."""

import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

pytest.importorskip("ncnn", reason="ncnn is not installed")

from slimwright.runtimes.ncnn_int8 import LEAST_CLIP, best_clip, quantize
from slimwright.runtimes.ncnn_layers import INT8, read_layers

Floats = NDArray[np.float32]
FLOAT32 = bytes(4)
WEIGHT = np.array([[0.5, -1.0, 0.25], [4.0, 2.0, -0.1]], "<f4")
BIAS = np.array([0.75, -3.0], "<f4")
LINEAR = "InnerProduct fc 1 1 in0 out0 0=2 1=1 2=6"


def in_bytes(*values: float) -> bytes:
    return np.array(values, "<f4").tobytes()


def files(folder: Path, layers: list[str], data: bytes) -> tuple[Path, Path]:
    """A network of layers one after the other, behind its input."""
    param, weights = folder / "model.param", folder / "model.bin"
    lines = ["Input in0 0 1 in0", *layers]
    param.write_text("\n".join(["7767517", f"{len(lines)} {len(lines)}", *lines]) + "\n")
    weights.write_bytes(data)
    return param, weights


def params(param: Path, name: str) -> dict[str, str]:
    """What follows a layer's blobs in a .param file."""
    (line,) = (line for line in param.read_text().splitlines()[2:] if line.split()[1] == name)
    return dict(word.split("=") for word in line.split() if "=" in word)


def two_valued(count: int, *shape: int) -> Floats:
    """Images of nothing but 2 and -2: whatever is clipped is lost, so the whole range is kept."""
    return np.where(np.random.default_rng(0).random((count, *shape)) < 0.5, -2, 2).astype(np.float32)


def test_the_bytes_of_a_linear_layer(tmp_path: Path) -> None:
    param, weights = files(tmp_path, [LINEAR], FLOAT32 + WEIGHT.tobytes() + BIAS.tobytes())
    quantize(param, weights, {"in0": two_valued(4, 3)})
    assert params(param, "fc") == {"0": "2", "1": "1", "2": "6", "8": "2"}
    steps = [64, -127, 32, 127, 64, -3]  # 0.5, -1, 0.25 in 127ths of 1; 4, 2, -0.1 in 127ths of 4: 63.5 is even: 64
    expected = struct.pack("<I6b2x", 0x000D4B38, *steps) + in_bytes(0.75, -3.0) + in_bytes(127.0, 31.75)
    assert weights.read_bytes()[:-4] == expected
    assert struct.unpack("<f", weights.read_bytes()[-4:])[0] == pytest.approx(127 / 2)


def test_the_bytes_of_a_convolution_without_a_bias(tmp_path: Path) -> None:
    weight = np.array([[1, 0, 0, -0.5, 0, 0, 0, 0, 0], [0] * 9], "<f4")  # the second filter is empty
    line = "Convolution conv 1 1 in0 out0 0=2 1=3 4=1 5=0 6=18 9=1"
    param, weights = files(tmp_path, [line], FLOAT32 + weight.tobytes())
    quantize(param, weights, {"in0": two_valued(2, 1, 3, 3)})
    assert params(param, "conv") == {"0": "2", "1": "3", "4": "1", "5": "0", "6": "18", "9": "1", "8": "2"}
    expected = struct.pack("<I18b2x", INT8, 127, 0, 0, -64, *[0] * 14) + in_bytes(127.0, 1.0, 127 / 2)
    assert weights.read_bytes() == expected


def test_a_depthwise_convolution_is_marked_with_scales_of_its_own_kind(tmp_path: Path) -> None:
    line = "ConvolutionDepthWise conv 1 1 in0 out0 0=3 1=1 5=1 6=3 7=3"
    param, weights = files(tmp_path, [line], FLOAT32 + in_bytes(2, -1, 8) + in_bytes(1, 2, 3))
    quantize(param, weights, {"in0": two_valued(2, 3, 2, 2)})
    assert params(param, "conv")["8"] == "1"
    expected = struct.pack("<I3bx", INT8, 127, -127, 127) + in_bytes(1, 2, 3, 63.5, 127, 127 / 8, 127 / 2)
    assert weights.read_bytes() == expected


def test_groups_of_several_channels_stay_as_they_were(tmp_path: Path) -> None:
    line = "ConvolutionDepthWise conv 1 1 in0 mid 0=4 1=1 5=0 6=8 7=2"
    grouped = FLOAT32 + in_bytes(1, 2, 3, 4, 5, 6, 7, 8)
    linear = "InnerProduct fc 1 1 flat out0 0=1 1=0 2=16"
    param, weights = files(tmp_path, [line, "Reshape flat 1 1 mid flat 0=-1", linear], grouped + FLOAT32 + bytes(64))
    quantize(param, weights, {"in0": two_valued(2, 4, 2, 2)})
    assert "8" not in params(param, "conv") and params(param, "fc")["8"] == "2"
    assert weights.read_bytes()[: len(grouped)] == grouped
    assert weights.read_bytes()[len(grouped) :][:4] == struct.pack("<I", INT8)


def test_layers_that_stay_in_float32_keep_their_bytes_and_their_place(tmp_path: Path) -> None:
    norm = in_bytes(1, 1, 1, 0, 0, 0, 1, 1, 1, 0, 0, 0)  # slope, mean, variance and bias of three channels
    slopes = in_bytes(0.1, 0.2, 0.3)
    linear = "InnerProduct fc 1 1 b out0 0=2 1=1 2=6"
    layers = ["BatchNorm norm 1 1 in0 a 0=3", "PReLU prelu 1 1 a b 0=3", linear]
    param, weights = files(tmp_path, layers, norm + slopes + FLOAT32 + WEIGHT.tobytes() + BIAS.tobytes())
    quantize(param, weights, {"in0": two_valued(2, 3)})
    assert weights.read_bytes().startswith(norm + slopes + struct.pack("<I", INT8))
    assert params(param, "norm") == params(param, "prelu") == {"0": "3"}


@pytest.mark.parametrize(
    "data",
    [
        b"",
        (FLOAT32 + WEIGHT.tobytes() + BIAS.tobytes())[:-1],
        FLOAT32 + WEIGHT.tobytes() + BIAS.tobytes() + b"\0",
        struct.pack("<I", 0x01306B47) + WEIGHT.tobytes() + BIAS.tobytes(),  # the mark of half precision
    ],
    ids=["empty", "short", "long", "half"],
)
def test_files_that_do_not_add_up_are_refused_and_left_alone(data: bytes, tmp_path: Path) -> None:
    param, weights = files(tmp_path, [LINEAR], data)
    before = param.read_bytes()
    with pytest.raises(RuntimeError, match=r"not where they should be|bytes of the \.bin file belong to no layer"):
        quantize(param, weights, {"in0": two_valued(2, 3)})
    assert (param.read_bytes(), weights.read_bytes()) == (before, data)


def test_layers_of_any_kind_keep_their_weights_wherever_they_stand(tmp_path: Path) -> None:
    table, filters = FLOAT32 + WEIGHT.tobytes(), FLOAT32 + in_bytes(*range(24)) + in_bytes(1, 2, 3, 4)
    layers = [
        "Embed embed 1 1 in0 a 0=2 1=3 3=6",
        "InstanceNorm norm 1 1 a b 0=3",
        "Convolution1D filter 1 1 b c 0=4 1=3 5=1 6=24",
        "Reshape flat 1 1 c d 0=3",
        LINEAR.replace("in0", "d"),
    ]
    before = table + in_bytes(1, 1, 1, 0, 0, 0) + filters
    data = before + FLOAT32 + WEIGHT.tobytes() + BIAS.tobytes()
    read = list(read_layers(["Input in0 0 1 in0", *layers], data))
    assert [len(layer.rest) for layer in read] == [0, len(table), 24, len(filters), 0, len(BIAS.tobytes())]
    assert b"".join(layer.rest for layer in read[:4]) == before
    assert read[-1].weight is not None and np.array_equal(read[-1].weight, WEIGHT)


def test_a_layer_that_ncnn_does_not_have_is_refused_by_name() -> None:
    with pytest.raises(RuntimeError, match=r"ncnn cannot load its layer 'odd' \(Abacus\)"):
        list(read_layers(["Abacus odd 1 1 in0 out0"], b""))


def loss(counts: list[float], most: float, clip: float) -> float:
    """What clipping loses, bin by bin, and what rounding to 127 steps does, on average over a step."""
    total = 0.0
    for bin_, count in enumerate(counts):
        value = (bin_ + 0.5) * most / len(counts)
        total += count * ((value - clip) ** 2 if value > clip else (clip / 127) ** 2 / 12)
    return total


@given(
    counts=st.lists(st.integers(0, 1000).map(float), min_size=1, max_size=40),
    most=st.floats(0.01, 100),
    share=st.data(),
)
def test_no_clip_that_is_tried_loses_less_than_the_best(counts: list[float], most: float, share: st.DataObject) -> None:
    best = best_clip(np.array(counts), most)
    tried = most * np.linspace(LEAST_CLIP, 1, 81)
    assert np.isclose(best, tried, rtol=1e-12).any()
    least = min(loss(counts, most, float(clip)) for clip in tried)
    assert loss(counts, most, best) <= least * (1 + 1e-9) + 1e-12


def test_the_best_clip_is_that_of_real_rounding() -> None:
    values = np.abs(np.random.default_rng(0).standard_normal(20_000))  # activations, the far ones rare
    counts, _ = np.histogram(values, 2048, (0, values.max()))

    def real(clip: float) -> float:
        step = clip / 127
        return float(((np.clip(np.rint(values / step), -127, 127) * step - values) ** 2).mean())

    best = best_clip(counts.astype(float), float(values.max()))
    least = min(real(float(clip)) for clip in values.max() * np.linspace(LEAST_CLIP, 1, 81))
    assert real(best) <= 1.02 * least
    assert best < values.max()


def test_one_outlier_in_a_million_is_clipped_and_an_even_spread_is_not() -> None:
    outlier = np.zeros(2048)
    outlier[:400], outlier[-1] = 2500, 1
    assert best_clip(outlier, 10.0) < 5
    assert best_clip(np.ones(2048), 10.0) == 10


def test_a_scale_comes_from_the_values_that_the_layer_read(tmp_path: Path) -> None:
    param, weights = files(tmp_path, [LINEAR], FLOAT32 + WEIGHT.tobytes() + BIAS.tobytes())
    images = np.random.default_rng(1).standard_normal((64, 3), np.float32)
    quantize(param, weights, {"in0": images})
    values = np.abs(images)
    counts, _ = np.histogram(values, 2048, (0, values.max()))
    scale = struct.unpack("<f", weights.read_bytes()[-4:])[0]
    assert scale == pytest.approx(127 / best_clip(counts.astype(float), float(values.max())), rel=1e-6)
