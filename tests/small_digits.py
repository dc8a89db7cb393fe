"""Few digits, and a net that learns them quickly: for tests of what is done with nets, not of how well they do."""

import functools

import torch
from torch import nn

from slimwright.data import ArrayData, Part, digits
from slimwright.graph import Net
from slimwright.importers import capture
from slimwright.train import Schedule, fit

SIZES: dict[Part, int] = {"train": 400, "calibration": 130, "validation": 110, "test": 90}  # no two alike


@functools.cache
def few_digits() -> ArrayData:
    """Digits, of each part the first few: a number of images tells which part they are."""
    every = digits(seed=0)
    parts = {part: (images[: SIZES[part]], labels[: SIZES[part]]) for part, (images, labels) in every.parts.items()}
    return ArrayData("few digits", every.labels, parts, every.preprocessing, every.augment)


@functools.cache
def small_digit_net() -> Net:
    """Two convolutions and a linear layer, trained on all digits that are not tested."""
    torch.manual_seed(0)
    layers = nn.Sequential(
        nn.Conv2d(1, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 16, 3, 2, 1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
        nn.Linear(256, 10),
    )  # fmt: skip
    every = digits(seed=0)
    return capture(fit(layers, every, Schedule(epochs=2)), every.image_shape)
