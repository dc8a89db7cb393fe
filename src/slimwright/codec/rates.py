"""What a coefficient costs in bits: a flag for zero, a sign, and a size that falls off geometrically.

Where v is not whole, the cost is taken on the line between its neighbours, so that a gradient knows which way is cheap.
"""

import math

import torch
from torch import Tensor
from torch.nn.functional import softplus

from slimwright.codec.symbols import LEAST_SCALE, MOST_ODDS, MOST_SCALE, ODDS_UNIT, SCALE_UNIT

BITS = 1 / math.log(2)


def bits_of(values: Tensor, odds: Tensor, scale: Tensor) -> Tensor:
    """Return the bits of values [N], given the log odds of a zero and log2 of the mean size of what is not zero."""
    odds = odds.clamp(-MOST_ODDS / ODDS_UNIT, MOST_ODDS / ODDS_UNIT)
    scale = scale.clamp(LEAST_SCALE / SCALE_UNIT, MOST_SCALE / SCALE_UNIT)
    sizes = values.abs()
    zero, other = softplus(-odds) * BITS, softplus(odds) * BITS + 1  # the sign takes a bit
    falloff = torch.exp2(-scale)  # theta = exp(-falloff)
    other = other - torch.log(-torch.expm1(-falloff)) * BITS
    near = sizes.clamp(max=1)
    return zero + near * (other - zero) + (sizes - 1).clamp(min=0) * falloff * BITS
