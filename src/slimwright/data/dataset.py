"""What a data set is to slimwright, and one that lies in memory.

Every data set has four parts. `train` teaches weights, `calibration` is observed and solved against, `validation`
decides between candidates, `test` is read once, at the end, and takes part in no choice.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from slimwright.data.batch import Batch
from slimwright.errors import DataError

Part = Literal["train", "calibration", "validation", "test"]
PARTS: tuple[Part, ...] = ("train", "calibration", "validation", "test")
SHARES = {"train": 0.50, "calibration": 0.15, "validation": 0.15, "test": 0.20}


class Dataset(Protocol):
    """Labelled images in four parts. Write a class with these members to bring your own data."""

    @property
    def name(self) -> str:
        """How reports call it."""

    @property
    def labels(self) -> tuple[str, ...]:
        """The classes' names, in the order of the scores."""

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """[C, H, W] of every image."""

    @property
    def preprocessing(self) -> Mapping[str, object]:
        """What was done to raw images, so that the device can do the same."""

    def size(self, part: Part) -> int:
        """Number of images in a part."""

    def batches(self, part: Part, batch_size: int, *, seed: int | None = None) -> Iterator[Batch]:
        """Yield a part once: in order and plain without a seed, shuffled and augmented with one."""


Augment: TypeAlias = Callable[[Tensor, torch.Generator], Tensor]


@dataclass(frozen=True)
class ArrayData:
    """A data set in memory. `augment` changes images of shuffled passes."""

    name: str
    labels: tuple[str, ...]
    parts: Mapping[Part, Batch]
    preprocessing: Mapping[str, object] = field(default_factory=dict)
    augment: Augment | None = None

    def __post_init__(self) -> None:
        for part in PARTS:
            images, labels = self.parts[part]
            if not len(images):
                raise DataError(f"data set '{self.name}' has no {part} images; every part needs at least one")
            if images.ndim != 4 or len(images) != len(labels):
                raise DataError(
                    f"{part} images of '{self.name}' have shape {list(images.shape)} for {len(labels)} labels; "
                    "they must be [N, C, H, W] with one label each"
                )
            if not bool(torch.isfinite(images).all()):
                raise DataError(f"{part} images of '{self.name}' hold NaN or infinite values")
            if int(labels.min()) < 0 or int(labels.max()) >= len(self.labels):
                raise DataError(
                    f"{part} labels of '{self.name}' run from {int(labels.min())} to {int(labels.max())}, "
                    f"but it has {len(self.labels)} classes"
                )

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """[C, H, W] of every image."""
        _, channels, height, width = self.parts["train"][0].shape
        return channels, height, width

    def size(self, part: Part) -> int:
        """Number of images in a part."""
        return len(self.parts[part][1])

    def batches(self, part: Part, batch_size: int, *, seed: int | None = None) -> Iterator[Batch]:
        """Yield a part once: in order and plain without a seed, shuffled and augmented with one."""
        images, labels = self.parts[part]
        if seed is None:
            for start in range(0, len(images), batch_size):
                yield images[start : start + batch_size], labels[start : start + batch_size]
            return
        generator = torch.Generator().manual_seed(seed)
        for chosen in torch.randperm(len(images), generator=generator).split(batch_size):
            batch = images[chosen]
            yield (self.augment(batch, generator) if self.augment else batch), labels[chosen]


def split(images: Tensor, labels: Tensor, *, seed: int) -> dict[Part, Batch]:
    """Deal images into the four parts by `SHARES`, each class alike, fixed by `seed`."""
    rng = np.random.default_rng(seed)
    dealt: dict[Part, list[NDArray[np.int64]]] = {part: [] for part in PARTS}
    for label in np.unique(labels.numpy()):
        members = rng.permutation(np.flatnonzero(labels.numpy() == label))
        ends = np.round(np.cumsum(list(SHARES.values()))[:-1] * len(members)).astype(int)
        for part, share in zip(PARTS, np.split(members, ends), strict=True):
            dealt[part].append(share)
    parts: dict[Part, Batch] = {}
    for part in PARTS:
        chosen = torch.from_numpy(np.sort(np.concatenate(dealt[part] or [np.zeros(0, np.int64)])))
        parts[part] = images[chosen], labels[chosen]
    return parts


def fingerprint(batch: Batch) -> str:
    """Return the SHA-256 of images and labels: what a cache must agree on."""
    hasher = hashlib.sha256()
    for tensor in batch:
        hasher.update(str(tuple(tensor.shape)).encode() + tensor.contiguous().numpy().tobytes())
    return hasher.hexdigest()


def part_fingerprint(data: Dataset, part: Part) -> str:
    """Return the fingerprint of a part, which need not fit into memory: the same as that of the whole part."""
    hasher, labels = hashlib.sha256(), []
    hasher.update(str((data.size(part), *data.image_shape)).encode())
    for images, of in data.batches(part, 256):
        hasher.update(images.contiguous().numpy().tobytes())
        labels.append(of)
    named = torch.cat(labels)
    hasher.update(str(tuple(named.shape)).encode() + named.numpy().tobytes())
    return hasher.hexdigest()


def whole(data: Dataset, part: Part) -> Batch:
    """Return a part as one batch."""
    batches = list(data.batches(part, 256))
    if not batches:
        raise DataError(f"data set '{data.name}' has no {part} images; every part needs at least one")
    return torch.cat([images for images, _ in batches]), torch.cat([labels for _, labels in batches])
