"""Weights for a file that came without: drawn anew from a seed, at the scale at which activations keep their size.

Files that only show an architecture hold one constant everywhere, or leave the weights to be fed; on such a network any
two implementations agree, whatever they compute. Matrices are drawn with variance 2 / fan_in (He et al. 2015, arXiv
1502.01852), scales and variances uniform in 0.5 to 1.5, shifts in -0.5 to 0.5, means in -0.3 to 0.3, slopes of PReLU in
0 to 0.5. What a weight is for is read off the operator it ends in.
"""

import math
import zlib
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from slimwright.errors import ModelError
from slimwright.importers.onnx.file import OnnxFile, OnnxInput, OnnxNode

Draw = Callable[[tuple[int, ...], torch.Generator], Tensor]
MOST_DRAWN_BYTES = 2**30
PASSED_ON = ("Identity", "Unsqueeze", "Squeeze", "Reshape", "Transpose", "Flatten")
ROLES = {  # operator -> the roles of its inputs
    "Conv": ("", "matrix", "shift"),
    "ConvTranspose": ("", "upward", "shift"),
    "Gemm": ("", "columns", "shift"),
    "MatMul": ("", "columns"),
    "BatchNormalization": ("", "scale", "shift", "mean", "scale"),
    "InstanceNormalization": ("", "scale", "shift"),
    "GroupNormalization": ("", "scale", "shift"),
    "LayerNormalization": ("", "scale", "shift"),
    "RMSNormalization": ("", "scale"),
    "PRelu": ("", "slope"),
}
EITHER_SIDE = {"Mul": "scale", "Add": "shift", "Sum": "shift"}  # roles of a constant; an input here may be the images


def fillings(file: OnnxFile, seed: int) -> dict[str, Tensor]:
    """Return a tensor for every weight of the file that is missing or all one number, by the name of its value.

    Raises ModelError where there would be more of them than any model has, or where a missing one has no fixed shape.
    """
    roles = _roles(file)
    shapes: dict[str, tuple[int, ...]] = {}
    for name, tensor in file.constants.items():
        if (
            name in roles
            and tensor.dtype == torch.float32
            and tensor.numel() > 1
            and bool((tensor == tensor.reshape(-1)[0]).all())
        ):
            shapes[name] = tuple(tensor.shape)
    for node in file.nodes:
        if (shape := _made_of_one_number(node, file.constants)) is not None and node.outputs[0] in roles:
            shapes[node.outputs[0]] = shape
    for entry in file.inputs:
        if entry.name in roles:
            shapes[entry.name] = _fixed(file, entry)
    if sum(math.prod(shape) for shape in shapes.values()) * 4 > MOST_DRAWN_BYTES:
        raise ModelError(f"the weights to draw for {file.path} take more than {MOST_DRAWN_BYTES / 1e9:.1f} GB")
    return {name: _drawn(name, shape, roles[name], seed) for name, shape in shapes.items()}


def _roles(file: OnnxFile) -> dict[str, str]:
    """What each value is for that ends in a weight, seen through what only gives it another shape."""
    roles: dict[str, str] = {}
    made = {name for node in file.nodes if node.op not in (*PASSED_ON, "ConstantOfShape") for name in node.outputs}
    inputs = {entry.name for entry in file.inputs}
    for node in reversed(file.nodes):
        if node.op in PASSED_ON and node.outputs[0] in roles:
            roles.setdefault(node.inputs[0], roles[node.outputs[0]])
        for place, name in enumerate(node.inputs):
            role = _role(node, place)
            if role and name and name not in made and not (name in inputs and node.op in EITHER_SIDE):
                roles.setdefault(name, role)
    return roles


def _role(node: OnnxNode, place: int) -> str:
    known = ROLES.get(node.op, ())
    role = known[place] if place < len(known) else EITHER_SIDE.get(node.op, "")
    return "matrix" if role == "columns" and node.attributes.get("transB") else role


def _made_of_one_number(node: OnnxNode, constants: Mapping[str, Tensor]) -> tuple[int, ...] | None:
    value, sizes = node.attributes.get("value"), constants.get(node.inputs[0] if node.inputs else "")
    if node.op != "ConstantOfShape" or sizes is None or sizes.ndim != 1:
        return None
    shape = tuple(int(size) for size in sizes.tolist())
    floating = value is None or (isinstance(value, Tensor) and value.dtype == torch.float32)
    return shape if floating and min(shape, default=0) >= 0 and math.prod(shape) > 1 else None


def _fixed(file: OnnxFile, entry: OnnxInput) -> tuple[int, ...]:
    sizes = tuple(size for size in entry.shape if isinstance(size, int))
    if len(sizes) != len(entry.shape) or min(sizes, default=1) < 0:
        raise ModelError(
            f"input '{entry.name}' of {file.path}, a weight, has the shape {list(entry.shape)}, not numbers"
        )
    return sizes


def _drawn(name: str, shape: tuple[int, ...], role: str, seed: int) -> Tensor:
    """The same numbers for the same name, shape and seed, whatever else the file holds."""
    generator = torch.Generator().manual_seed(zlib.crc32(f"{seed} {name}".encode()))
    match role:
        case "matrix":
            return _normal(shape, math.prod(shape[1:]), generator)
        case "upward":
            return _normal(shape, shape[0] * math.prod(shape[2:]), generator)
        case "columns":
            return _normal(shape, shape[-2] if len(shape) > 1 else shape[0], generator)
        case "scale":
            return torch.rand(shape, generator=generator) + 0.5
        case "mean":
            return torch.rand(shape, generator=generator) * 0.6 - 0.3
        case "slope":
            return torch.rand(shape, generator=generator) * 0.5
    return torch.rand(shape, generator=generator) - 0.5


def _normal(shape: tuple[int, ...], fan_in: int, generator: torch.Generator) -> Tensor:
    return torch.randn(shape, generator=generator).mul_(math.sqrt(2 / max(fan_in, 1)))
