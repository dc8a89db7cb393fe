"""NASNet-A, the searched network for photographs; Mobile is its small form, 4 @ 1056.

A cell reads the outputs of the two cells before it. Each of its five steps adds two operations, each on a value made
earlier; some of the values, side by side, are the cell's output. Value 0 is the last cell's output, value 1 the output
of the one before it (h_i and h_i-1 of the figure), both brought to the cell's channels by a 1x1 convolution; value 2
is the first step's result.

Source: Zoph et al. 2018 (arXiv 1707.07012), fig. 4; the stem, the order of the operations, the shortcut that halves
the image and batch norm's eps as in the public TF-slim implementation. Left out: the auxiliary head and the dropping
of paths, which act in training only. At 224x224 pixels and 1000 classes Mobile has 5,289,978 parameters and 564 M
multiply-accumulates. Padding is equal on both sides; TensorFlow's "same" pads an even image at stride 2 more on the
right and bottom: shapes and counts are equal, but weights trained there carry over exactly for odd images only.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from slimwright.errors import ModelError
from slimwright.zoo.weights import he_normal

Step = tuple[tuple[str, int], tuple[str, int]]  # (operation, value it reads) + (operation, value it reads)


@dataclass(frozen=True)
class Wiring:
    """What a cell computes. Operations on values 0 and 1 take `stride`; the output is the values of `joined`."""

    steps: tuple[Step, ...]
    joined: tuple[int, ...]
    stride: int


NORMAL = Wiring(
    steps=(
        (("separable5", 0), ("separable3", 1)),
        (("separable5", 1), ("separable3", 1)),
        (("average", 0), ("same", 1)),
        (("average", 1), ("average", 1)),
        (("separable3", 0), ("same", 0)),
    ),
    joined=(1, 2, 3, 4, 5, 6),
    stride=1,
)
REDUCTION = Wiring(
    steps=(
        (("separable5", 0), ("separable7", 1)),
        (("maximum", 0), ("separable7", 1)),
        (("average", 0), ("separable5", 1)),
        (("same", 3), ("average", 2)),
        (("separable3", 2), ("maximum", 0)),
    ),
    joined=(3, 4, 5, 6),
    stride=2,
)


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=1e-3)


def _pointwise(in_channels: int, channels: int) -> nn.Sequential:
    return nn.Sequential(nn.ReLU(), nn.Conv2d(in_channels, channels, 1, bias=False), _norm(channels))


def _separable(in_channels: int, channels: int, kernel: int, stride: int) -> nn.Sequential:
    """ReLU, depthwise, 1x1 and batch norm, twice; the first depthwise convolution has the stride."""
    layers: list[nn.Module] = []
    for width, step in ((in_channels, stride), (channels, 1)):
        depthwise = nn.Conv2d(width, width, kernel, step, kernel // 2, groups=width, bias=False)
        layers += [nn.ReLU(), depthwise, nn.Conv2d(width, channels, 1, bias=False), _norm(channels)]
    return nn.Sequential(*layers)


class Halving(nn.Module):
    """A 1x1 shortcut to half the image: half of the channels from every other pixel, half from those between."""

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        self.relu = nn.ReLU()
        self.even = nn.Conv2d(in_channels, channels // 2, 1, 2, bias=False)
        self.shift = nn.ZeroPad2d((-1, 1, -1, 1))  # without the first row and column; zeros behind the last
        self.odd = nn.Conv2d(in_channels, channels // 2, 1, 2, bias=False)
        self.bn = _norm(channels)

    def forward(self, x: Tensor) -> Tensor:
        """[N, in_channels, H, W] -> [N, channels, H/2, W/2], rounded up."""
        y = self.relu(x)
        result: Tensor = self.bn(torch.cat((self.even(y), self.odd(self.shift(y))), 1))
        return result


def _operation(name: str, in_channels: int, channels: int, stride: int) -> nn.Module:
    match name:
        case "same":
            return nn.Identity()
        case "average":
            return nn.AvgPool2d(3, stride, 1, count_include_pad=False)
        case "maximum":
            return nn.MaxPool2d(3, stride, 1)
        case _:
            return _separable(in_channels, channels, int(name.removeprefix("separable")), stride)


class Cell(nn.Module):
    """One cell, `filters` channels in each value but value 1, which has `value_1`.

    `last` and `earlier` make values 0 and 1 of the outputs of the last cell and the one before it.
    """

    def __init__(self, wiring: Wiring, filters: int, last: nn.Module, earlier: nn.Module, *, value_1: int) -> None:
        super().__init__()
        self.wiring = wiring
        self.last = last
        self.earlier = earlier
        self.operations = nn.ModuleList()
        for name, value in (operand for step in wiring.steps for operand in step):
            stride = wiring.stride if value < 2 else 1
            self.operations.append(_operation(name, value_1 if value == 1 else filters, filters, stride))

    def forward(self, last: Tensor, earlier: Tensor) -> Tensor:
        """[N, C, H, W] and [N, C', H, W] or twice as large -> [N, filters x joined, H/stride, W/stride], rounded up."""
        values = [self.last(last), self.earlier(earlier)]
        operations = iter(self.operations)
        for (_, left), (_, right) in self.wiring.steps:
            values.append(next(operations)(values[left]) + next(operations)(values[right]))
        return torch.cat([values[i] for i in self.wiring.joined], 1)


class NasNet(nn.Module):
    """A stem of one convolution and two reduction cells, then three groups of `repeats` normal cells.

    The groups have `filters`, twice and four times `filters`; a reduction cell stands before the second and the third.
    """

    def __init__(self, repeats: int, filters: int, *, classes: int, in_channels: int, stem: int = 32) -> None:
        super().__init__()
        if filters % 4:
            raise ModelError(f"NASNet's stem has a quarter of its filters: {filters} must be a multiple of 4")
        self.stem = nn.Sequential(nn.Conv2d(in_channels, stem, 3, 2, bias=False), _norm(stem))
        quarter = filters // 4
        self.cells = nn.ModuleList([Cell(REDUCTION, quarter, _pointwise(stem, quarter), nn.Identity(), value_1=stem)])
        plan = [(REDUCTION, 2 * quarter), *[(NORMAL, filters)] * repeats]
        for factor in (2, 4):
            plan += [(REDUCTION, factor * filters), *[(NORMAL, factor * filters)] * repeats]
        earlier, last = stem, quarter * len(REDUCTION.joined)
        shortcut: Callable[[int, int], nn.Module] = Halving  # as the cell before halved the image
        for wiring, width in plan:
            cell = Cell(wiring, width, _pointwise(last, width), shortcut(earlier, width), value_1=width)
            self.cells.append(cell)
            earlier, last = last, width * len(wiring.joined)
            shortcut = Halving if wiring.stride == 2 else _pointwise
        self.end = nn.Sequential(nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.5))
        self.fc = nn.Linear(last, classes)
        he_normal(self)

    def forward(self, x: Tensor) -> Tensor:
        """[N, in_channels, H, W] -> class scores [N, classes]."""
        earlier = last = self.stem(x)
        for cell in self.cells:
            earlier, last = last, cell(last, earlier)
        scores: Tensor = self.fc(self.end(last))
        return scores


def nasnet_mobile(*, classes: int, in_channels: int) -> NasNet:
    """Return NASNet-A Mobile, 4 @ 1056: four normal cells a group, 6 x 4 x 44 = 1056 channels before the last layer."""
    return NasNet(4, 44, classes=classes, in_channels=in_channels)
