"""What the outputs of a network mean: the one place that knows.

A task owns the loss that evidence and training differentiate, the metric that budgets and proofs count in, and when
two sets of outputs agree. Every other part of the house handles outputs as tensors.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol, TypeAlias

import torch
from torch import Tensor, nn

from slimwright.compute import device_of, placed
from slimwright.data import Dataset, Inputs, Targets, moved, tensors_of

Outputs: TypeAlias = tuple[Tensor, ...]  # of a batch, in the order in which the net returns them, each [N, ...]
Forward: TypeAlias = Callable[[Inputs], Outputs]  # a network, from a batch's inputs to its outputs


@dataclass(frozen=True)
class Metric:
    """A number that says how good outputs are: its name, its unit, and which way is better."""

    name: str  # "accuracy"
    unit: str = "%"  # of a value
    step: str = "points"  # what a difference of 1 is called
    higher_is_better: bool = True
    finest: float = 0.005  # a smaller difference is none; it says how many decimals are shown

    @property
    def title(self) -> str:
        """The name as a sentence begins; an abbreviation, such as "PSNR" or "mIoU", stays as it is."""
        first, *rest = self.name.split(" ", 1)
        return self.name if first != first.lower() else " ".join([first.capitalize(), *rest])

    def drop(self, before: float, after: float) -> float:
        """Return by how much `after` is worse than `before`; negative where it is better."""
        return before - after if self.higher_is_better else after - before

    def shown(self, value: float) -> str:
        """Return a value with its unit, such as "99.72 %"."""
        return f"{self.number(value)} {self.unit}".rstrip()

    def number(self, value: float) -> str:
        """Return a value, or a difference of two, in the decimals that tell values apart, such as "99.72"."""
        return f"{value:.{max(math.floor(-math.log10(self.finest)), 0)}f}"


class Task(Protocol):
    """What the outputs of a network mean. Write a class with these members to bring your own task."""

    @property
    def name(self) -> str:
        """How reports call the task."""

    @property
    def metric(self) -> Metric:
        """What budgets and proofs count in."""

    @property
    def classes(self) -> tuple[str, ...]:
        """The classes whose evidence is kept apart; one where the task has none."""

    @property
    def outputs(self) -> int:
        """Number of outputs of the network."""

    def check(self, shapes: Sequence[Sequence[int]]) -> None:
        """Raise DataError where a net whose outputs have these shapes, each [1, ...], cannot do the task."""

    def data(self, data: Dataset, original: Forward) -> Dataset:
        """Return the data set with this task's targets; `original` is the network as the user gave it."""

    def class_of(self, targets: Targets) -> Tensor:
        """Return the class [N] of each image of a batch, as an index into `classes`."""

    def loss(self, outputs: Outputs, targets: Targets, *, label_smoothing: float = 0.0) -> Tensor:
        """Return the loss [N] of each image, in nats; it can be differentiated."""

    def drawn_loss(self, outputs: Outputs, numbers: Tensor) -> Tensor:
        """Return the summed loss against targets that are drawn from the outputs' own distribution.

        `numbers` [N] float64, from 0 to below 1, draw them, one for each image: an image's part of the sum depends on
        its own outputs and number alone. The squared gradients estimate the Fisher information.
        """

    def distance(self, outputs: Outputs, wanted: Outputs, temperature: float) -> Tensor:
        """Return the mean distance to a teacher's outputs, in nats; it can be differentiated."""

    def score(self, outputs: Outputs, targets: Targets) -> float:
        """Return the metric of outputs, in its unit; of a whole part, as a metric need not be a mean over images."""

    def agreement(self, found: Outputs, expected: Outputs) -> float:
        """Return the share, 0 to 1, of answers (classes, labels) on which two sets of outputs mean the same."""


Making: TypeAlias = Callable[[Dataset, Forward], Task]  # how a task is made from the data and the original


def returned(model: nn.Module, inputs: Inputs) -> Outputs:
    """Return what a module returns for a batch, as a tuple."""
    result = model(*tensors_of(inputs))
    return (result,) if isinstance(result, Tensor) else tuple(result)


def forward_of(model: nn.Module) -> Forward:
    """Return a module, in eval mode and where it lies, as a function from inputs to outputs, without gradients."""
    return partial(_run, model.eval())


@torch.no_grad()
def _run(model: nn.Module, inputs: Inputs) -> Outputs:
    device = device_of(model)
    with placed(device):
        return returned(model, moved(inputs, device))


def shapes_said(shapes: Sequence[Sequence[int]]) -> str:
    """Return shapes as an error says them, such as "[1, 10] and [1, 2]"."""
    return " and ".join(str(list(shape)) for shape in shapes)


def drawn_classes(likely: Tensor, uniform: Tensor, dim: int) -> Tensor:
    """Return classes drawn by numbers from 0 to below 1 from their probabilities, which stand along `dim`."""
    below = likely.cumsum(dim) < uniform.unsqueeze(dim)
    return below.sum(dim).clamp_max(likely.shape[dim] - 1)


def classes_drawn(likely: Tensor, dim: int, seeds: Sequence[torch.Generator]) -> Tensor:
    """Return a class for each position, which the generator of its image draws by probabilities along `dim`."""
    positions = [size for place, size in enumerate(likely.shape) if place not in (0, dim)]
    uniform = [torch.rand(positions, dtype=torch.float64, generator=seed, device="cpu") for seed in seeds]
    return drawn_classes(likely, torch.stack(uniform), dim)


def seeds_of(numbers: Tensor) -> list[torch.Generator]:
    """Return a generator for each of `numbers` [N], float64 from 0 to below 1; other numbers give other draws."""
    return [torch.Generator("cpu").manual_seed(int(number * 2**53)) for number in numbers.tolist()]
