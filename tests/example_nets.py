"""Small networks for the tests, each with something a graph can get wrong."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from slimwright.graph import Net
from slimwright.importers import capture
from slimwright.tasks import Classification


def lively(model: nn.Module, seed: int = 0) -> nn.Module:
    """Return the model in eval mode with batch norms whose statistics and weights differ from channel to channel."""
    generator = torch.Generator().manual_seed(seed)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor, low in (
                (module.weight, 0.5),
                (module.bias, -0.5),
                (module.running_mean, -0.3),
                (module.running_var, 0.5),
            ):
                if tensor is not None:
                    tensor.data.copy_(torch.rand(tensor.shape, generator=generator) + low)
    return model.eval()


class Residual(nn.Module):
    """conv1 feeds conv2 and a sum with it: one group of 6 channels, written by both."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 6, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(6)
        self.conv2 = nn.Conv2d(6, 6, 3, padding=1)
        self.fc = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.bn1(self.conv1(x)))
        y = torch.relu(y + self.conv2(y))
        return self.fc(y.mean((2, 3)))  # type: ignore[no-any-return]


class Concat(nn.Module):
    """Two convolutions side by side, read by a third and, by halves, by a sum."""

    def __init__(self) -> None:
        super().__init__()
        self.left = nn.Conv2d(1, 4, 3, padding=1)
        self.right = nn.Conv2d(1, 3, 1)
        self.merge = nn.Conv2d(7, 5, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(5)
        self.fc = nn.Linear(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        both = torch.cat([self.left(x), torch.sigmoid(self.right(x))], 1)
        merged = F.hardtanh(self.bn(self.merge(both)), 0, 6)
        every = torch.cat([both, merged], dim=-3)
        return self.fc(F.adaptive_avg_pool2d(every, 1).flatten(1))  # type: ignore[no-any-return]


class Separable(nn.Module):
    """Depthwise (multipliers 1 and 2), then pointwise; the stem's channels run through both."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 4, 3, stride=2, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(4)
        self.depthwise = nn.Conv2d(4, 4, 3, padding=1, groups=4)
        self.doubled = nn.Conv2d(4, 8, 3, padding="same", groups=4, bias=False)
        self.bn2 = nn.BatchNorm2d(8)
        self.pointwise = nn.Conv2d(8, 5, 1)
        self.fc = nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = F.hardswish(self.depthwise(F.silu(self.bn(self.stem(x)))))
        y = self.pointwise(F.leaky_relu(self.bn2(self.doubled(y)), 0.1))
        return self.fc(y.mean((2, 3)))  # type: ignore[no-any-return]


class Gated(nn.Module):
    """A squeeze-and-excitation gate (Hu et al. 2018, arXiv 1709.01507)."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 6, 3, padding=1)
        self.squeeze = nn.Conv2d(6, 2, 1)
        self.excite = nn.Conv2d(2, 6, 1)
        self.fc = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = F.gelu(self.stem(x))
        gate = self.excite(torch.relu(self.squeeze(y.mean((2, 3), keepdim=True))))
        y = y * torch.sigmoid(gate) * F.hardsigmoid(gate)
        return self.fc(torch.tanh(y).mean((2, 3)))  # type: ignore[no-any-return]


class Flat(nn.Module):
    """A linear layer that reads 2x2 positions per channel, after both kinds of pooling and a dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3, padding=1)
        self.wide = nn.Conv2d(4, 5, 3, padding=1, dilation=1)
        self.drop = nn.Dropout(0.5)
        self.hidden = nn.Linear(5 * 2 * 2, 7)
        self.fc = nn.Linear(7, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = F.max_pool2d(torch.relu(self.conv(x)), 3, stride=2, padding=1)
        y = F.avg_pool2d(torch.relu(self.wide(y)), 2, ceil_mode=True)
        y = torch.relu(self.hidden(self.drop(y.view(y.size(0), -1))))
        return self.fc(y)  # type: ignore[no-any-return]


class InPlace(nn.Module):
    """Values written over by relu_ and add_, and read afterwards under their first name."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3, padding=1)
        self.other = nn.Conv2d(4, 4, 1)
        self.fc = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        z = self.other(y)
        y.relu_()
        y.add_(z)
        y.sigmoid_()
        return self.fc((y + z).mean((2, 3)))  # type: ignore[no-any-return]


class Twice(nn.Module):
    """A convolution and a batch norm that are each called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 4, 3, padding=1)
        self.conv = nn.Conv2d(4, 4, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(4)
        self.fc = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.bn(self.stem(x)))
        y = torch.relu(self.bn(self.conv(y)))
        return self.fc(self.conv(y).mean((2, 3)))  # type: ignore[no-any-return]


class SharedNorm(nn.Module):
    """One batch norm and one depthwise convolution behind two convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.left = nn.Conv2d(1, 4, 3, padding=1)
        self.right = nn.Conv2d(1, 4, 1)
        self.bn = nn.BatchNorm2d(4)
        self.depthwise = nn.Conv2d(4, 4, 3, padding=1, groups=4)
        self.fc = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        left, right = (self.depthwise(self.bn(conv(x))) for conv in (self.left, self.right))
        return self.fc(torch.cat([left, right], 1).mean((2, 3)))  # type: ignore[no-any-return]


class Grouped(nn.Module):
    """A convolution in two groups between ordinary ones."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 4, 3, padding=1)
        self.grouped = nn.Conv2d(4, 6, 3, padding=1, groups=2)
        self.last = nn.Conv2d(6, 5, 1)
        self.fc = nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.last(torch.relu(self.grouped(torch.relu(self.stem(x))))))
        return self.fc(y.mean((2, 3)))  # type: ignore[no-any-return]


SHAPE = (1, 6, 6)
HAND_MADE: dict[str, Callable[[], nn.Module]] = {
    kind.__name__: kind for kind in (Residual, Concat, Separable, Gated, Flat, InPlace, Twice, SharedNorm, Grouped)
}


def hand_made(name: str, seed: int = 0) -> nn.Module:
    """Return one of the networks above with weights drawn from `seed`, in eval mode."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return lively(HAND_MADE[name](), seed)


def net_of(*layers: nn.Module, shape: tuple[int, ...]) -> Net:
    """Return the net of layers one after the other."""
    return capture(lively(nn.Sequential(*layers)), shape)


def classification(classes: int) -> Classification:
    """Return the task of telling so many classes apart, named by their numbers."""
    return Classification(tuple(map(str, range(classes))))
