"""INT8 for ncnn: quantize the weights of a .param and .bin pair, and mark its layers.

Its own tools for this are not in its Python package. Weights are symmetric, a scale for each output channel; a layer's
input has one scale, 127 over the clip that loses least in mean square over the calibration images. Layers compute in
INT8 and give float32. Convolutions in groups of several channels stay in float32: ncnn hands each group a single scale
where one is read for each channel, and gives garbage (measured 2026-11-21). So do layers of all other kinds.

Parameter 8 of a layer says that scales follow its weights: those of the weights, then that of the input.
Source: ncnn's wiki, "quantized int8 inference".
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import ncnn
import numpy as np
from numpy.typing import NDArray

from slimwright.runtimes.ncnn_layers import FLOAT32, INT8, Array, Layer, read_layers

SCALE_TERM = {"Convolution": "2", "ConvolutionDepthWise": "1", "InnerProduct": "2"}
BINS = 2048
LEAST_CLIP = 0.2  # of the largest value: a smaller clip is never tried


def quantize(param: Path, weights: Path, calibration: Mapping[str, Array], *, keep_float: Sequence[Array] = ()) -> None:
    """Replace an FP32 pair of files by its INT8 form, calibrated on what each input blob is given [N, ...].

    Layers whose weights [C_out, ...] are among `keep_float` stay in float.
    Raises RuntimeError for files that do not fit together.
    """
    lines = param.read_text().splitlines()
    layers = [_in_float(layer, keep_float) for layer in read_layers(lines[2:], weights.read_bytes())]
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
    param.write_text("\n".join([*lines[:2], *(layer.line for layer in layers)]) + "\n")
    weights.write_bytes(held)


def _in_float(layer: Layer, keep_float: Sequence[Array]) -> Layer:
    """The layer, its weights among what is left as it is if they are one of `keep_float`."""
    if layer.weight is None or not any(np.array_equal(layer.weight, weight) for weight in keep_float):
        return layer
    stored = FLOAT32.to_bytes(4, "little") + layer.weight.astype("<f4").tobytes()
    return replace(layer, weight=None, rest=stored + layer.rest)


def _quantized(layer: Layer, clip: float) -> tuple[Layer, bytes]:
    """A layer marked as INT8, and its part of the .bin file."""
    assert layer.weight is not None
    largest = np.abs(layer.weight).max(axis=1)
    scales = np.where(largest > 0, 127 / np.maximum(largest, 1e-30), 1.0).astype("<f4")
    values = np.clip(np.rint(layer.weight * scales[:, None]), -127, 127).astype(np.int8).tobytes()
    data = INT8.to_bytes(4, "little") + values + bytes(-len(values) % 4) + layer.rest
    data += scales.tobytes() + np.array([127 / clip], "<f4").tobytes()
    return replace(layer, params={**layer.params, "8": SCALE_TERM[layer.kind]}), data


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
