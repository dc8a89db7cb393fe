"""Multi-label classification: one output [N, K] of scores; each class is there where its score is above zero.

The classes are independent: the loss is the sum of K binary cross-entropies of the scores' logistic.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from sklearn.metrics import average_precision_score
from torch import Tensor
from torch.nn import functional as F

from slimwright.data import Dataset, Targets
from slimwright.tasks.classification import check_scores, labels_of
from slimwright.tasks.task import Forward, Metric, Outputs


@dataclass(frozen=True)
class MultiLabel:
    """Any number of classes for an image; targets are [N, K] of zeros and ones."""

    labels: tuple[str, ...]
    outputs: int = 1
    name: str = "multi-label classification"

    @property
    def metric(self) -> Metric:
        """The average precision of a class, over the classes."""
        return Metric("mean average precision")

    @property
    def classes(self) -> tuple[str, ...]:
        """Evidence is kept as one: an image has no single class."""
        return ("all",)

    def check(self, shapes: Sequence[Sequence[int]]) -> None:
        """Raise DataError unless there is one output with a score for each class."""
        check_scores(shapes, self.labels)

    def data(self, data: Dataset, original: Forward) -> Dataset:
        """Return the data set: its labels are the targets."""
        return data

    def class_of(self, targets: Targets) -> Tensor:
        """Return zeros [N]."""
        return torch.zeros(len(labels_of(targets)), dtype=torch.int64)

    def loss(self, outputs: Outputs, targets: Targets, *, label_smoothing: float = 0.0) -> Tensor:
        """Return the binary cross-entropy [N], summed over classes."""
        wanted = labels_of(targets).to(outputs[0]) * (1 - label_smoothing) + 0.5 * label_smoothing
        return F.binary_cross_entropy_with_logits(outputs[0], wanted, reduction="none").sum(1)

    def drawn_loss(self, outputs: Outputs, numbers: Tensor) -> Tensor:
        """Return the summed loss against labels drawn class by class from the scores."""
        scores = outputs[0]
        likely = scores.detach().cpu().double().sigmoid()
        drawn = torch.stack([_uniform(scores.shape[1], number) for number in numbers.tolist()]) < likely
        return F.binary_cross_entropy_with_logits(scores, drawn.to(scores), reduction="sum")

    def distance(self, outputs: Outputs, wanted: Outputs, temperature: float) -> Tensor:
        """Return T^2 times the divergence of the scores' logistic at a temperature, summed over classes."""
        student, teacher = outputs[0] / temperature, (wanted[0] / temperature).sigmoid()
        cross = F.binary_cross_entropy_with_logits(student, teacher, reduction="none")
        entropy = F.binary_cross_entropy(teacher, teacher, reduction="none")
        return (cross - entropy).sum(1).mean() * temperature**2

    def score(self, outputs: Outputs, targets: Targets) -> float:
        """Return the average precision in percent, the mean over the classes that occur."""
        there = labels_of(targets).bool().cpu()
        occurs = there.any(0)
        if not bool(occurs.any()):
            return 0.0
        precision = average_precision_score(there[:, occurs].numpy(), outputs[0][:, occurs].detach().cpu().numpy())
        return 100 * float(precision)

    def agreement(self, found: Outputs, expected: Outputs) -> float:
        """Return the share of labels on which both say the same."""
        return float(((found[0] > 0) == (expected[0] > 0)).float().mean())


def _uniform(count: int, number: float) -> Tensor:
    """Return numbers [count] in 0..1 that `number` draws."""
    generator = torch.Generator().manual_seed(int(number * 2**53))
    return torch.rand(count, dtype=torch.float64, generator=generator)
