"""What a plan chooses from: the settings that techniques offer, and the damage that each is predicted to do.

A knob is a quantity that may fall: the channels of a group, a layer's rank, or whatever a technique of one's own
counts. Its damage is in nats of loss, so damages of different techniques can be added up and traded.
"""

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from slimwright.coupling import Coupling
from slimwright.evidence import Evidence
from slimwright.graph import Net
from slimwright.progress import Tell

if TYPE_CHECKING:
    from slimwright.techniques.technique import Step

Choice: TypeAlias = Mapping[Hashable, int]  # a setting for each knob's key


@dataclass(frozen=True)
class Observed:
    """What techniques see when they offer knobs: the network, its coupled channels, and the evidence.

    `step` is the number of which channels and ranks shall be multiples, since the runtime likes them so.
    """

    net: Net
    coupling: Coupling
    evidence: Evidence
    step: int
    images: int  # that were observed
    device: str
    tell: Tell


@dataclass(frozen=True)
class Knob:
    """Settings to choose from: the whole first, then descending, with their predicted damage in nats.

    `saves` gives the share of the original's costs that a setting is predicted to save, by the cost's name; None where
    the cost model knows the key itself (channels of groups, and ranks of layers).
    """

    key: Hashable
    settings: Sequence[int]
    damage: Callable[[int], float]
    saves: Callable[[int], Mapping[str, float]] | None = None


def no_knobs(_: Observed) -> Sequence[Knob]:
    """Offer nothing: the technique is not planned."""
    return ()


def no_steps(_: Observed, __: Choice) -> "Sequence[Step]":
    """Make no steps: the technique is not planned."""
    return ()
