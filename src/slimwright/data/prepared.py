"""Data sets with another normalization than their own: what a user says of preprocessing, for data that is read."""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from torch import Tensor

from slimwright.data.batch import Batch, like
from slimwright.data.dataset import ArrayData, Dataset, Part
from slimwright.data.described import Described
from slimwright.data.normalization import Normalization
from slimwright.data.streamed import Numbers, Raw, Read, Share, StreamedData
from slimwright.errors import DataError

NUMBERS = ("scale", "mean", "std", "channels")  # what has a meaning where pictures have their size already


def prepared(data: Dataset, wanted: Described) -> Dataset:
    """Return the data set, normalized as it is wanted.

    What is not said stays as it is: a streamed data set keeps its own numbers, and the values of one in memory are
    taken as they are stored. Raises DataError where something has no meaning for the data set.
    """
    if beyond := sorted(set(wanted.given) - set(NUMBERS)):
        raise DataError(f"the pictures of '{data.name}' have their size already; leave out {', '.join(beyond)}")
    channels = data.image_shape[0]
    if ((wanted.channels or "grey") != "grey" and channels != 3) or (
        wanted.channels in ("grey", "grey3") and channels != 1
    ):
        raise DataError(f"'{data.name}' has {channels} channels, so they cannot be {wanted.channels}")
    if isinstance(data, StreamedData):
        said = {"scale": data.scale, "mean": data.mean, "std": data.std, **wanted.given}
        _check(said, channels)
        return _streamed(data, said, flipped=wanted.channels == "BGR")
    if isinstance(data, ArrayData) and "mean" in data.preprocessing:
        raise DataError(f"the images of '{data.name}' are normalized already; leave the preprocessing out")
    if isinstance(data, ArrayData):
        said = {"scale": 1.0, "mean": (0.0,), "std": (1.0,), **wanted.given}
        _check(said, channels)
        return _stored(data, said, flipped=wanted.channels == "BGR")
    raise DataError(f"'{data.name}' prepares its own pictures; --preprocessing is for those that are read here")


def _check(said: Mapping[str, Any], channels: int) -> None:
    for name in ("mean", "std"):
        if len(said[name]) not in (1, channels):
            raise DataError(f"{name} needs one number, or {channels}, one for each channel, not {said[name]}")
    if not (said["scale"] > 0 and all(said["std"])):
        raise DataError("scale must be above 0, and no number of std may be 0")


def _streamed(data: StreamedData, said: Mapping[str, Any], *, flipped: bool) -> StreamedData:
    numbers = {name: said[name] for name in ("scale", "mean", "std")}
    if not flipped:
        return replace(data, **numbers)
    shares: dict[Part, Share] = {
        part: replace(share, read=partial(_flipped, share.read)) for part, share in data.shares.items()
    }
    return replace(data, **numbers, shares=shares, raw={**data.raw, "channels": "BGR"})


def _flipped(read: Read, numbers: Numbers) -> Raw:
    found = read(numbers)
    return (
        tuple(np.ascontiguousarray(one[:, ::-1]) if one.ndim == 4 else one for one in found)
        if isinstance(found, tuple)
        else np.ascontiguousarray(found[:, ::-1])
    )


def _stored(data: ArrayData, said: Mapping[str, Any], *, flipped: bool) -> ArrayData:
    numbers = Normalization(tuple(said["mean"]), tuple(said["std"]), float(said["scale"]))

    def changed(values: Tensor) -> Tensor:
        if values.ndim != 4:
            return values
        return numbers.of(values.flip(1) if flipped else values)

    parts: dict[Part, Batch] = {part: (like(inputs, changed), of) for part, (inputs, of) in data.parts.items()}
    record = {
        **({"channels": "BGR"} if flipped else {}),
        **data.preprocessing,
        "scale": said["scale"],
        "mean": list(said["mean"]),
        "std": list(said["std"]),
    }
    return replace(data, parts=parts, preprocessing=record)
