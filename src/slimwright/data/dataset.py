"""What a data set is to slimwright, and one that lies in memory.

Every data set has four parts. `train` teaches weights, `calibration` is observed and solved against, `validation`
decides between candidates, `test` is read once, at the end, and takes part in no choice.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Literal, Protocol, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from slimwright.data.batch import Batch, Inputs, Targets, count_of, images_of, is_labels, joined, taken, tensors_of
from slimwright.errors import DataError

Part = Literal["train", "calibration", "validation", "test"]
PARTS: tuple[Part, ...] = ("train", "calibration", "validation", "test")
SHARES = {"train": 0.50, "calibration": 0.15, "validation": 0.15, "test": 0.20}


class Dataset(Protocol):
    """Images in four parts, with labels or without. Write a class with these members to bring your own data.

    One whose targets are for a task other than classification may name it in an attribute `task`.
    """

    @property
    def name(self) -> str:
        """How reports call it."""

    @property
    def labels(self) -> tuple[str, ...]:
        """The classes' names, in the order of the scores; none where the images have no labels."""

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """[C, H, W] of every image; of several inputs, of the first that is images."""

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
    """A data set in memory. `augment` changes the images of shuffled passes.

    Targets are labels [N], or zeros and ones [N, K] where an image shows any number of the K classes; without class
    names they are anything, and [N, 0] where there are none. Raises DataError where tensors do not fit together.
    """

    name: str
    labels: tuple[str, ...]
    parts: Mapping[Part, Batch]
    preprocessing: Mapping[str, object] = field(default_factory=dict)
    augment: Augment | None = None

    def __post_init__(self) -> None:
        for part in PARTS:
            if part not in self.parts or not any(map(len, tensors_of(self.parts[part][0]))):
                raise no_images(self.name, part)
            inputs, targets = self.parts[part]
            _check_inputs(f"{part} images of '{self.name}'", inputs, targets)
            check_targets(f"{part} labels of '{self.name}'", targets, self.labels)
        if self.augment and not isinstance(self.parts["train"][0], Tensor):
            raise DataError(f"'{self.name}' has several inputs, and `augment` changes images alone; leave it out")

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """[C, H, W] of every image; of several inputs, of the first that is images."""
        _, channels, height, width = next(t.shape for t in tensors_of(self.parts["train"][0]) if t.ndim == 4)
        return channels, height, width

    def size(self, part: Part) -> int:
        """Number of images in a part."""
        return count_of(self.parts[part][0])

    def batches(self, part: Part, batch_size: int, *, seed: int | None = None) -> Iterator[Batch]:
        """Yield a part once: in order and plain without a seed, shuffled and augmented with one."""
        inputs, targets = self.parts[part]
        if seed is None:
            for start in range(0, self.size(part), batch_size):
                chosen = slice(start, start + batch_size)
                yield taken(inputs, chosen), taken(targets, chosen)
            return
        generator = torch.Generator().manual_seed(seed)
        for chosen in torch.randperm(self.size(part), generator=generator).split(batch_size):
            batch = taken(inputs, chosen)
            changed = self.augment(images_of(batch), generator) if self.augment else batch
            yield changed, taken(targets, chosen)


def no_images(name: str, part: Part) -> DataError:
    """Return the error that says that a part has no images."""
    return DataError(f"data set '{name}' has no {part} images; every part needs at least one")


def _check_inputs(what: str, inputs: Inputs, targets: Targets) -> None:
    every = (*tensors_of(inputs), *tensors_of(targets))
    if all(tensor.ndim != 4 for tensor in tensors_of(inputs)) or len({tensor.shape[:1] for tensor in every}) > 1:
        have, wanted = (" and ".join(str(list(t.shape)) for t in tensors_of(value)) for value in (inputs, targets))
        raise DataError(
            f"{what} have shape {have} for targets of shape {wanted}; they must be [N, C, H, W], with a target for each"
        )
    if not all(bool(torch.isfinite(tensor).all()) for tensor in tensors_of(inputs)):
        raise DataError(f"{what} hold NaN or infinite values")


def check_targets(what: str, targets: Targets, names: Sequence[str]) -> None:
    """Raise DataError where labels [N] lie beyond the classes of these names, or [N, K] is not a 0 or 1 for each class.

    Targets of any other shape, and numbers of data without classes, are the task's concern.
    """
    if not isinstance(targets, Tensor) or targets.ndim > 2 or (not names and not is_labels(targets)):
        return
    if targets.ndim == 2 and (targets.shape[1] != len(names) or not bool(((targets == 0) | (targets == 1)).all())):
        raise DataError(
            f"{what} have shape {list(targets.shape)} and run from {_extent(targets)}; for {len(names)} classes they "
            f"must be whole numbers [N], or zeros and ones [N, {len(names)}]"
        )
    if targets.ndim == 1 and (int(targets.min()) < 0 or int(targets.max()) >= len(names)):
        raise DataError(f"{what} run from {_extent(targets)}, but it has {len(names)} classes")


