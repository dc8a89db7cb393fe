"""Classification: one output [N, K] of scores, of which the largest names the class.

The loss is the cross-entropy; a label drawn from the network's own scores gives the Fisher information (Martens 2020,
arXiv 1412.1193, sec. 5). The distance to a teacher is that of Hinton et al. 2015 (arXiv 1503.02531, sec. 2).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional as F

from slimwright.data import Dataset, Targets, labels_of
from slimwright.errors import DataError
from slimwright.tasks.judging import Order, assignment, known_orders
from slimwright.tasks.task import Forward, Metric, Outputs, drawn_classes, shapes_said


@dataclass(frozen=True)
class Classification:
    """The right class is among the `top` with the largest scores."""

    classes: tuple[str, ...]
    top: int = 1
    outputs: int = 1
    name: str = "classification"

    @property
    def metric(self) -> Metric:
        """The share of images whose class is named."""
        return Metric("accuracy" if self.top == 1 else f"top-{self.top} accuracy")

    def check(self, shapes: Sequence[Sequence[int]]) -> None:
        """Raise DataError unless there is one output with a score for each class, and `top` tells classes apart."""
        check_scores(shapes, self.classes)
        if 1 < self.top >= len(self.classes):
            raise DataError(
                f"of {len(self.classes)} classes the right one is always among {self.top}; choose the task "
                "'classification'"
            )

    def data(self, data: Dataset, original: Forward) -> Dataset:
        """Return the data set: its labels are the targets."""
        return data

    def class_of(self, targets: Targets) -> Tensor:
        """Return the labels [N]."""
        return labels_of(targets)

    def loss(self, outputs: Outputs, targets: Targets, *, label_smoothing: float = 0.0) -> Tensor:
        """Return the cross-entropy [N]."""
        labels = labels_of(targets).to(outputs[0].device)
        return F.cross_entropy(outputs[0], labels, reduction="none", label_smoothing=label_smoothing)

    def drawn_loss(self, outputs: Outputs, numbers: Tensor) -> Tensor:
        """Return the summed cross-entropy against labels drawn from the scores."""
        scores = outputs[0]
        drawn = drawn_classes(scores.detach().cpu().double().softmax(1), numbers, 1)
        return F.cross_entropy(scores, drawn.to(scores.device), reduction="sum")

    def distance(self, outputs: Outputs, wanted: Outputs, temperature: float) -> Tensor:
        """Return T^2 KL(teacher || student) of the scores at a temperature."""
        student = F.log_softmax(outputs[0] / temperature, dim=1)
        teacher = F.log_softmax(wanted[0] / temperature, dim=1)
        return F.kl_div(student, teacher, reduction="batchmean", log_target=True) * temperature**2

    def score(self, outputs: Outputs, targets: Targets) -> float:
        """Return the share of images, in percent, whose class is among the `top` with the largest scores."""
        return 100 * float(self.right(outputs, targets).double().mean())

    def right(self, outputs: Outputs, targets: Targets) -> Tensor:
        """Return of each image [N] whether its class is among the `top` with the largest scores."""
        labels = labels_of(targets).to(outputs[0].device)
        return (_named(outputs[0], self.top) == labels[:, None]).any(1)

    def chance(self, targets: Targets) -> float:
        """Return the share of images that show one of the `top` most frequent classes."""
        counts = labels_of(targets).bincount(minlength=len(self.classes))
        return float(counts.topk(min(self.top, len(counts))).values.sum() / counts.sum())

    def orders(self) -> Mapping[str, Order]:
        """Return the orders of the classes' names that are mistaken for one another."""
        return known_orders(self.classes)

    def assigned(self, outputs: Outputs, targets: Targets) -> Order:
        """Return the order of classes in which the largest scores are right most often."""
        return assignment(outputs[0], labels_of(targets))

    def reordered(self, outputs: Outputs, order: Order) -> Outputs:
        """Return the scores [N, K], each where its class is in the data's order."""
        return (outputs[0][:, list(order)],)

    def agreement(self, found: Outputs, expected: Outputs) -> float:
        """Return the share of images on which both name the same class."""
        return float((found[0].argmax(1) == expected[0].argmax(1)).double().mean())


def check_scores(shapes: Sequence[Sequence[int]], classes: Sequence[str]) -> None:
    """Raise DataError unless there is one output [1, K] with a score for each of K classes."""
    if len(shapes) != 1 or tuple(shapes[0]) != (1, len(classes)):
        raise DataError(
            f"the model returns {shapes_said(shapes)} for an image, and the data has {len(classes)} classes; a "
            f"classifier returns [1, {len(classes)}]. For a net of any other kind, choose the task 'imitation'"
        )


def _named(scores: Tensor, top: int) -> Tensor:
    """The classes [N, top] with the largest scores; of equal ones that are first, the one with the lowest number."""
    return scores.argmax(1, keepdim=True) if top == 1 else scores.topk(top, dim=1).indices
