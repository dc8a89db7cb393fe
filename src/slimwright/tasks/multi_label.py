"""Multi-label classification: one output [N, K] of scores; each class is there where its score is above zero.

The classes are independent: the loss is the sum of K binary cross-entropies of the scores' logistic. A label drawn for
each class from its own probability gives the Fisher information (Martens 2020, arXiv 1412.1193, sec. 5).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from slimwright.data import Dataset, Targets, tensors_of
from slimwright.errors import DataError, check_extra
from slimwright.tasks.classification import check_scores
from slimwright.tasks.task import Forward, Metric, Outputs, seeds_of, shapes_said


@dataclass(frozen=True)
class MultiLabel:
    """Any number of classes for an image; targets are [N, K] of zeros and ones."""

    labels: tuple[str, ...]
    outputs: int = 1
    name: str = "multi-label"

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
        shown = self._shown(targets)
        return shown.new_zeros(len(shown), dtype=torch.int64)

    def loss(self, outputs: Outputs, targets: Targets, *, label_smoothing: float = 0.0) -> Tensor:
        """Return the binary cross-entropy [N], summed over classes."""
        wanted = self._shown(targets).to(outputs[0]) * (1 - label_smoothing) + 0.5 * label_smoothing
        return F.binary_cross_entropy_with_logits(outputs[0], wanted, reduction="none").sum(1)

    def drawn_loss(self, outputs: Outputs, numbers: Tensor) -> Tensor:
        """Return the summed loss against labels drawn class by class from the scores."""
        scores = outputs[0]
        likely = scores.detach().cpu().double().sigmoid()
        classes = scores.shape[1]
        uniform = [torch.rand(classes, dtype=torch.float64, generator=g, device="cpu") for g in seeds_of(numbers)]
        drawn = (torch.stack(uniform) < likely).to(scores)
        return F.binary_cross_entropy_with_logits(scores, drawn, reduction="sum")

    def distance(self, outputs: Outputs, wanted: Outputs, temperature: float) -> Tensor:
        """Return T^2 KL(teacher || student) of the scores' logistic at a temperature, summed over classes."""
        student, teacher = outputs[0] / temperature, (wanted[0] / temperature).sigmoid()
        cross = F.binary_cross_entropy_with_logits(student, teacher, reduction="none")
        entropy = F.binary_cross_entropy(teacher, teacher, reduction="none")
        return (cross - entropy).sum(1).mean() * temperature**2

    def score(self, outputs: Outputs, targets: Targets) -> float:
        """Return the average precision in percent, the mean over the classes that occur.

        A score that is not a number counts as the lowest. Raises DataError where no class occurs.
        """
        check_extra("data", "average precision needs", "sklearn")
        from sklearn.metrics import average_precision_score  # it takes a second to import

        shown = self._shown(targets).bool().cpu()
        occurs = shown.any(0)
        if not bool(occurs.any()):
            raise DataError(f"no class is shown in any of {len(shown)} images; average precision needs at least one")
        scores = outputs[0].detach().cpu().double()
        scores = torch.nan_to_num(scores, nan=torch.finfo(scores.dtype).min)
        each = [average_precision_score(shown[:, k].numpy(), scores[:, k].numpy()) for k in occurs.nonzero()[:, 0]]
        return 100 * float(sum(each) / len(each))

    def agreement(self, found: Outputs, expected: Outputs) -> float:
        """Return the share of labels on which both say the same."""
        return float(((found[0] > 0) == (expected[0] > 0)).double().mean())

    def _shown(self, targets: Targets) -> Tensor:
        """The targets [N, K]. Raises DataError for any others."""
        shown, *others = tensors_of(targets)
        if others or shown.shape[1:] != (len(self.labels),):
            said = shapes_said([each.shape for each in tensors_of(targets)])
            raise DataError(
                f"each image needs a 0 or 1 for each of {len(self.labels)} classes, and the data set gives {said}"
            )
        return shown