def _extent(targets: Tensor) -> str:
    return f"{targets.min():g} to {targets.max():g}" if targets.numel() else "nothing to nothing"


def split(inputs: Inputs, targets: Targets, *, seed: int) -> dict[Part, Batch]:
    """Deal images into the four parts by `SHARES`, fixed by `seed`; where targets are labels [N], each class alike."""
    rng = np.random.default_rng(seed)
    dealt: dict[Part, list[NDArray[np.int64]]] = {part: [] for part in PARTS}
    kinds = targets.numpy() if is_labels(targets) else np.zeros(count_of(inputs), np.int64)
    for kind in np.unique(kinds):
        members = rng.permutation(np.flatnonzero(kinds == kind))
        ends = np.round(np.cumsum(list(SHARES.values()))[:-1] * len(members)).astype(int)
        for part, share in zip(PARTS, np.split(members, ends), strict=True):
            dealt[part].append(share)
    parts: dict[Part, Batch] = {}
    for part in PARTS:
        chosen = torch.from_numpy(np.sort(np.concatenate(dealt[part] or [np.zeros(0, np.int64)])))
        parts[part] = taken(inputs, chosen), taken(targets, chosen)
    return parts


def fingerprint(batch: Batch) -> str:
    """Return the SHA-256 of inputs and targets: what a cache must agree on."""
    hasher = hashlib.sha256()
    for value in batch:
        hasher.update(_opening(value))
        for tensor in tensors_of(value):
            hasher.update(_head(tensor.shape) + _bytes(tensor))
    return hasher.hexdigest()


def part_fingerprint(data: Dataset, part: Part) -> str:
    """Return the fingerprint of a part, which need not fit into memory: the same as that of the whole part.

    It takes a pass over the part for each input.
    """
    hasher, size = hashlib.sha256(), data.size(part)
    first = next(data.batches(part, 1), None)
    if first is None:
        raise no_images(data.name, part)
    hasher.update(_opening(first[0]))
    for place, one in enumerate(tensors_of(first[0])):
        hasher.update(_head((size, *one.shape[1:])))
        targets = []
        for inputs, of in data.batches(part, 256):
            hasher.update(_bytes(tensors_of(inputs)[place]))
            targets.append(of)
    every = joined(targets)
    hasher.update(_opening(every))
    for tensor in tensors_of(every):
        hasher.update(_head(tensor.shape) + _bytes(tensor))
    return hasher.hexdigest()


def _opening(value: Inputs | Targets) -> bytes:
    """What stands before several tensors in a fingerprint, so that none passes from the inputs to the targets."""
    return b"" if isinstance(value, Tensor) else f"{len(value)} tensors".encode()


def _head(shape: Sequence[int]) -> bytes:
    return str(tuple(shape)).encode()


def _bytes(tensor: Tensor) -> bytes:
    return tensor.contiguous().numpy().tobytes()


def whole(data: Dataset, part: Part) -> Batch:
    """Return a part as one batch."""
    batches = list(data.batches(part, 256))
    if not batches:
        raise no_images(data.name, part)
    return joined([inputs for inputs, _ in batches]), joined([targets for _, targets in batches])


def calibration_inputs(data: Dataset, images: int | None = None) -> Inputs:
    """Return the inputs of the calibration part, [N, ...] each: of the first so many images, or of all."""
    return _first(data, data.batches("calibration", 256), images)


def unlabelled_inputs(data: Dataset, images: int) -> Inputs:
    """Return the inputs of the first so many images of the calibration part and the training part behind it.

    Training images come as they are. They may be looked at where calibration images are too few and labels not needed.
    """
    parts: tuple[Part, ...] = ("calibration", "train")
    return _first(data, chain.from_iterable(data.batches(part, 256) for part in parts), images)


def _first(data: Dataset, batches: Iterable[Batch], images: int | None) -> Inputs:
    found: list[Inputs] = []
    for inputs, _ in batches:
        found.append(inputs)
        if images is not None and sum(map(count_of, found)) >= images:
            break
    if not found:
        raise no_images(data.name, "calibration")
    return taken(joined(found), slice(images))
