"""The net that says how likely a coefficient is: trained in floats, applied in whole numbers.

For each coefficient it gives the log odds of a zero, and the mean size of what is not zero as a power of two. Weights
have 10 bits below the point, and each layer's outputs 8. All sums stay below 2^53, so a float64 holds every one of
them exactly, whichever order a processor or a library adds in: each platform finds the same index into the same
tables.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from slimwright.codec.contexts import CHANNELS, CHROMA, LUMA, PHASES, UNIT
from slimwright.codec.symbols import LEAST_SCALE, MOST_ODDS, MOST_SCALE, ODDS_UNIT, SCALE_UNIT
from slimwright.codec.wavelet import LEVELS

WEIGHT_BITS, OUTPUT_BITS, FEATURE_BITS = 10, 8, 3
HIDDEN = {"luma": (20, 12), "chroma": (10, 8)}
FEATURES = {"luma": LUMA, "chroma": CHROMA}
OUTPUTS = 2
MOST_WEIGHT = 2**17  # in units of a weight
assert 1 << FEATURE_BITS == UNIT


def role_of(channel: int) -> str:
    """Return which of the two nets a channel's coefficients have."""
    return "chroma" if channel else "luma"


def band_index(level: int, orient: int, channel: int) -> int:
    """Return a band's number among those of its net."""
    return (level * 3 + orient) * (CHANNELS - 1) + max(channel - 1, 0)


class ContextNet(nn.Module):
    """Three layers a role and pass; the first one's bias is the band's own. Names of parameters begin with the role."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        chance, passes = torch.Generator().manual_seed(seed), len(PHASES)
        for role, (first, second) in HIDDEN.items():
            sizes = (FEATURES[role], first, second, OUTPUTS)
            for place in range(3):
                fan_in, fan_out = sizes[place : place + 2]
                start = torch.randn(passes, fan_in, fan_out, generator=chance) * (1.0 / fan_in) ** 0.5
                self.register_parameter(f"{role}_weight{place}", nn.Parameter(start))
                bands = LEVELS * 3 * (CHANNELS - 1) if place == 0 else 1
                self.register_parameter(f"{role}_bias{place}", nn.Parameter(torch.zeros(bands, fan_out)))

    def forward(self, features: Tensor, role: str, phase: int, bands: Tensor) -> tuple[Tensor, Tensor]:
        """Return the log odds of a zero and log2 of the mean size [N] of features [N, F] of bands [N]."""
        values = features / UNIT
        for place in range(3):
            weight, bias = getattr(self, f"{role}_weight{place}"), getattr(self, f"{role}_bias{place}")
            values = values @ weight[phase] + (bias[bands] if place == 0 else bias)
            values = values.relu() if place < 2 else values
        return values[:, 0], values[:, 1]


@dataclass(frozen=True)
class Known:
    """Coefficients of one role and pass: their features [N, F] and bands [N], and where each came from.

    `places` are those of the coefficients in a row of all of them.
    """

    role: str
    phase: int
    features: Tensor
    bands: Tensor
    places: Tensor


class Contexts(Protocol):
    """What says how likely coefficients are: `WholeNet`, or the same net in another runtime."""

    def indices(self, features: Tensor, role: str, phase: int, band: int) -> tuple[Tensor, Tensor]:
        """Return the indices of the odds and of the scale [N] of features [N, F]."""


@dataclass(frozen=True)
class WholeNet:
    """A context net in whole numbers, held by float64: what both directions compute with."""

    parameters: Mapping[str, Tensor]

    def indices(self, features: Tensor, role: str, phase: int, band: int | Tensor) -> tuple[Tensor, Tensor]:
        """Return the indices of the odds and of the scale [N] of features [N, F] of bands [N], or of one; exact."""
        values, bits = features.double(), FEATURE_BITS
        for place in range(3):
            weight, bias = self.parameters[f"{role}_weight{place}"], self.parameters[f"{role}_bias{place}"]
            chosen = bias[band if place == 0 else 0] * 2.0**bits
            values = values @ weight[phase] + chosen
            if place < 2:
                values = torch.floor(values.clamp(min=0) * 2.0 ** (OUTPUT_BITS - bits - WEIGHT_BITS))
            bits = OUTPUT_BITS
        below = OUTPUT_BITS + WEIGHT_BITS
        odds, scale = (
            torch.floor(values[:, at] * 2.0**-below * unit + 0.5).long()
            for at, unit in enumerate((ODDS_UNIT, SCALE_UNIT))
        )
        return odds.clamp(-MOST_ODDS, MOST_ODDS) + MOST_ODDS, scale.clamp(LEAST_SCALE, MOST_SCALE) - LEAST_SCALE

    def by_place(self, seen: Sequence[Known], count: int) -> tuple[Tensor, Tensor]:
        """Return the indices of `count` coefficients in a row, from what is known of them."""
        odds, scale = torch.zeros(2, count, dtype=torch.long)
        for part in seen:
            odds[part.places], scale[part.places] = self.indices(part.features, part.role, part.phase, part.bands)
        return odds, scale


def in_whole_numbers(parameters: Mapping[str, Tensor]) -> WholeNet:
    """Return the net with its parameters rounded."""
    return WholeNet({name: rounded(value) for name, value in parameters.items()})


def rounded(parameter: Tensor) -> Tensor:
    """Return a parameter in units of 2^-10, as float64."""
    return torch.round(parameter.detach().double() * 2**WEIGHT_BITS).clamp(-MOST_WEIGHT, MOST_WEIGHT)
