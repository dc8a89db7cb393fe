"""Layers that are carried as ATen calls, with parameters beside them, whose channels can be cut all the same."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from exact import assert_cut_is_masked
from example_nets import lively
from slimwright.cost import count
from slimwright.coupling import choose, couple
from slimwright.importers import capture


class ZerosBeside(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.other, self.fc = nn.Conv2d(2, 12, 3), nn.Conv2d(24, 8, 3), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.one(x))
        return self.fc(F.relu(self.other(torch.cat([y, torch.zeros_like(y)], 1))).mean((2, 3)))  # type: ignore[no-any-return]


class UNet(nn.Module):
    """Down, and up again by a transposed convolution, beside what was there before."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.down = nn.Conv2d(2, 8, 3, padding=1), nn.Conv2d(8, 16, 3, 2, padding=1)
        self.up, self.last = nn.ConvTranspose2d(16, 8, 2, 2), nn.Conv2d(16, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.one(x))
        return self.last(torch.cat([F.relu(self.up(F.relu(self.down(y)))), y], 1))  # type: ignore[no-any-return]


def ended(channels: int, dimensions: int = 2) -> list[nn.Module]:
    pool = {1: nn.AdaptiveAvgPool1d, 2: nn.AdaptiveAvgPool2d, 3: nn.AdaptiveAvgPool3d}[dimensions]
    return [nn.ReLU(), pool(1), nn.Flatten(), nn.Linear(channels, 3)]


def two_dimensional(*layers: nn.Module, channels: int) -> nn.Module:
    return nn.Sequential(nn.Conv2d(2, 16, 3, padding=1), nn.ReLU(), *layers, *ended(channels))


NETS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], int]] = {  # net, input, groups
    "transposed": (lambda: two_dimensional(nn.ConvTranspose2d(16, 12, 4, 2, 1), channels=12), (2, 8, 8), 2),
    "transposed, no bias": (
        lambda: two_dimensional(nn.ConvTranspose2d(16, 12, 3, bias=False), channels=12), (2, 8, 8), 2,
    ),
    "transposed, depthwise": (
        lambda: two_dimensional(nn.ConvTranspose2d(16, 16, 3, groups=16), nn.Conv2d(16, 9, 3), channels=9),
        (2, 8, 8), 2,
    ),
    "transposed, then a batch norm": (
        lambda: two_dimensional(nn.ConvTranspose2d(16, 12, 2, 2), nn.BatchNorm2d(12), channels=12), (2, 8, 8), 2,
    ),
    "pixel shuffle": (lambda: two_dimensional(nn.PixelShuffle(2), nn.Conv2d(4, 9, 3), channels=9), (2, 8, 8), 2),
    "pixel unshuffle": (lambda: two_dimensional(nn.PixelUnshuffle(2), nn.Conv2d(64, 9, 3), channels=9), (2, 8, 8), 2),
    "instance norm": (
        lambda: two_dimensional(
            nn.InstanceNorm2d(16, affine=True), nn.Conv2d(16, 9, 3), nn.InstanceNorm2d(9), channels=9
        ),
        (2, 8, 8), 2,
    ),
    "instance norm that tracks": (
        lambda: two_dimensional(nn.InstanceNorm2d(16, track_running_stats=True), channels=16), (2, 8, 8), 1,
    ),
    "one dimension": (
        lambda: nn.Sequential(
            nn.Conv1d(4, 12, 5), nn.BatchNorm1d(12), nn.ReLU(), nn.MaxPool1d(2), nn.Conv1d(12, 12, 3, groups=12),
            nn.Conv1d(12, 16, 3, padding="same"), *ended(16, 1),
        ), (4, 32), 2,
    ),
    "one dimension, up": (
        lambda: nn.Sequential(nn.Conv1d(4, 12, 5), nn.ReLU(), nn.ConvTranspose1d(12, 8, 4, 2), *ended(8, 1)),
        (4, 16), 2,
    ),
    "one dimension, grouped": (
        lambda: nn.Sequential(nn.Conv1d(4, 12, 5), nn.ReLU(), nn.Conv1d(12, 8, 3, groups=2), *ended(8, 1)), (4, 16), 2,
    ),
    "three dimensions": (
        lambda: nn.Sequential(
            nn.Conv3d(2, 8, 3), nn.BatchNorm3d(8), nn.ReLU(), nn.AvgPool3d(2), nn.Conv3d(8, 12, 2), *ended(12, 3)
        ), (2, 8, 8, 8), 2,
    ),
    "three dimensions, up": (
        lambda: nn.Sequential(nn.Conv3d(2, 8, 3), nn.ReLU(), nn.ConvTranspose3d(8, 6, 2, 2), *ended(6, 3)),
        (2, 5, 5, 5), 2,
    ),
    "zeros beside": (ZerosBeside, (2, 8, 8), 2),
    "u-net": (UNet, (2, 8, 8), 3),
}  # fmt: skip


@pytest.mark.parametrize("name", NETS)
def test_their_channels_are_cut_exactly(name: str) -> None:
    make, shape, groups = NETS[name]
    torch.manual_seed(0)
    net = capture(lively(make()), shape)
    coupling = couple(net)
    assert len(coupling.groups) == groups, dict(coupling.frozen)
    for seed, share in enumerate((0.25, 0.5, 0.75)):
        small = assert_cut_is_masked(net, choose(coupling, share, seed=seed), coupling)
        assert count(small).params < count(net).params
        again = couple(small)
        assert_cut_is_masked(small, choose(again, 0.5, seed=seed), again)


def test_half_of_the_channels_of_a_transposed_convolution_are_a_quarter_of_its_weights() -> None:
    net = capture(nn.Sequential(nn.Conv2d(2, 16, 1), nn.ConvTranspose2d(16, 12, 3), nn.Conv2d(12, 3, 1)), (2, 8, 8))
    small = assert_cut_is_masked(net, choose(coupling := couple(net), 0.5, seed=0), coupling)
    weights = [t for t in small.tensors.values() if t.ndim == 4]
    assert [tuple(t.shape) for t in weights] == [(8, 2, 1, 1), (8, 6, 3, 3), (3, 6, 1, 1)]


class Tower(nn.Module):
    """One transposed convolution that is called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.up, self.last = nn.Conv2d(2, 8, 3), nn.ConvTranspose2d(8, 8, 3), nn.Conv2d(8, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.up(self.up(self.stem(x))))  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    "make",
    [
        Tower,
        lambda: two_dimensional(nn.ConvTranspose2d(16, 12, 3, groups=4), channels=12),
        lambda: nn.Sequential(nn.Conv2d(2, 16, 3), nn.Flatten(2), nn.Conv1d(16, 3, 1)),
    ],
    ids=["called twice", "in groups", "over pixels in a row"],
)
def test_what_is_not_followed_stays_whole_or_is_cut_exactly(make: Callable[[], nn.Module]) -> None:
    net = capture(lively(make()), (2, 8, 8))
    coupling = couple(net)
    assert_cut_is_masked(net, choose(coupling, 0.5, seed=0), coupling)
