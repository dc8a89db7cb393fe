"""ncnn: through pnnx, which traces the module. INT8 by `ncnn_int8`, on the FP32 files."""

from collections import OrderedDict
from pathlib import Path

import pnnx
import torch
from torch import nn

from slimwright.graph import Net
from slimwright.runtimes.artefact import Array
from slimwright.runtimes.ncnn_int8 import quantize


def export(net: Net, folder: Path, precision: str, images: Array | None) -> list[str]:
    """Write `model.param` and `model.bin`; FP16 stores weights in half precision."""
    module = nn.Sequential(OrderedDict(net=net.to_module().eval()))  # pnnx makes Python names of paths: none may be "0"
    pnnx.export(module, str(folder / "m.pt"), (torch.zeros(net.input.shape),), fp16=precision == "fp16")
    param, weights = folder / "m.ncnn.param", folder / "m.ncnn.bin"
    if not param.exists():
        raise RuntimeError("pnnx wrote no ncnn files")
    if missing := _unknown(param):
        raise RuntimeError(f"ncnn has no layers for {', '.join(missing)}")
    if precision == "int8":
        assert images is not None
        quantize(param, weights, images)
    param.rename(folder / "model.param")
    weights.rename(folder / "model.bin")
    return ["model.param", "model.bin"]


def _unknown(param: Path) -> list[str]:
    """The operators for which pnnx found no layer of ncnn: those keep a name of torch's, with dots or colons."""
    kinds = (line.partition(" ")[0] for line in param.read_text().splitlines()[2:])
    return sorted({kind for kind in kinds if set(kind) & set(".:")})
