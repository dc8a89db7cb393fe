"""What a picture's own parameters differ by from the shared ones, as bytes: the context net's, and the filter's.

A difference is a whole number of units. Tensors follow in the order of their names, each with the indices of its odds
and its scale, or one byte where it has no difference.
"""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from slimwright.codec.parameters import MOST_VALUE, Parameters, context_tensors
from slimwright.codec.symbols import checked, coded, indices_for
from slimwright.errors import CodecError, ModelError
from slimwright.swz.bytes_of import Reader
from slimwright.swz.entropy import Decoder, Encoder

CONTEXT_UNIT, FILTER_UNIT = 2.0**-5, 2.0**-7
ALIKE = 255  # the byte of a tensor without differences
Differences = Mapping[str, Tensor]
NONE = torch.zeros(0)


def unit_of(name: str) -> float:
    """Return what differences of a parameter are counted in."""
    return FILTER_UNIT if name.startswith("filter_") else CONTEXT_UNIT


def adaptable(shared: Parameters) -> list[str]:
    """Return the names of the parameters that a picture may have its own of, in the order of the bytes."""
    return sorted(
        name for name in shared.tensors if name in context_tensors(shared.tensors) or name.startswith("filter_")
    )


def packed(differences: Differences, shared: Parameters) -> bytes:
    """Return differences in units as bytes; b"" where there are none."""
    heads, coder = bytearray(), Encoder()
    for name in adaptable(shared):
        numbers = differences.get(name, NONE).numpy().ravel().astype(np.int32)
        if not numbers.any():
            heads.append(ALIKE)
            continue
        odds, scale = indices_for(numbers)
        heads += bytes((odds, scale))
        coded(coder, np.full(numbers.size, odds), np.full(numbers.size, scale), numbers)
    return bytes(heads) + coder.finished() if any(one != ALIKE for one in heads) else b""


def own_parameters(data: bytes, shared: Parameters) -> Parameters:
    """Return the parameters that a picture is decoded with. Raises CodecError for bytes that no encoder wrote."""
    if not data:
        return shared
    try:
        return applied(_differences(data, shared), shared)
    except ModelError as error:
        raise CodecError(f"the picture's own parameters are damaged: {error}; send it again") from error


def applied(differences: Differences, shared: Parameters) -> Parameters:
    """Return the shared parameters with differences in units added."""
    own = dict(shared.tensors)
    for name, numbers in differences.items():
        own[name] = (own[name] + numbers * unit_of(name)).clamp(-MOST_VALUE, MOST_VALUE)
    return Parameters(own, packed(differences, shared), shared.checksum)


def _differences(data: bytes, shared: Parameters) -> dict[str, Tensor]:
    reader, heads = Reader(data), {}
    for name in adaptable(shared):
        odds = reader.byte()
        if odds != ALIKE:
            heads[name] = (odds, reader.byte())
    coder, found = Decoder(reader.rest()), {}
    for name, (odds, scale) in heads.items():
        count = shared.tensors[name].numel()
        odds, scale = checked(odds, scale)
        numbers = coded(coder, np.full(count, odds), np.full(count, scale), None)
        found[name] = torch.from_numpy(numbers).view(shared.tensors[name].shape)
    return found
