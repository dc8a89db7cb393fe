"""Some classes of a data set."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch

from slimwright.data.batch import Batch, count_of, joined, labels_of, taken
from slimwright.data.dataset import PARTS, Dataset, Part
from slimwright.errors import DataError


@dataclass(frozen=True)
class ClassSubset:
    """The images of `classes` alone, in four parts; labels are their numbers in that order."""

    data: Dataset
    classes: tuple[int, ...]
    sizes: Mapping[Part, int]

    @property
    def name(self) -> str:
        """The whole's name and the classes."""
        return f"{self.data.name}, classes {', '.join(self.labels)}"

    @property
    def labels(self) -> tuple[str, ...]:
        """The classes' names, in the order of the scores."""
        return tuple(self.data.labels[number] for number in self.classes)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """[C, H, W] of every image."""
        return self.data.image_shape

    @property
    def preprocessing(self) -> Mapping[str, object]:
        """As for the whole."""
        return self.data.preprocessing

    def size(self, part: Part) -> int:
        """Number of images in a part."""
        return self.sizes[part]

    def batches(self, part: Part, batch_size: int, *, seed: int | None = None) -> Iterator[Batch]:
        """Yield a part once, in batches of `batch_size` but for the last."""
        waiting: list[Batch] = []  # fewer than a batch in all
        for batch in self.data.batches(part, batch_size, seed=seed):
            waiting.append(self._chosen(batch))
            inputs, labels = joined([some for some, _ in waiting]), joined([of for _, of in waiting])
            while count_of(labels) >= batch_size:
                first, rest = slice(batch_size), slice(batch_size, None)
                yield taken(inputs, first), taken(labels, first)
                inputs, labels = taken(inputs, rest), taken(labels, rest)
            waiting = [(inputs, labels)]
        yield from (batch for batch in waiting if count_of(batch[1]))

    def _chosen(self, batch: Batch) -> Batch:
        inputs, targets = batch
        number = torch.full((len(self.data.labels),), -1)
        number[list(self.classes)] = torch.arange(len(self.classes))
        of = number[labels_of(targets)]
        return taken(inputs, of >= 0), of[of >= 0]


def of_classes(data: Dataset, classes: Sequence[int]) -> ClassSubset:
    """Return the part of a data set that shows `classes`, once through it to count.

    Raises DataError for a class that is not there or named twice, and where a part shows none of them.
    """
    if not classes or len(set(classes)) < len(classes) or not set(classes) <= set(range(len(data.labels))):
        raise DataError(f"{list(classes)} are no distinct classes of the {len(data.labels)} of '{data.name}'")
    wanted = torch.tensor(list(classes))
    sizes: dict[Part, int] = {}
    for part in PARTS:
        sizes[part] = sum(int(torch.isin(labels_of(of), wanted).sum()) for _, of in data.batches(part, 256))
        if not sizes[part]:
            raise DataError(f"'{data.name}' has no {part} images of the classes {list(classes)}")
    return ClassSubset(data, tuple(classes), sizes)
