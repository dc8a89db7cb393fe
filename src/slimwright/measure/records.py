"""Records of what was measured, as files hold them: read back, their fields must be these.

Scores are in the unit of the task's metric, such as percent. Predicted and measured numbers never share a field.
"""

from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, Literal

from slimwright.data import PARTS, Dataset
from slimwright.measure.forms import OutputForm, output_form
from slimwright.measure.record import Amount, Count, Error, Number, Record, Size, Time
from slimwright.runner.timing import Latency
from slimwright.runtimes import Artefact
from slimwright.tasks import Metric, Task

Outcome = Literal["kept", "taken back", "not chosen", "left whole"]


class Timing(Record):
    """Measured time of one image, in milliseconds: on the clock, and of the processor."""

    median_ms: Time
    p10_ms: Time
    p90_ms: Time
    runs: Count
    cpu_ms: Amount  # median

    @classmethod
    def of(cls, latency: Latency) -> "Timing":
        """Return the record of a latency."""
        return cls(**asdict(latency))


class Parity(Record):
    """An artefact's outputs against those that it should give, on the same images."""

    images: Count
    max_abs_error: Error
    max_relative_error: Error  # of the largest value of the output
    tolerance: Amount  # on max_relative_error
    agreement: Amount  # share of answers on which both mean the same, by the task
    least_agreement: Amount
    passed: bool


class DropInterval(Record):
    """How much worse one network scored than another on the same images, in the metric's steps, with 95 % limits."""

    drop: Number
    low: Number
    high: Number
    images: Count
    method: Literal["paired", "bootstrap"]  # a mean over images, or any metric
    resamples: Count  # of a bootstrap

    @property
    def shows(self) -> bool:
        """False where the images cannot tell the drop from none."""
        return self.low > 0 or self.high < 0


class MetricCard(Record):
    """The metric that scores and budgets count in."""

    name: str
    unit: str
    step: str
    higher_is_better: bool
    finest: Time = 0.005

    @classmethod
    def of(cls, metric: Metric) -> "MetricCard":
        """Return the record of a metric."""
        return cls(**asdict(metric))

    @property
    def metric(self) -> Metric:
        """The metric itself."""
        return Metric(**self.model_dump())


class TaskCard(Record):
    """What the outputs mean."""

    name: str
    metric: MetricCard
    form: OutputForm | None = None  # how they are to be read, where the name does not say

    @classmethod
    def of(cls, task: Task) -> "TaskCard":
        """Return the record of a task."""
        return cls(name=task.name, metric=MetricCard.of(task.metric), form=output_form(task))


class DataCard(Record):
    """What the device must do to an image, and what the scores mean."""

    name: str
    labels: list[str]
    image_shape: list[Size]
    preprocessing: dict[str, object]
    sizes: dict[str, Count]

    @classmethod
    def of(cls, data: Dataset) -> "DataCard":
        """Return what a bundle says of its data."""
        return cls(
            name=data.name,
            labels=list(data.labels),
            image_shape=list(data.image_shape),
            preprocessing=dict(data.preprocessing),
            sizes={part: data.size(part) for part in PARTS},
        )


class Decision(Record):
    """Something that was proposed or could have been, and what became of it.

    "taken back": measured, and it does not pay or does not hold. "not chosen": it works, another does better.
    "left whole": not changed at all.
    """

    what: str
    outcome: Outcome
    why: str


def said_of(artefact: Artefact, folder: Path) -> dict[str, object]:
    """Return an artefact as JSON-ready data, its files relative to `folder`."""
    said = {field.name: getattr(artefact, field.name) for field in fields(artefact) if field.name != "fallbacks"}
    return {**said, "files": [path.relative_to(folder).as_posix() for path in artefact.files]}


def artefact_of(said: Mapping[str, Any], folder: Path) -> Artefact:
    """Return the artefact that `said_of` described, its files in `folder`."""
    lists = {name: _tuples(value) for name, value in said.items()}
    return Artefact(**{**lists, "files": tuple(folder / name for name in said["files"])})


def _tuples(value: object) -> Any:
    return tuple(_tuples(item) for item in value) if isinstance(value, list) else value
