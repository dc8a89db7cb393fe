"""How good outputs are, on images that choices may see or on those that none saw."""

from dataclasses import dataclass

from slimwright.data import Dataset, Inputs, Part, Targets, count_of, taken, whole
from slimwright.measure import Original
from slimwright.tasks import Outputs, Task


@dataclass(frozen=True)
class Judge:
    """Images with their targets, and the original's metric on them."""

    task: Task
    original: Original
    inputs: Inputs
    targets: Targets
    score: float

    @classmethod
    def of(cls, original: Original, data: Dataset, task: Task, part: Part, most: int | None = None) -> "Judge":
        """Return the judge by a part, or by the first so many of its images."""
        inputs, targets = whole(task.data(data, original.forward), part)
        return cls._of(original, task, taken(inputs, slice(most)), taken(targets, slice(most)))

    @classmethod
    def _of(cls, original: Original, task: Task, inputs: Inputs, targets: Targets) -> "Judge":
        return cls(task, original, inputs, targets, task.score(original.forward(inputs), targets))

    def first(self, count: int) -> "Judge":
        """Return the judge by the first images alone."""
        if count >= count_of(self.inputs):
            return self
        return self._of(self.original, self.task, taken(self.inputs, slice(count)), taken(self.targets, slice(count)))

    def drop(self, outputs: Outputs) -> float:
        """Return how much worse outputs are than the original's, in the metric's steps."""
        return self.task.metric.drop(self.score, self.task.score(outputs, self.targets))
