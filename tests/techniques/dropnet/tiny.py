"""A small data set and small nets that train in milliseconds."""

import torch
from torch import Tensor, nn

from slimwright.data import ArrayData, Part
from slimwright.graph import Net
from slimwright.importers import capture
from slimwright.tasks import Classification

SHAPE = (1, 6, 6)
TASK = Classification(("row", "column", "diagonal"))
SIZES: dict[Part, int] = {"train": 60, "calibration": 6, "validation": 30, "test": 6}


def pictures(seed: int = 0) -> ArrayData:
    """Three classes: a bright row, column or diagonal in noise."""
    generator = torch.Generator().manual_seed(seed)
    parts = {}
    for part, size in SIZES.items():
        labels = torch.arange(size) % 3
        images = 0.3 * torch.rand(size, *SHAPE, generator=generator)
        place = torch.randint(6, (size,), generator=generator)
        for image, label, at in zip(images, labels.tolist(), place.tolist(), strict=True):
            strokes: tuple[Tensor, ...] = (image[0, at], image[0, :, at], image[0].diagonal(at - 3))
            strokes[label].add_(0.7)
        parts[part] = images, labels
    return ArrayData("pictures", TASK.classes, parts)


def convolutions(seed: int = 0) -> Net:
    """Five and six filters with pooling, and two linear layers."""
    torch.manual_seed(seed)
    layers = (
        *(nn.Conv2d(1, 5, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(5, 6, 3, padding=1), nn.ReLU()),
        *(nn.Flatten(), nn.Linear(54, 7), nn.ReLU(), nn.Linear(7, 3)),
    )
    return capture(nn.Sequential(*layers).eval(), SHAPE)


def linears(seed: int = 0) -> Net:
    """Eight and six nodes."""
    torch.manual_seed(seed)
    layers = (nn.Flatten(), nn.Linear(36, 8), nn.ReLU(), nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 3))
    return capture(nn.Sequential(*layers).eval(), SHAPE)
