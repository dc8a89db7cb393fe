"""What a plan chooses from: the settings that techniques offer, and the damage that each is predicted to do.

A knob is a quantity that may fall: the channels of a group, a layer's rank, or whatever a technique of one's own
counts. Its damage is in nats of loss, so damages of different techniques can be added up and traded.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from slimwright.coupling import Coupling
from slimwright.coupling.balance import Ladder
from slimwright.evidence import Evidence
from slimwright.graph import Net
from slimwright.progress import Tell

if TYPE_CHECKING:
    from slimwright.techniques.low_rank import Factors
    from slimwright.techniques.technique import Step


Key: TypeAlias = Any  # of a knob: hashable
BITS = "bits of "  # the key of a layer's bits begins with it
Choice: TypeAlias = Mapping[Key, int]  # a setting for each knob's key


@dataclass(frozen=True)
class Observed:
    """What techniques see when they offer knobs: the network, its coupled channels, the evidence, and the settings.

    The evidence of a job is that of all classes, added up. `settings` are those that the cost model can price, by
    key: the whole first, then descending, in multiples that the runtime likes. `ladders` are groups of which layers
    need equal parts. `factors` says how a choice of ranks factorises layers.
    """

    net: Net
    coupling: Coupling
    evidence: Evidence
    settings: Mapping[Key, Sequence[int]]
    ladders: Mapping[str, Ladder]
    factors: "Callable[[Choice], Mapping[str, Factors]]"
    images: int  # that were observed
    device: str
    tell: Tell


@dataclass(frozen=True)
class Knob:
    """Settings to choose from: the whole first, then descending, with their predicted damage in nats.

    `saves` gives the share of the original's costs that a setting is predicted to save, by the cost's name; None where
    the cost model knows the key itself (channels of groups, and ranks of layers).
    """

    key: Key
    settings: Sequence[int]
    damage: Callable[[int], float]
    saves: Callable[[int], Mapping[str, float]] | None = None


def no_knobs(_: Observed) -> Sequence[Knob]:
    """Offer nothing: the technique is not planned."""
    return ()


def no_steps(_: Observed, __: "Sequence[Knob]", ___: Choice) -> "Sequence[Step]":
    """Make no steps: the technique is not planned."""
    return ()
