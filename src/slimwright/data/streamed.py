"""A data set whose images are read, decoded or drawn when they are asked for: memory holds one batch at a time.

Where a data set comes with a test part, that stays the test part. Calibration and validation images are dealt from the
training images, each class alike; there are at most as many as are held in memory at once with ease.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from slimwright.data.batch import Batch, Targets, images_of, is_labels, joined, taken
from slimwright.data.dataset import PARTS, SHARES, Augment, Part, check_targets, no_images
from slimwright.data.normalization import Normalization
from slimwright.data.preprocessing import LEVELS, Preprocessing
from slimwright.errors import DataError

HELD_OUT = 0.1  # of the training images of each class, for calibration and again for validation
MOST = {"calibration": 2_000, "validation": 5_000}  # images; a standard error of 0.4 % at 90 % right
MOST_BYTES = 2**30  # of a held-out part as float32

Numbers: TypeAlias = NDArray[np.int64]
Raw: TypeAlias = NDArray[Any] | tuple[NDArray[Any], ...]  # images [N, C, H, W] uint8, or several inputs
Read: TypeAlias = Callable[[Numbers], Raw]  # numbers [N] -> what is read for each
ReadTargets: TypeAlias = Callable[[Numbers], Targets]  # numbers [N] -> targets, each [N, ...]


@dataclass(frozen=True)
class Share:
    """Images of one part: their numbers within what `read` reads, and the targets of each."""

    read: Read
    numbers: Numbers
    targets: Targets  # labels [N] int64; [N, 0] where there are none; or what the task wants
    read_targets: ReadTargets | None = None  # where they are too large to be held; `targets` are [N, 0] then
    pictures: tuple[Path, Sequence[str]] | None = None  # a folder, and the files in it by number, if they are pictures
    beside: Sequence[str] = ()  # by number the pictures that belong to those, such as masks, if there are any

    def only(self, chosen: Numbers) -> "Share":
        """Return the share of the chosen places."""
        return replace(self, numbers=self.numbers[chosen], targets=taken(self.targets, torch.from_numpy(chosen)))

    def wanted(self) -> Targets:
        """Return the targets of every image, read if need be."""
        return self.targets if self.read_targets is None else self.read_targets(self.numbers)

    def with_more(self, other: "Share") -> "Share":
        """Return this share and another of what is read in the same way as one, in the order of the numbers."""
        both = replace(
            self,
            numbers=np.concatenate([self.numbers, other.numbers]),
            targets=joined([self.targets, other.targets]),
        )
        return both.only(np.argsort(both.numbers))


@dataclass(frozen=True)
class StreamedData:
    """A data set read batch by batch: (image / scale - mean) / std, then `augment` on shuffled passes.

    Inputs that are not bytes are taken as they were read. `raw` says what comes before the normalization;
    `superclasses` groups the classes, where the data set does. Data of pictures can be `remade` with a preprocessing
    other than its own, `how`.
    """

    name: str
    labels: tuple[str, ...]
    image_shape: tuple[int, int, int]
    shares: Mapping[Part, Share]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    raw: Mapping[str, object] = field(default_factory=dict)
    augment: Augment | None = None
    superclasses: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    task: str = ""  # the one that its targets are for, where their form does not say
    scale: float = LEVELS
    how: Preprocessing | None = None
    remade: Callable[[Preprocessing], "StreamedData"] | None = None

    def __post_init__(self) -> None:
        for part in PARTS:
            if not len(self.shares[part].numbers):
                raise no_images(self.name, part)
            if not self.task:
                check_targets(f"{part} labels of '{self.name}'", self.shares[part].targets, self.labels)

    @property
    def preprocessing(self) -> Mapping[str, object]:
        """What was done to raw images, so that the device can do the same."""
        said = {"scale": self.scale, "mean": list(self.mean), "std": list(self.std), "layout": "NCHW"}
        return {**self.raw, **said}

    def size(self, part: Part) -> int:
        """Number of images in a part."""
        return len(self.shares[part].numbers)

    def pictures(self, part: Part, most: int) -> list[tuple[Path, Path]]:
        """Return the files of a part's first pictures, each beside the folder that it must lie in; of others, none."""
        share = self.shares[part]
        root, names = share.pictures or (Path(), ())
        return [(root, root / names[number]) for number in share.numbers[:most].tolist()] if names else []

    def batches(self, part: Part, batch_size: int, *, seed: int | None = None) -> Iterator[Batch]:
        """Yield a part once: in order and plain without a seed, shuffled and augmented with one.

        Raises DataError where `augment` meets several inputs.
        """
        share, generator = self.shares[part], torch.Generator()
        order = torch.arange(self.size(part))
        if seed is not None:
            generator.manual_seed(seed)
            order = torch.randperm(self.size(part), generator=generator)
        for chosen in order.split(batch_size):
            picked = share.only(chosen.numpy())
            raw = picked.read(picked.numbers)
            inputs = tuple(map(self._normalized, raw)) if isinstance(raw, tuple) else self._normalized(raw)
            if seed is not None and self.augment:
                inputs = self.augment(images_of(inputs), generator)
            yield inputs, picked.wanted()

    def _normalized(self, raw: NDArray[Any]) -> Tensor:
        if raw.dtype != np.uint8:
            return torch.from_numpy(raw)
        return Normalization(self.mean, self.std, self.scale).of(torch.from_numpy(raw).float())


