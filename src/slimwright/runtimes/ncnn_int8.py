"""INT8 for ncnn: quantize the weights of a .param and .bin pair, and mark its layers.

Its own tools for this are not in its Python package. Weights are symmetric, a scale for each output channel; a layer's
input has one scale, 127 over the clip that loses least in mean square over the calibration images. Layers compute in
INT8 and give float32. Convolutions in groups of several channels stay in float32: ncnn hands each group a single scale
where one is read for each channel, and gives garbage (measured 2026-11-21).

Of the format: a weight starts with a word that says how it is stored (0: float32; 0x000D4B38: int8, padded to four
bytes) where it may be stored in several ways, and with nothing where it is always float32. Parameter 8 of a layer says
that scales follow its weights: those of the weights, then that of the input.
Source: ncnn's wiki, "param and model file structure" and "quantized int8 inference".
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import ncnn
import numpy as np
from numpy.typing import NDArray

FLOAT32, INT8 = 0, 0x000D4B38
SCALE_TERM = {"Convolution": "2", "ConvolutionDepthWise": "1", "InnerProduct": "2"}
BINS = 2048
LEAST_CLIP = 0.2  # of the largest value: a smaller clip is never tried
Array = NDArray[np.float32]


@dataclass(frozen=True)
class Layer:
    """One line of a .param file, with its part of the .bin file."""

    kind: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    params: Mapping[str, str]
    weight: Array | None = None  # [C_out, C_in/groups * kH * kW]
    rest: bytes = b""  # what follows the weight, or all that there is


def quantize(param: Path, weights: Path, calibration: Mapping[str, Array], *, keep_float: Sequence[Array] = ()) -> None:
    """Replace an FP32 pair of files by its INT8 form, calibrated on what each input blob is given [N, ...].

    Layers whose weights [C_out, ...] are among `keep_float` stay in float.
    Raises RuntimeError for a file that does not add up, such as one with weights of a kind that is not known here.
    """
    lines = param.read_text().splitlines()
    layers = [_in_float(layer, keep_float) for layer in _layers(lines[2:], weights.read_bytes())]
    wanted = [layer.inputs[0] for layer in layers if layer.weight is not None]
    clips = _clips(param, weights, wanted, calibration)
    held = bytearray()
    for at, layer in enumerate(layers):
        if layer.weight is not None:
            layer, data = _quantized(layer, clips[layer.inputs[0]])
            layers[at] = layer
            held += data
        else:
            held += layer.rest
    param.write_text("\n".join([*lines[:2], *(_line(layer) for layer in layers)]) + "\n")
    weights.write_bytes(held)


def _in_float(layer: Layer, keep_float: Sequence[Array]) -> Layer:
    """The layer, its weights among what is left as it is if they are one of `keep_float`."""
    if layer.weight is None or not any(np.array_equal(layer.weight, weight) for weight in keep_float):
        return layer
    stored = FLOAT32.to_bytes(4, "little") + layer.weight.astype("<f4").tobytes()
    return replace(layer, weight=None, rest=stored + layer.rest)


def _layers(lines: Sequence[str], data: bytes) -> Iterator[Layer]:
    """Read the layers and their weights, which follow each other without names."""
    at = 0
    for line in lines:
        words = line.split()
        if len(words) < 4:
            continue
        inputs, outputs = int(words[2]), int(words[3])
        blobs, params = (
            words[4 : 4 + inputs + outputs],
            dict(word.split("=", 1) for word in words[4 + inputs + outputs :]),
        )
        layer = Layer(words[0], words[1], tuple(blobs[:inputs]), tuple(blobs[inputs:]), params)
        if layer.kind in SCALE_TERM:
            count, bias = _sizes(layer)
            end = at + 4 + 4 * (count + bias)
            if int.from_bytes(data[at : at + 4], "little") != FLOAT32 or len(data) < end:
                raise RuntimeError(f"the weights of ncnn's layer '{layer.name}' are not where they should be")
            if _in_groups(layer):
                yield replace(layer, rest=data[at:end])
            else:
                weight = np.frombuffer(data, "<f4", count, at + 4).reshape(int(layer.params["0"]), -1)
                yield replace(layer, weight=weight, rest=data[at + 4 + 4 * count : end])
            at = end
        else:
            size = _plain_size(layer)
            yield replace(layer, rest=data[at : at + size])
            at += size
    if at != len(data):
        raise RuntimeError("the network has weights of a kind that INT8 for ncnn does not know")


def _sizes(layer: Layer) -> tuple[int, int]:
    """Number of weights and of bias values."""
    linear = layer.kind == "InnerProduct"
    bias = int(layer.params["0"]) if layer.params.get("1" if linear else "5") == "1" else 0
    return int(layer.params["2" if linear else "6"]), bias


def _in_groups(layer: Layer) -> bool:
    """True for a convolution in groups of several channels."""
    if layer.kind != "ConvolutionDepthWise":
        return False
    outputs, width = int(layer.params["0"]), int(layer.params["1"])
    taps = width * int(layer.params.get("11", width))
    return not (int(layer.params["7"]) == outputs and int(layer.params["6"]) == outputs * taps)


def _plain_size(layer: Layer) -> int:
    """Bytes of the weights of a layer that stays in float32."""
    number = {key: int(value) for key, value in layer.params.items() if value.lstrip("-").isdigit()}
    match layer.kind:
        case "MemoryData":
            return 4 * math.prod(max(number.get(key, 0), 1) for key in ("0", "1", "11", "2"))
        case "BatchNorm":
            return 4 * 4 * number["0"]
        case "Scale":
            return 4 * number["0"] * (1 + number.get("1", 0))
        case "PReLU":
            return 4 * number["0"]
        case "GroupNorm":
            return 4 * 2 * number["1"] * number.get("3", 1)
        case "LayerNorm":
            return 4 * 2 * number["0"] * number.get("2", 1)
        case _:
            return 0


def _quantized(layer: Layer, clip: float) -> tuple[Layer, bytes]:
    """A layer marked as INT8, and its part of the .bin file."""
    assert layer.weight is not None
    largest = np.abs(layer.weight).max(axis=1)
    scales = np.where(largest > 0, 127 / np.maximum(largest, 1e-30), 1.0).astype("<f4")
    values = np.clip(np.rint(layer.weight * scales[:, None]), -127, 127).astype(np.int8).tobytes()
    data = INT8.to_bytes(4, "little") + values + bytes(-len(values) % 4) + layer.rest
    data += scales.tobytes() + np.array([127 / clip], "<f4").tobytes()
    return replace(layer, params={**layer.params, "8": SCALE_TERM[layer.kind]}), data


def _line(layer: Layer) -> str:
    words = [
        f"{layer.kind:<24} {layer.name:<24} {len(layer.inputs)} {len(layer.outputs)}",
        *layer.inputs,
        *layer.outputs,
    ]
    return " ".join([*words, *(f"{key}={value}" for key, value in layer.params.items())])


def _clips(param: Path, weights: Path, wanted: Sequence[str], calibration: Mapping[str, Array]) -> dict[str, float]:
    """Where to clip each wanted blob, from two passes over the inputs: the largest values, then their histograms."""
    net = ncnn.Net()
    net.opt.num_threads = 1
    net.opt.lightmode = False
    net.opt.use_fp16_packed = net.opt.use_fp16_storage = net.opt.use_fp16_arithmetic = False
    if net.load_param(str(param)) or net.load_model(str(weights)):
        raise RuntimeError("ncnn cannot read the files that pnnx wrote")
    names = list(dict.fromkeys(wanted))
    most = dict.fromkeys(names, 0.0)
    for blobs in _values(net, names, calibration):
        most = {name: max(most[name], float(np.abs(blobs[name]).max())) for name in names}
    counts = {name: np.zeros(BINS) for name in names}
    for blobs in _values(net, names, calibration):
        for name in names:
            counts[name] += np.histogram(np.abs(blobs[name]), BINS, (0, most[name] or 1.0))[0]
    return {name: best_clip(counts[name], most[name] or 1.0) for name in names}


def _values(net: ncnn.Net, names: Sequence[str], calibration: Mapping[str, Array]) -> Iterator[dict[str, Array]]:
    for rows in zip(*calibration.values(), strict=True):
        extractor = net.create_extractor()
        mats = [ncnn.Mat(np.ascontiguousarray(np.atleast_1d(row))) for row in rows]  # they must live as long
        for entry, mat in zip(calibration, mats, strict=True):
            extractor.input(entry, mat)
        yield {name: np.array(extractor.extract(name)[1]) for name in names}


def best_clip(counts: NDArray[np.float64], most: float) -> float:
    """Return the clip, up to `most`, that loses least in mean square when what is left is rounded to 127 steps.

    `counts` [bins] is the histogram of absolute values from 0 to `most`. Rounding to a step loses its square over 12.
    """
    centres = (np.arange(len(counts)) + 0.5) * (most / len(counts))
    clips = most * np.linspace(LEAST_CLIP, 1, 81)
    losses = []
    for clip in clips:
        over = np.maximum(centres - clip, 0.0)
        losses.append(float((counts * over**2).sum() + counts[centres <= clip].sum() * (clip / 127) ** 2 / 12))
    return float(clips[int(np.argmin(losses))])
