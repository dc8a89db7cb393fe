"""Few digits, and a net that learns them quickly: for tests of what is done with nets, not of how well they do."""

import functools

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from slimwright.data import ArrayData, Part, digits, labelled
from slimwright.graph import Net
from slimwright.importers import capture
from slimwright.tasks import Classification
from slimwright.techniques import Recipe, Step, apply
from slimwright.train import Schedule, fit

SIZES: dict[Part, int] = {"train": 400, "calibration": 130, "validation": 110, "test": 90}  # no two alike


@functools.cache
def few_digits() -> ArrayData:
    """Digits, of each part the first few: a number of images tells which part they are."""
    every = digits(seed=0)
    parts = {part: (images[: SIZES[part]], labels[: SIZES[part]]) for part, (images, labels) in every.parts.items()}
    return ArrayData("few digits", every.labels, parts, every.preprocessing, every.augment)


def labels_of(part: Part) -> NDArray[np.int64]:
    """The labels [N] of a part of few digits."""
    _, labels = labelled(few_digits().parts[part])
    return labels.numpy()


@functools.cache
def small_digit_net(width: int = 1) -> Net:
    """Two convolutions and a linear layer, trained on all digits that are not tested; `width` times the channels."""
    torch.manual_seed(0)
    layers = nn.Sequential(
        nn.Conv2d(1, 8 * width, 3, 2, 1), nn.ReLU(), nn.Conv2d(8 * width, 16 * width, 3, 2, 1), nn.ReLU(),
        nn.MaxPool2d(2), nn.Flatten(), nn.Linear(256 * width, 10),
    )  # fmt: skip
    every = digits(seed=0)
    return capture(fit(layers, every, Schedule(epochs=2), task=Classification(every.labels)), every.image_shape)


def right(net: Net) -> float:
    """The share of the validation part, 0 to 1, that a net names right."""
    images, labels = labelled(few_digits().parts["validation"])
    (scores,) = net.run((images,))
    return float((scores.argmax(1) == labels).float().mean())


def matrices(net: Net) -> dict[str, Tensor]:
    """The weights of each layer of a net, by its name."""
    return {node.name: net.tensors[node.tensors["weight"]] for node in net.weighted()}


def made(*steps: Step) -> Net:
    """The small net after these steps of a recipe."""
    net = small_digit_net()
    return apply(Recipe(original=net.digest, steps=steps), net, few_digits())
