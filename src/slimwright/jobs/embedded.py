"""The normalization put into the model: it, its original and all artefacts then take levels 0..255 as they are."""

from collections.abc import Callable
from dataclasses import replace

import torch

from slimwright.data import Dataset, Inputs, images_of
from slimwright.data.levels import Taken, as_levels
from slimwright.lowering.normalized import normalizing
from slimwright.measure import Original
from slimwright.tasks import Outputs


def embedded(original: Original, data: Dataset) -> tuple[Original, Dataset]:
    """Return an original that takes levels, and its data as levels.

    Raises DataError where the levels are not known, and ModelError for a model that does not take images alone.
    """
    levels, taken = as_levels(data)
    mean, std = (torch.tensor(value) for value in (taken.numbers.mean, taken.numbers.std))
    net = normalizing(original.net, mean, std, taken.numbers.scale, flipped=taken.flipped)
    return replace(original, net=net, forward=_behind(original.forward, taken)), levels


def _behind(forward: Callable[[Inputs], Outputs], taken: Taken) -> Callable[[Inputs], Outputs]:
    """The model as it was given, behind the normalization."""

    def run(inputs: Inputs) -> Outputs:
        return forward(taken.normalized(images_of(inputs)))

    return run
