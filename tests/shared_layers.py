"""Networks that call layers several times with the same weights."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def block(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)
    )


class Siamese(nn.Module):
    """Two images through one tower; a head on both embeddings side by side, or on their difference."""

    def __init__(self, *, difference: bool) -> None:
        super().__init__()
        self.difference = difference
        self.tower = nn.Sequential(block(2, 8), nn.MaxPool2d(2), block(8, 12), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.head = nn.Sequential(nn.Linear(12 if difference else 24, 10), nn.ReLU(), nn.Linear(10, 3))

    def forward(self, one: Tensor, other: Tensor) -> Tensor:
        a, b = self.tower(one), self.tower(other)
        return self.head((a - b).abs() if self.difference else torch.cat([a, b], 1))  # type: ignore[no-any-return]


class Pyramid(nn.Module):
    """A pyramid of three levels, top down, and one head for all of them, with one batch norm or one for each level."""

    def __init__(self, *, norms: int) -> None:
        super().__init__()
        self.stages = nn.ModuleList([block(2, 8, 2), block(8, 12, 2), block(12, 16, 2)])
        self.lateral = nn.ModuleList([nn.Conv2d(channels, 10, 1) for channels in (8, 12, 16)])
        self.smooth = nn.ModuleList([nn.Conv2d(10, 10, 3, padding=1) for _ in range(3)])
        self.head, self.last = nn.Conv2d(10, 10, 3, padding=1), nn.Conv2d(10, 4, 3, padding=1)
        self.norms = nn.ModuleList([nn.BatchNorm2d(10) for _ in range(norms)])

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        features = []
        for stage in self.stages:
            x = stage(x)
            features.append(x)
        levels: list[Tensor] = []
        for feature, lateral in reversed([*zip(features, self.lateral, strict=True)]):
            y = lateral(feature)
            levels.append(y + F.interpolate(levels[-1], scale_factor=2.0) if levels else y)
        found = []
        for number, (level, smooth) in enumerate(zip(levels, self.smooth, strict=True)):
            y = self.norms[number % len(self.norms)](self.head(smooth(level)))
            found.append(self.last(F.relu(y)))
        return tuple(found)


class Recurrent(nn.Module):
    """One block of two convolutions that is gone through three times, with a residual sum."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.block = block(2, 8), nn.Sequential(block(8, 12), nn.Conv2d(12, 8, 3, padding=1))
        self.fc = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for _ in range(3):
            x = F.relu(x + self.block(x))
        return self.fc(x.mean((2, 3)))  # type: ignore[no-any-return]


class Carried(nn.Module):
    """One transposed convolution on two values."""

    def __init__(self) -> None:
        super().__init__()
        self.stems, self.up = nn.ModuleList([nn.Conv2d(2, 8, 3), nn.Conv2d(2, 8, 1)]), nn.ConvTranspose2d(8, 6, 2, 2)
        self.fc = nn.Linear(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(torch.cat([F.relu(self.up(F.relu(stem(x)))).mean((2, 3)) for stem in self.stems], 1))  # type: ignore[no-any-return]


SHAPE = (2, 16, 16)
# net, input shapes, groups of channels, and the share of parameters that is left of half of the channels, at most
NETS: dict[str, tuple[Callable[[], nn.Module], list[tuple[int, ...]], int, float]] = {
    "siamese, side by side": (lambda: Siamese(difference=False), [SHAPE, SHAPE], 3, 0.4),
    "siamese, difference": (lambda: Siamese(difference=True), [SHAPE, SHAPE], 3, 0.4),
    "pyramid": (lambda: Pyramid(norms=1), [SHAPE], 6, 0.4),
    "pyramid, a norm for each level": (lambda: Pyramid(norms=3), [SHAPE], 6, 0.4),
    "recurrent": (Recurrent, [SHAPE], 2, 0.4),
    "transposed, called twice": (Carried, [SHAPE], 2, 0.7),
}
