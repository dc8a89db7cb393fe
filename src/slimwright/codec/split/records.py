"""What a bundle of a split says of itself, as `split.json`. What is predicted has a record of its own."""

from typing import Literal

from pydantic import Field

from slimwright.measure import Amount, Count, MetricCard, Number, Record, Size


class Parts(Record):
    """Milliseconds here: of the phone's part, to encode, to decode, of the server's part."""

    phone_ms: Amount
    encode_ms: Amount
    decode_ms: Amount
    server_ms: Amount


class Predicted(Record):
    """What a cut is predicted to take: layers as they were timed one by one, a step of as much damage as another's."""

    message_bytes: Amount
    parts: Parts
    total_ms: Amount


class Measured(Record):
    """What a cut was measured to take on the validation part; the link's share of `total_ms` is computed."""

    step: Amount
    message_bytes: Amount  # mean
    largest_bytes: Count
    parts: Parts
    total_ms: Amount
    drop: Number  # of the metric, on the validation part


class CutRecord(Record):
    """One place where the net can be cut. `measured` is None where the prediction was not good enough to try it."""

    after: str
    values: list[str]
    numbers: Count
    predicted: Predicted
    measured: Measured | None
    why: str = ""  # it was tried and cannot be used


class Alternative(Record):
    """One way to an answer: what it sends and takes, and its metric on the test part."""

    kind: str
    quality: int | None  # of JPEG and WebP: chosen on the validation part
    sent_bytes: Amount  # mean, on the test part
    file_bytes: Amount  # the same, with what all pictures have in common
    largest_bytes: Count
    parts: Parts
    total_ms: Amount
    score: Number


class LinkRecord(Record):
    """The link that the cut was chosen for, and the machines."""

    name: str
    uplink_mbps: Amount
    rtt_ms: Amount
    source: str
    phone_slowdown: Amount
    server_speedup: Amount


class Manifest(Record):
    """All of it. `files` are SHA-256 by name; `split_id` is over both nets and the tables."""

    format: Literal["slimwright-split"] = "slimwright-split"
    version: Literal[1] = 1
    model: str
    split_id: str = Field(pattern="^[0-9a-f]{64}$")
    after: str
    most_bytes: Count  # the cap
    input_shape: list[Size]  # [C, H, W]
    preprocessing: dict[str, object]
    labels: list[str]
    task: str
    metric: MetricCard
    original_score: Number  # on the test part
    max_drop: Amount
    drop: Number  # of the split, on the test part
    halves_error: Amount  # of both halves without a bottleneck, of the largest value of an output
    link: LinkRecord
    machine: dict[str, object]
    cuts: list[CutRecord]
    alternatives: list[Alternative]
    artefacts: dict[str, dict[str, object]]  # phone and server
    files: dict[str, str]
    notes: list[str]

    @property
    def within(self) -> bool:
        """True where the metric drops no further than was allowed."""
        return self.drop <= self.max_drop
