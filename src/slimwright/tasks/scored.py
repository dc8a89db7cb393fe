"""A metric of the user's own, for a net of any kind: imitate the original, and be judged by a function.

Where a loss would need the head's own rules (which anchor answers for which box), or the metric has none, the
original's outputs are what training and evidence go by; targets are those of the data, then the original's outputs.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor

from slimwright.data import Dataset, Targets, as_inputs, tensors_of
from slimwright.errors import RequestError
from slimwright.tasks.imitation import Imitation, imitated, imitating
from slimwright.tasks.task import Forward, Making, Metric, Outputs

Measure = Callable[[Outputs, Targets], float]  # a part's outputs and the data's own targets -> the metric
Agreement = Callable[[Outputs, Outputs], float]  # found and expected outputs -> the share of answers that are the same


@dataclass(frozen=True)
class Scored:
    """Imitation of the original, judged by `measure`; answers agree as `agreement` says, or as in imitation."""

    like: Imitation
    measure: Measure
    metric: Metric
    name: str
    agreed: Agreement | None = None

    @property
    def classes(self) -> tuple[str, ...]:
        """Evidence is kept as one."""
        return self.like.classes

    @property
    def outputs(self) -> int:
        """Number of outputs of the network."""
        return self.like.outputs

    def check(self, shapes: Sequence[Sequence[int]]) -> None:
        """Raise DataError where the net has another number of outputs than the original."""
        self.like.check(shapes)

    def data(self, data: Dataset, original: Forward) -> Dataset:
        """Return the data set with the original's outputs behind its own targets."""
        return imitated(data, original, beside=True)

    def class_of(self, targets: Targets) -> Tensor:
        """Return zeros [N]."""
        return self.like.class_of(targets)

    def loss(self, outputs: Outputs, targets: Targets, *, label_smoothing: float = 0.0) -> Tensor:
        """Return the loss [N] of imitation."""
        return self.like.loss(outputs, tensors_of(targets)[-self.outputs :])

    def drawn_loss(self, outputs: Outputs, numbers: Tensor) -> Tensor:
        """Return the summed random projection of the outputs."""
        return self.like.drawn_loss(outputs, numbers)

    def distance(self, outputs: Outputs, wanted: Outputs, temperature: float) -> Tensor:
        """Return the mean loss against a teacher's outputs."""
        return self.like.distance(outputs, wanted, temperature)

    def score(self, outputs: Outputs, targets: Targets) -> float:
        """Return the metric, of the outputs and the data's own targets.

        Raises RequestError where the user's function fails, or gives what is not one number.
        """
        own = as_inputs(tensors_of(targets)[: -self.outputs])
        try:
            return float(self.measure(outputs, own))
        except Exception as error:  # the user's own code may raise anything
            raise RequestError(
                f"the metric '{self.metric.name}' failed: {type(error).__name__}: {error}; it is a function of the "
                f"outputs, a tuple of {len(outputs)} tensors, and the targets, and returns one number"
            ) from error

    def agreement(self, found: Outputs, expected: Outputs) -> float:
        """Return the share of answers that are the same."""
        return (self.agreed or self.like.agreement)(found, expected)


def scored(name: str, measure: Measure, metric: Metric, *, agreement: Agreement | None = None) -> Making:
    """Return how such a task is made: what `--task module:callable` may return, and `shrink(task=...)` takes."""
    return lambda data, original: Scored(imitating(data, original), measure, metric, name, agreement)
