"""CIFAR-10 and CIFAR-100 in their binary versions: records of labels and 3,072 bytes, red plane first.

Source: Krizhevsky 2009, "Learning Multiple Layers of Features from Tiny Images", and the description of the binary
version on the data sets' page: one label byte in CIFAR-10, a coarse and a fine one in CIFAR-100.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from slimwright.data import files
from slimwright.data.streamed import Numbers, Share, StreamedData, cropped, dealt
from slimwright.errors import DataError

SHAPE = (3, 32, 32)
PIXELS = 3 * 32 * 32
COARSE = 20  # super-classes of CIFAR-100


@dataclass(frozen=True)
class Format:
    """What differs between the two; `mean` and `std` are those of the pixels of the 50,000 training images."""

    name: str
    classes: int
    label_bytes: int
    names_at: str
    holds: str
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


TEN = Format(
    name="cifar10",
    classes=10,
    label_bytes=1,
    names_at="batches.meta.txt",
    holds="data_batch_1.bin and so on, and test_batch.bin (the binary version, often named cifar-10-batches-bin)",
    mean=(0.4914, 0.4822, 0.4465),
    std=(0.2470, 0.2435, 0.2616),
)
HUNDRED = Format(
    name="cifar100",
    classes=100,
    label_bytes=2,
    names_at="fine_label_names.txt",
    holds="train.bin and test.bin (the binary version, often named cifar-100-binary)",
    mean=(0.5071, 0.4867, 0.4408),
    std=(0.2673, 0.2564, 0.2762),
)


def cifar10(path: Path, seed: int = 0) -> StreamedData:
    """Return CIFAR-10 from its folder; `seed` deals the training images. Raises DataError, naming the file."""
    files.folder(path, TEN.holds)
    _refuse_pickles(path, "data_batch_1", TEN)
    records = [_records(path, at, TEN) for at in _batches(path)]
    return _data(TEN, path, records, _records(path, path / "test_batch.bin", TEN), seed)


def cifar100(path: Path, seed: int = 0) -> StreamedData:
    """Return CIFAR-100 from its folder, with its super-classes; otherwise as `cifar10`."""
    files.folder(path, HUNDRED.holds)
    _refuse_pickles(path, "train", HUNDRED)
    train, test = (_records(path, path / name, HUNDRED) for name in ("train.bin", "test.bin"))
    return _data(HUNDRED, path, [train], test, seed)


def _data(
    form: Format, path: Path, train: Sequence[NDArray[np.uint8]], test: NDArray[np.uint8], seed: int
) -> StreamedData:
    names = _names(path, form.names_at, form.classes)
    return StreamedData(
        name=form.name,
        labels=names,
        image_shape=SHAPE,
        shares=dealt(_share(train, form), _share([test], form), names=names, image_shape=SHAPE, seed=seed),
        mean=form.mean,
        std=form.std,
        raw={"channels": "RGB", "size": [32, 32]},
        augment=partial(cropped, margin=4, mirror=True),
        superclasses=_superclasses(path, train) if form is HUNDRED else {},
    )


def _batches(path: Path) -> list[Path]:
    """The training files in their order; a gap in their numbers is a file that was lost."""
    numbered = {int(m[1]): at for at in path.iterdir() if (m := re.fullmatch(r"data_batch_(\d{1,3})\.bin", at.name))}
    missing = set(range(1, max(numbered, default=1) + 1)) - set(numbered)
    if missing:
        raise DataError(f"{path} has no data_batch_{min(missing)}.bin; name the folder that holds {TEN.holds}")
    return [numbered[number] for number in sorted(numbered)]


def _records(path: Path, at: Path, form: Format) -> NDArray[np.uint8]:
    """The records [N, label bytes + 3072] of a file, left on the disk until they are asked for."""
    if not at.exists():
        raise DataError(f"{path} has no {at.name}; name the folder that holds {form.holds}")
    data, record = files.mapped(files.held(path, at)), form.label_bytes + PIXELS
    if len(data) % record:
        raise DataError(
            f"{at} has {len(data)} bytes, which is no whole number of {form.name} records of {record}: it is cut short "
            "or of another kind; get it again"
        )
    records = data.reshape(-1, record)
    limits = (COARSE, form.classes)[-form.label_bytes :]
    for place, limit in enumerate(limits):
        beyond = np.flatnonzero(records[:, place] >= limit)
        if len(beyond):
            bad = int(beyond[0])
            raise DataError(
                f"record {bad} of {at} has the label {records[bad, place]}, and {form.name} has 0 to {limit - 1}: "
                "it is damaged or of another kind; get it again"
            )
    return records


def _share(parts: Sequence[NDArray[np.uint8]], form: Format) -> Share:
    labels = np.concatenate([records[:, form.label_bytes - 1] for records in parts]).astype(np.int64)
    return Share(partial(_read, parts, form.label_bytes), np.arange(len(labels)), torch.from_numpy(labels))


def _read(parts: Sequence[NDArray[np.uint8]], label_bytes: int, numbers: Numbers) -> NDArray[np.uint8]:
    """The images [N, 3, 32, 32] of these numbers, counted through all the parts."""
    images, starts = np.empty((len(numbers), *SHAPE), np.uint8), np.cumsum([0, *map(len, parts)])
    home = np.searchsorted(starts, numbers, side="right") - 1
    for index in np.unique(home):
        here = home == index
        rows = parts[index][numbers[here] - starts[index]]
        images[here] = rows[:, label_bytes:].reshape(-1, *SHAPE)
    return images


def _superclasses(path: Path, train: Sequence[NDArray[np.uint8]]) -> Mapping[str, tuple[int, ...]]:
    """Which classes each super-class holds; a class that the records put into two is damage."""
    pairs = np.unique(np.concatenate([records[:, :2] for records in train]), axis=0)
    fine, times = np.unique(pairs[:, 1], return_counts=True)
    if (times > 1).any():
        raise DataError(
            f"{path / 'train.bin'} puts class {fine[times > 1][0]} into two super-classes: it is damaged; get it again"
        )
    names = _names(path, "coarse_label_names.txt", COARSE)
    return {
        names[coarse]: tuple(int(label) for label in pairs[pairs[:, 0] == coarse, 1])
        for coarse in np.unique(pairs[:, 0])
    }


def _names(path: Path, file_name: str, count: int) -> tuple[str, ...]:
    """The names in a file, one a line; numbers where there is no such file."""
    at = path / file_name
    if not at.exists():
        return tuple(map(str, range(count)))
    names = tuple(line.strip() for line in files.lines(path, at))
    if len(names) != count or not all(names):
        raise DataError(
            f"{at} has {len(list(filter(None, names)))} names in {len(names)} lines for {count} classes; "
            "get it again, or remove it to have numbers"
        )
    return names


def _refuse_pickles(path: Path, name: str, form: Format) -> None:
    if (path / name).is_file() and not list(path.glob("*.bin")):
        raise DataError(
            f"{path / name} belongs to the Python version of {form.name}, whose pickles can run code when they are "
            f"opened; get the folder that holds {form.holds}"
        )
