"""ncnn: through pnnx, which traces the module. INT8 by `ncnn_int8`, on the FP32 files."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pnnx
from torch import Tensor, nn

from slimwright.graph import Net, zero_inputs
from slimwright.runtimes.artefact import Array, Written
from slimwright.runtimes.ncnn_int8 import quantize


def export(net: Net, folder: Path, precision: str, calibration: Sequence[Array] | None) -> Written:
    """Write `model.param` and `model.bin`; FP16 stores weights in half precision."""
    module = _Within(net.to_module().eval())
    pnnx.export(module, str(folder / "m.pt"), zero_inputs(net), fp16=precision == "fp16")
    param, weights = folder / "m.ncnn.param", folder / "m.ncnn.bin"
    if not param.exists():
        raise RuntimeError("pnnx wrote no ncnn files")
    if missing := _unknown(param):
        raise RuntimeError(f"ncnn has no layers for {', '.join(missing)}")
    inputs = tuple(f"in{k}" for k in range(len(net.inputs)))
    outputs = tuple(f"out{k}" for k in range(len(net.outputs)))
    if lost := {*inputs, *outputs} - _blobs(param):
        raise RuntimeError(f"pnnx lost {', '.join(sorted(lost))} of {len(inputs)} inputs and {len(outputs)} outputs")
    if precision == "int8":
        assert calibration is not None
        given = dict(zip(inputs, calibration, strict=True))
        in_float = [net.tensors[net[name].tensors["weight"]].flatten(1).numpy() for name in net.float_layers]
        quantize(param, weights, given, keep_float=in_float)
    param.rename(folder / "model.param")
    weights.rename(folder / "model.bin")
    return Written(("model.param", "model.bin"), inputs, outputs)


class _Within(nn.Module):
    """A module in a module: pnnx makes Python names of paths, and none may be "0"."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, *inputs: Tensor) -> Any:
        return self.net(*inputs)


def _unknown(param: Path) -> list[str]:
    """The operators for which pnnx found no layer of ncnn: those keep a name of torch's, with dots or colons."""
    kinds = (line.partition(" ")[0] for line in param.read_text().splitlines()[2:])
    return sorted({kind for kind in kinds if set(kind) & set(".:")})


def _blobs(param: Path) -> set[str]:
    """The names of all values."""
    return {word for line in param.read_text().splitlines()[2:] for word in line.split()[4:] if "=" not in word}
