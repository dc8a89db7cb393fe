"""Other ways in which the same pictures may have been meant: what a model that does badly is tried with.

Images are undone up to levels, 0..255, by the data set's own numbers, or by those that fit the values where it has
none. A variant then normalizes them in another way, with the channels in another order, grey or inverted. Exact up to
float32 rounding.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from slimwright.data.batch import Batch, Inputs, like, tensors_of
from slimwright.data.dataset import Dataset, whole
from slimwright.data.normalization import Normalization
from slimwright.data.preprocessing import LEVELS, MEAN, STD, Preprocessing, Values
from slimwright.data.streamed import StreamedData

LUMA = (0.299, 0.587, 0.114)  # of ITU-R BT.601, as Pillow's "L"
SLACK = 0.02  # by which levels of a guess may lie outside of 0..1


IMAGENET = Normalization(MEAN, STD, said="ImageNet's mean and std")
PLAIN = Normalization((0.0,), (1.0,), said="levels as 0..1")
WHOLE = Normalization((0.0,), (1.0,), 1.0, "levels as 0..255")
HALF = Normalization((0.5,), (0.5,), said="mean and std of 0.5")
# Caffe's: the means of levels in the order BGR that its published networks subtract. CIFAR-10's and MNIST's: over
# their training images. What a grey picture has is the mean over ImageNet's three channels.
COLOURS = (
    IMAGENET,
    HALF,
    PLAIN,
    WHOLE,
    Normalization((103.939, 116.779, 123.68), (1.0,), 1.0, "Caffe's means of levels"),
    Normalization((0.4914, 0.4822, 0.4465), (0.247, 0.2435, 0.2616), said="CIFAR-10's mean and std"),
)
GREYS = (
    HALF,
    PLAIN,
    WHOLE,
    Normalization((0.1307,), (0.3081,), said="MNIST's mean and std"),
    Normalization((0.449,), (0.226,), said="ImageNet's mean and std, grey"),
)


@dataclass(frozen=True)
class Variant:
    """One way to see the images: `said` for people, `text` for --preprocessing, `change` from inputs to inputs."""

    said: str
    text: str
    change: Callable[[Inputs], Inputs]


@dataclass(frozen=True)
class Turn:
    """What is done to the channels or levels before the normalization."""

    said: str
    change: Callable[[Tensor], Tensor]


def _grey(levels: Tensor) -> Tensor:
    return torch.einsum("nchw,c->nhw", levels, torch.tensor(LUMA))[:, None].expand_as(levels)


AS_IS = Turn("", lambda levels: levels)
FLIPPED = Turn("the other order of channels", lambda levels: levels.flip(1))
GREY = Turn("grey in three channels", _grey)
INVERTED = Turn("dark and bright exchanged", lambda levels: LEVELS - levels)


def numbers_of(data: Dataset, images: Tensor) -> Normalization | None:
    """Return how the images [N, C, H, W] of a data set were normalized; None where nothing fits their values."""
    if isinstance(data, StreamedData):
        return Normalization(data.mean, data.std, data.scale)
    said = data.preprocessing
    if {"scale", "mean", "std"} <= said.keys():
        record: Mapping[str, Any] = said
        scale = record["scale"] * LEVELS / record.get("levels", LEVELS)
        return Normalization(tuple(record["mean"]), tuple(record["std"]), scale)
    guesses = GREYS if images.shape[1] == 1 else COLOURS if images.shape[1] == 3 else (PLAIN, WHOLE, HALF)
    order = (PLAIN, WHOLE, *(one for one in guesses if one not in (PLAIN, WHOLE)))
    return next((one for one in order if _fits(one.undone(images) / LEVELS, images)), None)


def variants(data: Dataset, inputs: Inputs) -> Iterator[Variant]:
    """Yield ways to see the inputs of a data set, the one that it has left out."""
    images = next((tensor for tensor in tensors_of(inputs) if tensor.ndim == 4), None)
    own = None if images is None else numbers_of(data, images)
    if images is None or own is None:
        return
    channels = images.shape[1]
    turns = (AS_IS, FLIPPED, GREY, INVERTED) if channels == 3 else (AS_IS, INVERTED)
    others = GREYS if channels == 1 else COLOURS if channels == 3 else (PLAIN, WHOLE, HALF)
    for turn in turns:
        for numbers in (own, *others):
            if (turn is AS_IS and numbers is own) or (numbers is not own and _same(numbers, own)):
                continue
            said = " and ".join(filter(None, (numbers.said, turn.said)))
            yield Variant(said, _text(data, numbers, own, turn), _Change(own, numbers, turn))


@dataclass(frozen=True)
class Placing:
    """Pictures placed into their size in another way."""

    said: str
    text: str
    data: StreamedData


def placings(data: Dataset) -> Iterator[Placing]:
    """Yield the pictures of a data set placed into their size in other ways, where it can be remade."""
    if not isinstance(data, StreamedData) or data.how is None or data.remade is None:
        return
    how = data.how
    other: dict[str, Preprocessing] = {
        "pictures stretched": replace(how, fit="stretch", crop_share=1.0),
        "pictures in a frame": replace(how, fit="letterbox", crop_share=1.0),
        "the middle of pictures": replace(how, fit="crop", crop_share=1.0),
        "seven eighths of the middle of pictures": replace(how, fit="crop", crop_share=0.875),
        "pictures turned as their metadata say": replace(how, upright=not how.upright),
    }
    for said, one in other.items():
        if one != how:
            made = data.remade(one)
            yield Placing(said, _text(made, Normalization(one.mean, one.std, one.scale)), made)


def some_of(data: StreamedData, count: int) -> Batch:
    """Return at most `count` pictures of the validation part, spread evenly over it."""
    share = data.shares["validation"]
    chosen = spread(len(share.numbers), count).numpy()
    return whole(replace(data, shares={**data.shares, "validation": share.only(chosen)}), "validation")


def spread(count: int, most: int) -> Tensor:
    """Return the places of at most `most` of `count` images, spread evenly."""
    return torch.linspace(0, count - 1, min(count, most)).round().long()


@dataclass(frozen=True)
class _Change:
    own: Normalization
    numbers: Normalization
    turn: Turn

    def __call__(self, inputs: Inputs) -> Inputs:
        return like(inputs, lambda t: self.numbers.of(self.turn.change(self.own.undone(t))) if t.ndim == 4 else t)


def _text(
    data: Dataset,
    numbers: Normalization,
    own: Normalization | None = None,
    turn: Turn = AS_IS,
) -> str:
    """What to write after --preprocessing."""
    if turn is INVERTED:  # (1 - x - mean) / std is (x - (1 - mean)) / -std
        top = LEVELS / numbers.scale
        numbers = replace(
            numbers, mean=tuple(top - mean for mean in numbers.mean), std=tuple(-std for std in numbers.std)
        )
    if not isinstance(data, StreamedData):
        if own and "mean" not in data.preprocessing:  # its values as they are stored are what --preprocessing changes
            flipped_own = replace(own, mean=own.mean[::-1], std=own.std[::-1])
            numbers = _relative(numbers, flipped_own if turn is FLIPPED else own)
        return numbers.text + (",channels=BGR" if turn is FLIPPED else "")
    flipped = "RGB" if data.raw.get("channels") == "BGR" else "BGR"
    now = {FLIPPED.said: flipped, GREY.said: "grey3"}.get(turn.said, str(data.raw.get("channels", "RGB")))
    return ",".join([numbers.text, *([f"channels={now}"] if now != "RGB" else []), *placing_text(data)])


def placing_text(data: StreamedData) -> list[str]:
    """Return the fields, as `described` reads them, in which the placing of pictures is not the usual one."""
    if data.how is None:
        return []
    usual = Preprocessing(data.how.height, data.how.width, mean=(0.0,), std=(1.0,)).said
    return [f"{name}={value}" for name, value in data.how.said.items() if name != "channels" and value != usual[name]]


def _relative(numbers: Normalization, own: Normalization) -> Normalization:
    """The normalization of values as they are stored, which are normalized by `own` already."""
    channels = max(map(len, (numbers.mean, numbers.std, own.mean, own.std)))

    def each(values: Values) -> Values:
        return values if len(values) == channels else values * channels

    gain = own.scale / numbers.scale
    mean, std = zip(
        *(
            ((m - gain * om) / (gain * os), s / (gain * os))
            for m, s, om, os in zip(*map(each, (numbers.mean, numbers.std, own.mean, own.std)), strict=True)
        ),
        strict=True,
    )
    return Normalization(tuple(mean), tuple(std), 1.0, numbers.said)


def _fits(shares: Tensor, images: Tensor) -> bool:
    """True where levels lie in 0..1 and use it."""
    low, high = float(shares.min()), float(shares.max())
    return low >= -SLACK and 0.2 < high <= 1 + SLACK and bool(torch.isfinite(images).all())


def _same(one: Normalization, other: Normalization) -> bool:
    probe = torch.linspace(0, LEVELS, 6).reshape(1, 1, 2, 3).expand(1, 3, 2, 3)
    return bool(torch.allclose(one.of(probe), other.of(probe), atol=0.05, rtol=0.02))
