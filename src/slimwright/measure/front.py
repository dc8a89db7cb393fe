"""A front: what `shrink --pareto` hands back. Networks for many budgets on latency, from one observation.

    front.json       every point, as it was measured        front.html      the points for people, with plots/*.png

A point's `predicted_latency_ms` and `predicted_damage` are its plan's; its latency, size and score were measured.
"""

from collections.abc import Mapping
from typing import Literal

from slimwright.measure.bundle import CandidateRecord
from slimwright.measure.record import Amount, Count, Record, Time
from slimwright.measure.records import DataCard, TaskCard

FRONT, FRONT_PAGE = "front.json", "front.html"
FRONT_FILES = (FRONT, FRONT_PAGE, "plots/*.png")  # all that the folder holds


class FrontPoint(Record):
    """The best network found for a limit on latency, a share of the original's."""

    share: Time
    limit_ms: Time
    candidate: CandidateRecord
    latency_ratio: Time  # measured, to the original's
    fits: bool  # it was measured within the limit
    dominated: bool  # another point was measured as fast and as good, and better in one of them


class Front(Record):
    """What `front.json` holds. Scores are on the validation part, in the metric's unit."""

    format: Literal["slimwright-front"] = "slimwright-front"
    version: Literal[1] = 1
    created: str
    seconds: Mapping[str, Amount]  # wall time per stage
    model: str
    runtime: str
    target: str
    machine: Mapping[str, object]
    versions: Mapping[str, str]
    seed: Count
    task: TaskCard
    data: DataCard
    original: CandidateRecord
    points: list[FrontPoint]
