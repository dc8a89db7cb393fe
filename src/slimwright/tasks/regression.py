"""Regression: one output [N, K], K numbers of an image, such as an age or an angle.

The loss of an image is half the mean squared error of its numbers, each in units of its deviation over the calibration
images (`gaussian.py`). The metric is the mean absolute error: in the numbers' unit, where all have one or none, which
the end of a name says in brackets ("age [years]", "weight (kg)"); else in deviations.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from slimwright.data import Dataset, Targets, tensors_of
from slimwright.errors import DataError
from slimwright.tasks.gaussian import LEAST_DEVIATION, projected, squares
from slimwright.tasks.restoration import restoring
from slimwright.tasks.task import Forward, Metric, Outputs, Task, seeds_of, shapes_said

ALIKE = 0.2  # deviations: numbers nearer than that mean the same
UNIT = re.compile(r".*[\[(]([^\[\]()]{1,12})[\])]\s*")
FINEST = 0.005  # of a deviation's power of ten: differences below are not told


@dataclass(frozen=True)
class Regression:
    """Outputs shall be the numbers of an image, which vary by `deviations`; `unit` is "" where they have several."""

    deviations: tuple[float, ...]
    unit: str = "units"
    outputs: int = 1
    name: str = "regression"

    @property
    def metric(self) -> Metric:
        """The mean absolute error, in decimals that tell apart what varies so much."""
        if not self.unit:
            return Metric("mean absolute error", "deviations", "deviations", higher_is_better=False)
        finest = FINEST * 10.0 ** math.floor(math.log10(min(self.deviations)))
        return Metric("mean absolute error", self.unit, self.unit, higher_is_better=False, finest=finest)

    @property
    def classes(self) -> tuple[str, ...]:
        """Evidence is kept as one."""
        return ("all",)

    def check(self, shapes: Sequence[Sequence[int]]) -> None:
        """Raise DataError unless there is one output with as many numbers as the targets have."""
        if len(shapes) != 1 or math.prod(shapes[0][1:]) != len(self.deviations):
            count = len(self.deviations)
            raise DataError(
                f"the model returns {shapes_said(shapes)}, and the data has {count} numbers; a net for them "
                f"returns [1, {count}]. For a net of any other kind, choose the task 'imitation'"
            )

    def data(self, data: Dataset, original: Forward) -> Dataset:
        """Return the data set: its numbers are the targets."""
        return data

    def class_of(self, targets: Targets) -> Tensor:
        """Return zeros [N]."""
        wanted = _numbers(targets)
        return wanted.new_zeros(len(wanted), dtype=torch.int64)

    def loss(self, outputs: Outputs, targets: Targets, *, label_smoothing: float = 0.0) -> Tensor:
        """Return half the squared error [N] in units of the deviations, the mean over numbers."""
        return 0.5 * squares(self._shares(outputs[0]), self._shares(_numbers(targets).to(outputs[0].device)), 1.0)

    def drawn_loss(self, outputs: Outputs, numbers: Tensor) -> Tensor:
        """Return the summed random projection of the output."""
        return projected(self._shares(outputs[0]), 1.0, seeds_of(numbers))

    def distance(self, outputs: Outputs, wanted: Outputs, temperature: float) -> Tensor:
        """Return the mean loss against a teacher's output; a temperature has no meaning here."""
        return 0.5 * squares(self._shares(outputs[0]), self._shares(wanted[0]), 1.0).mean()

    def score(self, outputs: Outputs, targets: Targets) -> float:
        """Return the mean absolute error over images and numbers; infinite where an output is not a number."""
        found, wanted = outputs[0].detach().cpu().double().flatten(1), _numbers(targets).cpu().double()
        error = (found - wanted).abs()
        mean = float((error if self.unit else self._shares(error)).mean())
        return math.inf if math.isnan(mean) else mean

    def agreement(self, found: Outputs, expected: Outputs) -> float:
        """Return the share of numbers that differ by little beside their deviation."""
        return float((self._shares(found[0].float() - expected[0].float()).abs() <= ALIKE).double().mean())

    def _shares(self, values: Tensor) -> Tensor:
        """Numbers [N, K] in units of their deviations."""
        flat = values.reshape(len(values), len(self.deviations))
        return flat / torch.tensor(self.deviations, dtype=flat.dtype, device=flat.device)


def regressing(data: Dataset, original: Forward) -> Task:
    """Return the task for numbers, with their deviations over calibration images; that for maps, where targets are."""
    every = []
    for _, targets in data.batches("calibration", 64):
        if tensors_of(targets)[0].ndim == 4:
            return restoring(data, original, "MAE")
        every.append(_numbers(targets).double())
    wanted = torch.cat(every)
    deviations = wanted.std(0, unbiased=False)
    least = LEAST_DEVIATION * wanted.square().mean(0).sqrt()
    deviations = torch.where(deviations > least, deviations, torch.ones_like(deviations))
    found = {match[1].strip() if (match := UNIT.fullmatch(name)) else "units" for name in data.labels} or {"units"}
    return Regression(tuple(deviations.tolist()), found.pop() if len(found) == 1 else "")


def _numbers(targets: Targets) -> Tensor:
    """The targets [N, K]. Raises DataError for any others."""
    wanted, *others = tensors_of(targets)
    wanted = wanted[:, None] if wanted.ndim == 1 else wanted
    if others or wanted.ndim != 2 or not wanted.is_floating_point():
        said = shapes_said([each.shape for each in tensors_of(targets)])
        raise DataError(f"each image needs K numbers [K] that are not whole ones, and the data set gives {said}")
    return wanted
