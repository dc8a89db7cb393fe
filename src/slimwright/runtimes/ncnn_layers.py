"""The layers of a .param file, each with its part of the .bin file.

Weights follow each other without names or sizes. Of the layers that are to be changed the size is known; of all others
ncnn says it: each is loaded alone from what is left of the file, and what it reads is counted.

A weight starts with a word that says how it is stored (0: float32; 0x000D4B38: int8, padded to four bytes) where it may
be stored in several ways, and with nothing where it is always float32.
Source: ncnn's wiki, "param and model file structure".
"""

import ctypes
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import ncnn
import numpy as np
from numpy.typing import NDArray

FLOAT32, INT8 = 0, 0x000D4B38
BIAS_TERM = {"Convolution": "5", "ConvolutionDepthWise": "5", "InnerProduct": "1"}  # of layers that can be INT8
WEIGHT_SIZE = {"Convolution": "6", "ConvolutionDepthWise": "6", "InnerProduct": "2"}
MAGIC = "7767517"  # the first line of a .param file
Array = NDArray[np.float32]


@dataclass(frozen=True)
class Layer:
    """One line of a .param file, with its part of the .bin file."""

    kind: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    params: Mapping[str, str]
    weight: Array | None = None  # [C_out, C_in/groups * kH * kW] of a layer that can be INT8
    rest: bytes = b""  # what follows the weight, or all that there is

    @property
    def line(self) -> str:
        """The layer as it stands in a .param file."""
        words = [
            f"{self.kind:<24} {self.name:<24} {len(self.inputs)} {len(self.outputs)}",
            *self.inputs,
            *self.outputs,
            *(f"{key}={value}" for key, value in self.params.items()),
        ]
        return " ".join(words)


def read_layers(lines: Sequence[str], data: bytes) -> Iterator[Layer]:
    """Yield the layers of a .param file's lines, without the first two, with their weights in `data`.

    Raises RuntimeError where the two do not fit.
    """
    at = 0
    for line in lines:
        words = line.split()
        if len(words) < 4:
            continue
        inputs, outputs = int(words[2]), int(words[3])
        blobs, params = words[4 : 4 + inputs + outputs], words[4 + inputs + outputs :]
        layer = Layer(
            words[0],
            words[1],
            tuple(blobs[:inputs]),
            tuple(blobs[inputs:]),
            dict(word.split("=", 1) for word in params),
        )
        if layer.kind in WEIGHT_SIZE:
            layer, size = _weighted(layer, data[at:])
        else:
            size = _read_by(layer, data[at:])
            layer = replace(layer, rest=data[at : at + size])
        yield layer
        at += size
    if at != len(data):
        raise RuntimeError(f"{len(data) - at} bytes of the .bin file belong to no layer of the .param file")


def _weighted(layer: Layer, data: bytes) -> tuple[Layer, int]:
    """A layer with its weight, if that can be INT8, and the bytes that it has."""
    outputs, count = int(layer.params["0"]), int(layer.params[WEIGHT_SIZE[layer.kind]])
    bias = outputs if layer.params.get(BIAS_TERM[layer.kind]) == "1" else 0
    end = 4 + 4 * (count + bias)
    if int.from_bytes(data[:4], "little") != FLOAT32 or len(data) < end:
        raise _misplaced(layer)
    if _in_groups(layer):
        return replace(layer, rest=data[:end]), end
    weight = np.frombuffer(data, "<f4", count, 4).reshape(outputs, -1)
    return replace(layer, weight=weight, rest=data[4 + 4 * count : end]), end


def _in_groups(layer: Layer) -> bool:
    """True for a convolution in groups of several channels."""
    if layer.kind != "ConvolutionDepthWise":
        return False
    outputs, width = int(layer.params["0"]), int(layer.params["1"])
    taps = width * int(layer.params.get("11", width))
    return not (int(layer.params["7"]) == outputs and int(layer.params["6"]) == outputs * taps)


def _read_by(layer: Layer, data: bytes) -> int:
    """Bytes that ncnn reads for a layer. Raises RuntimeError where it does not know the layer, or wants more."""
    alone = [*(f"Input {name} 0 1 {name}" for name in layer.inputs), layer.line]
    blobs = len(layer.inputs) + len(layer.outputs)
    net, reader = ncnn.Net(), _Counting(data)
    if net.load_param_mem("\n".join([MAGIC, f"{len(alone)} {blobs}", *alone]) + "\n"):
        raise RuntimeError(f"ncnn cannot load its layer '{layer.name}' ({layer.kind})")
    if net.load_model(reader):
        raise _misplaced(layer)
    return reader.read_bytes


def _misplaced(layer: Layer) -> RuntimeError:
    return RuntimeError(f"the weights of ncnn's layer '{layer.name}' ({layer.kind}) are not where they should be")


class _Counting(ncnn.DataReader):  # type: ignore[misc]
    """Gives ncnn bytes, and counts them."""

    def __init__(self, data: bytes) -> None:
        super().__init__()
        self._data = data
        self.read_bytes = 0

    def read(self, buf: object, size: int) -> int:
        """Write the next `size` bytes, or what is left, to where a capsule points."""
        part = self._data[self.read_bytes : self.read_bytes + size]
        ctypes.memmove(_pointer(buf, None), part, len(part))
        self.read_bytes += len(part)
        return len(part)


_pointer = ctypes.pythonapi.PyCapsule_GetPointer
_pointer.restype, _pointer.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