def of_pictures(
    name: str, labels: Sequence[str], how: Preprocessing, parts: Mapping[Part, Share], *, task: str = ""
) -> StreamedData:
    """Return pictures that are preprocessed as `how` says, as a data set."""
    return StreamedData(name, tuple(labels), how.shape, parts, how.mean, how.std, how.said, task=task, scale=how.scale)


def parted(
    given: Sequence[Share], *, names: Sequence[str], image_shape: tuple[int, int, int], seed: int
) -> dict[Part, Share]:
    """Return the four parts of training images alone, or of those and test images, or those and validation images.

    Each of them stays the part that it is; what is not given is dealt from the training images. Raises DataError as
    `dealt` does.
    """
    train, test, validation = (*given, None, None)[:3]
    assert train is not None
    parts = dealt(train, test, names=names, image_shape=image_shape, seed=seed)
    if validation is not None:
        parts["train"], parts["validation"] = parts["train"].with_more(parts["validation"]), validation
    return parts


def dealt(
    train: Share, test: Share | None, *, names: Sequence[str], image_shape: tuple[int, int, int], seed: int
) -> dict[Part, Share]:
    """Deal training images into train, calibration and validation, and into test where none is given.

    Each class is dealt alike, by `seed`; where an image has no single class, all images are. Raises DataError where
    a class, or the whole, has too few images for every part.
    """
    rng = np.random.default_rng(seed)
    kinds = _kinds(train, names)
    wanted = _wanted(len(kinds), test is None, image_shape)
    chosen: dict[Part, list[Numbers]] = {part: [] for part in PARTS}
    for what, members in kinds:
        order, start = rng.permutation(members), 0
        for part, count in wanted(len(order)).items():
            chosen[part].append(order[start : start + count])
            start += count
        if start >= len(order):
            raise DataError(
                f"{what} {len(order)} training images; it needs at least {start + 1}, one for each part. "
                f"Add images{', or leave the class out' if names else ''}"
            )
        chosen["train"].append(order[start:])
    shares = {part: train.only(np.sort(np.concatenate(places))) for part, places in chosen.items() if places}
    return shares if test is None else {**shares, "test": test}


def _kinds(train: Share, names: Sequence[str]) -> list[tuple[str, Numbers]]:
    """The places of the images of each class, and what to call it; of all, where an image has no single class."""
    if not names or not is_labels(train.targets):
        return [("the data set has", np.arange(len(train.numbers)))]
    labels = train.targets.numpy()
    return [(f"class '{name}' has", np.flatnonzero(labels == label)) for label, name in enumerate(names)]


def _wanted(classes: int, with_test: bool, image_shape: tuple[int, int, int]) -> Callable[[int], dict[Part, int]]:
    """Return how many images of a class go to each part but train, given how many it has."""
    image_bytes = 4 * int(np.prod(image_shape))
    most = {part: max(1, min(limit, MOST_BYTES // image_bytes) // classes) for part, limit in MOST.items()}

    def wanted(members: int) -> dict[Part, int]:
        tested: dict[Part, int] = {"test": max(1, round(SHARES["test"] * members))} if with_test else {}
        held = max(1, round(HELD_OUT * (members - sum(tested.values()))))
        return {**tested, "calibration": min(held, most["calibration"]), "validation": min(held, most["validation"])}

    return wanted


def cropped(images: Tensor, generator: torch.Generator, *, margin: int, mirror: bool) -> Tensor:
    """Return the images moved by up to `margin` pixels, zeros moving in, and half of them mirrored if asked for.

    Zero is the mean colour. Source: He et al. 2016 (arXiv 1512.03385), sec. 4.2, where the margin is 4.
    """
    count, _, height, width = images.shape
    down, across = (torch.randint(2 * margin + 1, (count,), generator=generator) for _ in range(2))
    rows = (torch.arange(height) + down[:, None])[:, None, :, None]
    columns = torch.arange(width) + across[:, None]
    if mirror:
        turned = torch.rand(count, generator=generator) < 0.5
        columns = torch.where(turned[:, None], columns.flip(1), columns)
    padded = F.pad(images, [margin] * 4)
    every = torch.arange(count)[:, None, None, None], torch.arange(images.shape[1])[None, :, None, None]
    return padded[(*every, rows, columns[:, None, None, :])]
