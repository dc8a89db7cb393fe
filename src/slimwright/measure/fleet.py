"""A fleet: many deployments of one model, each a budget and some of its classes, with their proofs.

    fleet.json       every deployment         index.html    the same for people: sorted, filtered
    deployments/     a record each            base.swz      the original, from which models are stored as deltas
    models/KEY/      model.*, net.swz, recipe.json, about.json, proof.json: deployments with one plan share one

What was predicted by a plan and what was measured never share a field.
"""

from collections.abc import Mapping
from typing import Any, Literal

from slimwright.measure.record import Amount, Count, Number, Record, Time
from slimwright.measure.records import DataCard, DropInterval, Parity, TaskCard
from slimwright.runtimes import Precision

FLEET, FLEET_PAGE = "fleet.json", "index.html"


class ProvenSide(Record):
    """One of the two models of a proof: counted, and measured beside the other one."""

    score: Number  # on the test part, in the metric's unit
    latency_ms: Time  # median
    size_bytes: Count  # of the artefact's files
    macs: Count  # exact, for one image
    weight_bytes: Count  # exact
    peak_activation_bytes: Count  # exact, for one image


class Predicted(Record):
    """What a plan predicts: its costs by name, and its damage."""

    plan: str  # what is done to the network
    costs: dict[str, Amount]
    damage: Number | None  # nats of loss
    feasible: bool  # the plan predicts that every limit holds


class ModelProof(Record):
    """A model as it was chosen on the validation part, and as it was proven on the test part."""

    key: str
    candidate: str
    precision: Precision
    predicted: Predicted | None  # None: nothing was planned, the whole network fits
    chosen_by: dict[str, Number]  # measured when it was chosen: costs, and the score on the validation part
    original: ProvenSide
    result: ProvenSide
    reading: Parity  # the original's artefact against the model as the user gave it
    proof: Parity  # the result's artefact against its net
    interval: DropInterval | None  # of the drop, on the test part
    packed_bytes: Count  # of net.swz
    is_delta: bool  # net.swz is what differs from the base
    sha256: dict[str, str]  # of the files beside the proof


class Corrected(Record):
    """How a cost of a plan was predicted, and how it was measured; the next plan like it aims by that."""

    predicted: Amount
    measured: Time


class Deployed(Record):
    """A deployment: what was asked, and what was proven. Scores are in the metric's unit, the drop in its steps."""

    format: Literal["slimwright-deployment"] = "slimwright-deployment"
    version: Literal[1] = 1
    key: str
    name: str
    subset: str
    classes: list[str]
    budget: str
    asked: dict[str, str]  # as the user wrote it
    max_drop: Amount
    runtime: str
    limits: dict[str, Amount]  # resolved against the original as the proof measured it
    model: ModelProof
    drop: Number
    within_budget: bool
    misses: list[str]
    corrections: dict[str, Corrected]  # by the cost's name
    tried: Count  # models that were built for it
    seconds: Amount


class Failed(Record):
    """A deployment that came to nothing, and why."""

    name: str
    subset: str
    budget: str
    why: str


class Fleet(Record):
    """What `fleet.json` holds."""

    format: Literal["slimwright-fleet"] = "slimwright-fleet"
    version: Literal[1] = 1
    created: str
    seconds: dict[str, Amount]  # wall time per stage
    model: str
    seed: Count
    versions: dict[str, str]
    machine: Mapping[str, Any]
    task: TaskCard
    data: DataCard
    deployed: list[Deployed]
    failed: list[Failed]

    @property
    def within_budget(self) -> bool:
        """True where nothing failed and every deployment is within its budget."""
        return not self.failed and all(one.within_budget for one in self.deployed)
