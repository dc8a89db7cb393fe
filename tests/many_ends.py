"""Small networks with several inputs or outputs, of other shapes than [N, C, H, W] and [N, classes], for the tests."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from example_nets import lively
from slimwright.graph import Net
from slimwright.importers import capture


class Siamese(nn.Module):
    """One tower, run over two pictures of different sizes, and how alike they are; the head is not shared."""

    def __init__(self) -> None:
        super().__init__()
        self.tower = nn.Sequential(
            nn.Conv2d(3, 8, 3, stride=2, padding=1),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.Conv2d(8, 12, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
        )
        self.joint, self.last = nn.Linear(24, 16), nn.Linear(16, 4)

    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        one, other = self.tower(left), self.tower(right)
        return self.last(torch.relu(self.joint(torch.cat([one - other, one * other], 1))))  # type: ignore[no-any-return]


class UNet(nn.Module):
    """Down twice and up again, with the wider maps put beside the narrower ones (Ronneberger et al. 2015)."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.three = (
            nn.Sequential(nn.Conv2d(a, b, 3, padding=1), nn.BatchNorm2d(b), nn.ReLU())
            for a, b in ((3, 8), (8, 12), (12, 16))
        )
        self.up, self.back = nn.Conv2d(28, 12, 3, padding=1), nn.Conv2d(20, 8, 3, padding=1)
        self.last = nn.Conv2d(8, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        wide = self.one(x)
        middle = self.two(F.max_pool2d(wide, 2))
        deep = self.three(F.max_pool2d(middle, 2))
        up = torch.relu(self.up(torch.cat([F.interpolate(deep, scale_factor=2.0), middle], 1)))
        return self.last(torch.relu(self.back(torch.cat([F.interpolate(up, scale_factor=2.0), wide], 1))))  # type: ignore[no-any-return]


class Heads(nn.Module):
    """A map, scores and a number for a picture, in a dict: all from one trunk, none in the order of their names."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Sequential(
            nn.Conv2d(3, 12, 3, stride=2, padding=1),
            nn.BatchNorm2d(12),
            nn.ReLU(),
            nn.Conv2d(12, 16, 3, padding=1),
            nn.ReLU(),
        )
        self.where, self.what, self.size = nn.Conv2d(16, 4, 1), nn.Linear(16, 10), nn.Linear(16, 1)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        trunk = self.trunk(x)
        pooled = trunk.mean((2, 3))
        return {"where": self.where(trunk), "what": self.what(pooled), "size": torch.sigmoid(self.size(pooled))[:, 0]}


class Fused(nn.Module):
    """A picture and a list of numbers in, their joint embedding of unit length and the picture's own mask out."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.mask = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 1, 1)
        self.numbers, self.joint = nn.Linear(5, 6), nn.Linear(14, 8)

    def forward(self, image: Tensor, numbers: Tensor) -> tuple[Tensor, Tensor]:
        seen = torch.relu(self.conv(image))
        both = torch.cat([seen.mean((2, 3)), torch.relu(self.numbers(numbers))], 1)
        embedding = self.joint(both)
        length = (embedding * embedding).sum(1, keepdim=True).sqrt()
        return embedding / length, torch.sigmoid(self.mask(seen))


class Joint(nn.Module):
    """Three inputs, two of one shape; six outputs, of which two have one shape, one is given twice, one is an input."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.numbers, self.map = nn.Linear(5, 8), nn.Conv2d(8, 4, 1)
        self.first, self.second, self.size = nn.Linear(8, 10), nn.Linear(8, 10), nn.Linear(8, 1)

    def forward(self, left: Tensor, numbers: Tensor, right: Tensor) -> tuple[Tensor, ...]:
        trunk = torch.relu(self.left(left) + 0.5 * self.right(right))
        pooled = trunk.mean((2, 3)) * torch.sigmoid(self.numbers(numbers))
        second = self.second(pooled)
        return second, self.map(trunk), torch.sigmoid(self.size(pooled))[:, 0], self.first(pooled), numbers, second


class Signal(nn.Module):
    """Samples [N, C, L] in, one score a step out."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.last = nn.Conv1d(4, 8, 5, padding=2), nn.Conv1d(8, 3, 1)

    def forward(self, samples: Tensor) -> Tensor:
        return self.last(torch.relu(self.conv(samples)))  # type: ignore[no-any-return]


@dataclass(frozen=True)
class Ends:
    """A network, the shapes that it takes, without the batch, and those that it gives for one image."""

    make: Callable[[], nn.Module]
    shapes: tuple[tuple[int, ...], ...]
    gives: tuple[tuple[int, ...], ...]


MANY_ENDS: dict[str, Ends] = {
    "siamese": Ends(Siamese, ((3, 16, 16), (3, 12, 8)), ((1, 4),)),
    "unet": Ends(UNet, ((3, 16, 16),), ((1, 4, 16, 16),)),
    "heads": Ends(Heads, ((3, 16, 16),), ((1, 4, 8, 8), (1, 10), (1,))),
    "fused": Ends(Fused, ((3, 16, 16), (5,)), ((1, 8), (1, 1, 16, 16))),
    "joint": Ends(Joint, ((3, 16, 16), (5,), (3, 16, 16)), ((1, 10), (1, 4, 8, 8), (1,), (1, 10), (1, 5), (1, 10))),
    "signal": Ends(Signal, ((4, 32),), ((1, 3, 32),)),
}


def model_of(name: str) -> nn.Module:
    """Return one of the networks with weights drawn from a seed, in eval mode."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return lively(MANY_ENDS[name].make())


def net_of(name: str) -> Net:
    """Return the net of one of the networks."""
    return capture(model_of(name), MANY_ENDS[name].shapes)


def inputs_of(name: str, count: int, seed: int = 0) -> list[Tensor]:
    """Return a tensor [count, ...] for each input."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(count, *shape, generator=generator) for shape in MANY_ENDS[name].shapes]


def outputs_of(model: nn.Module, inputs: list[Tensor]) -> tuple[Tensor, ...]:
    """Return what a model gives, in a tuple whatever it comes in."""
    with torch.no_grad():
        found = model(*inputs)
    if isinstance(found, dict):
        return tuple(found.values())
    return (found,) if isinstance(found, Tensor) else tuple(found)
