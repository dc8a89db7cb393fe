"""The parameters that all pictures share: those that the package brings, or a file of `slimwright codec train`."""

import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

import torch
from torch import Tensor

from slimwright.codec.context_net import ContextNet, WholeNet, in_whole_numbers
from slimwright.codec.contexts import CHANNELS
from slimwright.codec.dequantizing import fresh_filter
from slimwright.codec.symbols import LEAST_SCALE, MOST_SCALE
from slimwright.errors import CodecError
from slimwright.kept import read_tensors, write_tensors

SHIPPED = Path(__file__).with_name("shared.safetensors")
WHAT = "shared parameters of the codec"
MOST_VALUE = 2.0**7


@dataclass(frozen=True)
class Parameters:
    """Tensors by name: of the context net, `offsets`, and of the filter.

    Where they are a picture's own, `own` are the bytes of what they differ by from shared ones, and `shared` is the
    checksum of those.
    """

    tensors: Mapping[str, Tensor]
    own: bytes = b""
    shared: int | None = None

    @cached_property
    def net(self) -> WholeNet:
        """The context net in whole numbers."""
        return in_whole_numbers(context_tensors(self.tensors))

    @property
    def offsets(self) -> Tensor:
        """What sizes exceed exact coefficients by [2, scales]: of ones, and of larger ones."""
        return self.tensors["offsets"]

    @cached_property
    def checksum(self) -> int:
        """The CRC-32 that a file names shared ones by: of all in whole numbers, so that it is the same everywhere."""
        if self.shared is not None:
            return self.shared
        found = 0
        for name in sorted(self.tensors):
            whole = torch.round(self.tensors[name].double() * 2**16).long()
            found = zlib.crc32(whole.numpy().astype("<i8").tobytes(), zlib.crc32(name.encode(), found))
        return found


def context_tensors(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors of the context net alone."""
    return {name: tensor for name, tensor in tensors.items() if name.startswith(("luma_", "chroma_"))}


@lru_cache(maxsize=4)
def parameters(path: Path = SHIPPED) -> Parameters:
    """Return the parameters in a file. Raises CodecError where it holds others."""
    tensors = read_tensors(path, WHAT, CodecError)[0]
    expected = shapes()
    for name, shape in expected.items():
        if name not in tensors or tensors[name].shape != shape or tensors[name].dtype != torch.float32:
            raise CodecError(f"{path} is not {WHAT}: it lacks '{name}' of the shape {list(shape)}; train them again")
        if not bool((tensors[name].abs() <= MOST_VALUE).all()):
            raise CodecError(f"{path}: '{name}' has values beyond {MOST_VALUE:g}; train the parameters again")
    return Parameters({name: tensors[name] for name in expected})


def saved(tensors: Mapping[str, Tensor], path: Path) -> Parameters:
    """Write parameters as a file, rounded as they are applied, and return them."""
    whole = {name: (torch.round(tensor.double() * 2**10) / 2**10).float() for name, tensor in tensors.items()}
    write_tensors(path, whole)
    return parameters(path)


def shapes() -> dict[str, torch.Size]:
    """Return the shape of each tensor by name."""
    found = {name: value.shape for name, value in ContextNet().named_parameters()}
    found["offsets"] = torch.Size((2, MOST_SCALE - LEAST_SCALE + 1))
    return found | {name: value.shape for name, value in fresh_filter(CHANNELS, 0).items()}
