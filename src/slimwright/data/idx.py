"""MNIST, and what is stored like it: images and labels in IDX files, plain or gzipped.

An IDX file is two zero bytes, the type (8: unsigned bytes), the rank, one big-endian 32-bit length per dimension, and
the values. Source: LeCun, Cortes and Burges, "The MNIST database of handwritten digits", section "file formats".
"""

from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from slimwright.data import files
from slimwright.data.streamed import Numbers, Share, StreamedData, cropped, dealt
from slimwright.errors import DataError

MEAN, STD = 0.1307, 0.3081  # of the pixels of the 60,000 training images
UNSIGNED_BYTES = 8
MOST_BYTES = 2**30  # of one file: twenty times MNIST
LARGEST = 1024  # pixels of a side
CLASSES = 10


def mnist(path: Path, seed: int = 0) -> StreamedData:
    """Return the data set in a folder of IDX files; `seed` deals its training images.

    The folder holds train-images-idx3-ubyte, train-labels-idx1-ubyte and the same for t10k, with or without .gz.
    Raises DataError, naming the file and what to do.
    """
    files.folder(path, "train-images-idx3-ubyte, train-labels-idx1-ubyte and the same for t10k")
    (train, shape), (test, tested) = (_share(path, part) for part in ("train", "t10k"))
    if shape != tested:
        raise DataError(f"{path} holds training images of {shape[1:]} pixels and test images of {tested[1:]}")
    names = tuple(map(str, range(CLASSES)))
    return StreamedData(
        name="mnist",
        labels=names,
        image_shape=shape,
        shares=dealt(train, test, names=names, image_shape=shape, seed=seed),
        mean=(MEAN,),
        std=(STD,),
        raw={"channels": "grey", "input": "the strokes bright", "size": list(shape[1:])},
        augment=partial(cropped, margin=2, mirror=False),
    )


def read_idx(root: Path, path: Path, rank: int) -> NDArray[np.uint8]:
    """Return the unsigned bytes in an IDX file of this rank. Raises DataError where bytes and header differ."""
    real, start = files.held(root, path), 4 + 4 * rank
    zipped = path.suffix == ".gz"
    head = files.unzipped(real, start) if zipped else files.mapped(real)[:start]
    if len(head) < start or tuple(head[:4]) != (0, 0, UNSIGNED_BYTES, rank):
        raise DataError(
            f"{path} does not begin like an IDX file of unsigned bytes with {rank} dimensions "
            f"(0 0 {UNSIGNED_BYTES} {rank}), but with {' '.join(map(str, head[:4])) or 'nothing'}; get it again"
        )
    shape = tuple(int(length) for length in np.frombuffer(head[4:].tobytes(), ">u4"))
    expected = start + int(np.prod(shape, dtype=object))
    if not all(shape) or any(side > LARGEST for side in shape[1:]) or expected > MOST_BYTES:
        raise DataError(f"{path} claims to hold an array of {list(shape)}, which is no data set; get it again")
    data = files.unzipped(real, expected + 1) if zipped else files.mapped(real)
    if len(data) != expected:
        state = "cut short" if len(data) < expected else "too long"
        raise DataError(f"{path} is {state}: an array of {list(shape)} takes {expected} bytes; get it again")
    return data[start:].reshape(shape)


def _share(path: Path, part: str) -> tuple[Share, tuple[int, int, int]]:
    """The images and labels of a part, and [C, H, W] of each image."""
    images_at, labels_at = _found(path, f"{part}-images", 3), _found(path, f"{part}-labels", 1)
    images, labels = read_idx(path, images_at, 3), read_idx(path, labels_at, 1)
    if len(images) != len(labels):
        raise DataError(f"{images_at} holds {len(images)} images and {labels_at} {len(labels)} labels; get both again")
    if int(labels.max()) >= CLASSES:
        raise DataError(f"{labels_at} holds the label {int(labels.max())}; mnist has the labels 0 to {CLASSES - 1}")
    share = Share(partial(_read, images), np.arange(len(images)), torch.from_numpy(labels.astype(np.int64)))
    return share, (1, *images.shape[1:])


def _read(images: NDArray[np.uint8], numbers: Numbers) -> NDArray[np.uint8]:
    return images[numbers][:, None]


def _found(path: Path, stem: str, rank: int) -> Path:
    """The file of this stem; some unpackers turn its last dash but one into a point."""
    names = [f"{stem}{mark}idx{rank}-ubyte{end}" for mark in "-." for end in ("", ".gz")]
    for name in names:
        if (path / name).exists():
            return path / name
    raise DataError(f"{path} has no {names[0]}, nor {names[1]}; name the folder that holds the four files of MNIST")
