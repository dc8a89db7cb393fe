"""Some classes of a data set."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch

from slimwright.data.dataset import PARTS, Batch, Dataset, Part
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
        images, labels = self._nothing()
        for batch in self.data.batches(part, batch_size, seed=seed):
            wanted = self._chosen(batch)
            images, labels = torch.cat([images, wanted[0]]), torch.cat([labels, wanted[1]])
            while len(labels) >= batch_size:
                yield images[:batch_size], labels[:batch_size]
                images, labels = images[batch_size:], labels[batch_size:]
        if len(labels):
            yield images, labels

    def _chosen(self, batch: Batch) -> Batch:
        images, labels = batch
        number = torch.full((len(self.data.labels),), -1)
        number[list(self.classes)] = torch.arange(len(self.classes))
        of = number[labels]
        return images[of >= 0], of[of >= 0]

    def _nothing(self) -> Batch:
        return torch.zeros(0, *self.image_shape), torch.zeros(0, dtype=torch.int64)


def of_classes(data: Dataset, classes: Sequence[int]) -> ClassSubset:
    """Return the part of a data set that shows `classes`, once through it to count.

    Raises DataError for a class that is not there or named twice, and where a part shows none of them.
    """
    if not classes or len(set(classes)) < len(classes) or not set(classes) <= set(range(len(data.labels))):
        raise DataError(f"{list(classes)} are no distinct classes of the {len(data.labels)} of '{data.name}'")
    wanted = torch.tensor(list(classes))
    sizes: dict[Part, int] = {}
    for part in PARTS:
        sizes[part] = sum(int(torch.isin(labels, wanted).sum()) for _, labels in data.batches(part, 256))
        if not sizes[part]:
            raise DataError(f"'{data.name}' has no {part} images of the classes {list(classes)}")
    return ClassSubset(data, tuple(classes), sizes)
