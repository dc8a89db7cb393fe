"""Is a network doing its task at all? What a task must say for that, and the orders that classes are mistaken for."""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, TypeAlias, runtime_checkable

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from slimwright.data import Targets
from slimwright.tasks.task import Outputs

Order: TypeAlias = tuple[int, ...]  # of each class, the number of the score that is its own


@runtime_checkable
class Judging(Protocol):
    """A task whose answers are right or wrong, image by image."""

    @property
    def classes(self) -> tuple[str, ...]:
        """The classes, in the order of the scores."""

    def right(self, outputs: Outputs, targets: Targets) -> Tensor:
        """Return of each image [N] whether its answer is right."""

    def chance(self, targets: Targets) -> float:
        """Return the share, 0 to 1, that is right without looking at images."""

    def orders(self) -> Mapping[str, Order]:
        """Return the orders of classes that this one is easily mistaken for, by what to call them."""

    def assigned(self, outputs: Outputs, targets: Targets) -> Order:
        """Return the order of classes in which the outputs are right most often."""

    def reordered(self, outputs: Outputs, order: Order) -> Outputs:
        """Return the outputs with the scores in the data's order."""


def known_orders(names: Sequence[str]) -> dict[str, Order]:
    """Return orders of classes with these names, other than theirs, by what to call them."""
    count = len(names)
    sorts: Mapping[str, Callable[[str], Any]] = {
        "the order of the numbers in the names, not of their letters": _by_number,
        "the order of the names without regard to capitals": str.casefold,
        "the order of the names by their letters": str,
    }
    found: dict[str, Order] = {}
    for said, key in sorts.items():
        place = {name: rank for rank, name in enumerate(sorted(names, key=key))}
        found[said] = tuple(place[name] for name in names)
    found["each class one score later, as with a background class in front"] = (*range(1, count), 0)
    found["each class one score earlier, as if a background class were missing"] = (count - 1, *range(count - 1))
    found["the opposite order"] = tuple(range(count))[::-1]
    return {said: order for said, order in found.items() if order != tuple(range(count))}


def assignment(scores: Tensor, labels: Tensor) -> Order:
    """Return for each class the score that is largest on most of its images, no score twice (Kuhn 1955)."""
    classes = scores.shape[1]
    counts = torch.zeros(classes, classes, dtype=torch.int64)
    counts.index_put_((labels, scores.argmax(1).cpu()), torch.ones(len(labels), dtype=torch.int64), accumulate=True)
    counts = 2 * counts + torch.eye(classes, dtype=torch.int64)  # of equal ones the class's own
    _, chosen = linear_sum_assignment(counts.numpy(), maximize=True)
    return tuple(map(int, chosen))


def _by_number(name: str) -> tuple[tuple[int, int, str], ...]:
    """A key that sorts numbers in texts as numbers."""
    return tuple(
        (0, int(part), "") if part.isascii() and part.isdigit() else (1, 0, part)
        for part in re.split(r"(\d+)", name)
        if part
    )
