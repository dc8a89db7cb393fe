"""The share of a part that a classifier gets right."""

from torch import nn

from slimwright.data import Dataset, Part
from slimwright.tasks import Classification
from slimwright.train import score


def accuracy(model: nn.Module, data: Dataset, part: Part) -> float:
    """Return the share of a part that the model, in eval mode and where it lies, gets right: 0 to 1."""
    return score(model, data, part, Classification(data.labels)) / 100
