"""What a split is asked for, and what it is made of: values that every stage of the job reads."""

from dataclasses import dataclass
from pathlib import Path

from slimwright.codec.split.judging import Judge
from slimwright.codec.split.links import Link
from slimwright.codec.split.message import check_cap
from slimwright.codec.split.timing import Machines
from slimwright.data import Dataset
from slimwright.errors import RequestError
from slimwright.graph.net import Net
from slimwright.measure import Original
from slimwright.progress import Tell
from slimwright.runtimes import Workshop
from slimwright.targets import Target
from slimwright.tasks import Task

AIM = 0.5  # of the drop that is allowed: what validation allows, the test part may exceed
AS_HERE = Machines()
JUDGED = 2000  # validation images: of 1,000 a drop of a point has a standard error of about 0.75
RUNTIME = "onnxruntime"


@dataclass(frozen=True)
class Request:
    """For which link and machines, how far the metric may drop, and how much a message may take."""

    link: Link
    machines: Machines = AS_HERE
    max_drop: float = 1.0
    max_bytes: int | None = None  # None: a quarter more than the largest message of the validation part
    tune_minutes: float | None = None  # for each cut that is measured: its server's part may be trained
    candidates: int = 3  # cuts that are measured, of those predicted to be best
    name: str = "model"
    expect: str | None = None
    cache: Path | None = None
    memory_bytes: int | None = None
    workshop: Workshop | None = None
    force: bool = False

    def __post_init__(self) -> None:
        if self.candidates < 1:
            raise RequestError(f"at least one cut is measured, not {self.candidates}; give --candidates 3")
        if self.tune_minutes is not None and not self.tune_minutes > 0:
            raise RequestError(f"--tune-minutes is above 0, not {self.tune_minutes:g}; leave it out to train nothing")
        if not self.max_drop > 0:
            raise RequestError(f"rounding costs something, so --max-drop is above 0, not {self.max_drop:g}")
        if self.max_bytes is not None:
            check_cap(self.max_bytes)


@dataclass(frozen=True)
class Job:
    """What a split is made of: the model, folded; who judges; where it runs."""

    original: Original
    net: Net
    data: Dataset
    task: Task
    request: Request
    judge: Judge
    target: Target
    workshop: Workshop
    folder: Path  # for what goes when the job ends
    tell: Tell

    def within(self, drop: float) -> bool:
        """Whether the metric drops on validation images no further than lets the test part keep what is allowed."""
        return drop <= AIM * self.request.max_drop
