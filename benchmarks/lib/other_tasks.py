"""Networks of other tasks than classification: small, and true to their papers in what calls what.

Each is a maker and the shapes of its inputs, without the batch. Layers that the papers share between levels, towers or
directions are shared here.
"""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

KIND = "other task"


@dataclass(frozen=True)
class OtherTask:
    """A network of another task. `whole` says which layers hold channels that a cut of convolutions leaves."""

    make: Callable[[], nn.Module]
    shapes: tuple[tuple[int, ...], ...]
    whole: str = ""


def block(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    """A 3x3 convolution, batch norm, ReLU."""
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU())


class Detector(nn.Module):
    """RetinaNet's form (Lin et al. 2017, arXiv 1708.02002): three levels, one head for classes and boxes."""

    def __init__(self, width: int = 32, classes: int = 20, anchors: int = 3) -> None:
        super().__init__()
        widths = (width, 2 * width, 4 * width)
        self.stem = block(3, 16, 2)
        self.stages = nn.ModuleList(
            nn.Sequential(block(before, after, 2), block(after, after))
            for before, after in zip((16, *widths), widths, strict=False)
        )
        self.lateral = nn.ModuleList(nn.Conv2d(channels, 64, 1) for channels in widths)
        self.smooth = nn.ModuleList(nn.Conv2d(64, 64, 3, padding=1) for _ in widths)
        self.heads = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(64, 64, 3, padding=1), nn.ReLU(), nn.Conv2d(64, 64, 3, padding=1), nn.ReLU(),
                nn.Conv2d(64, anchors * each, 3, padding=1),
            ) for each in (classes, 4)
        )  # fmt: skip

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """[N, 3, H, W] -> scores and boxes of each level, coarsest first."""
        features, x = [], self.stem(x)
        for stage in self.stages:
            x = stage(x)
            features.append(x)
        found: list[Tensor] = []
        above: Tensor | None = None
        for feature, lateral, smooth in reversed([*zip(features, self.lateral, self.smooth, strict=True)]):
            level = lateral(feature)
            above = level if above is None else level + F.interpolate(above, scale_factor=2.0)
            found += [head(smooth(above)) for head in self.heads]
        return tuple(found)


class UNet(nn.Module):
    """Ronneberger et al. 2015 (arXiv 1505.04597), with transposed convolutions or bilinear steps on the way up."""

    def __init__(self, *, bilinear: bool, width: int = 16, classes: int = 4) -> None:
        super().__init__()
        widths = [width * 2**n for n in range(4)]
        pairs = [*itertools.pairwise(widths)]
        self.first = nn.Sequential(block(3, width), block(width, width))
        self.down = nn.ModuleList(nn.Sequential(nn.MaxPool2d(2), block(a, b), block(b, b)) for a, b in pairs)
        self.up = nn.ModuleList(
            nn.Sequential(nn.Upsample(scale_factor=2, mode="bilinear"), nn.Conv2d(b, a, 1))
            if bilinear
            else nn.ConvTranspose2d(b, a, 2, 2)
            for a, b in reversed(pairs)
        )
        self.joined = nn.ModuleList(nn.Sequential(block(2 * a, a), block(a, a)) for a, _ in reversed(pairs))
        self.last = nn.Conv2d(width, classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        """[N, 3, H, W] -> scores [N, classes, H, W]."""
        x = self.first(x)
        beside = [x]
        for down in self.down:
            x = down(x)
            beside.append(x)
        for up, joined, other in zip(self.up, self.joined, beside[-2::-1], strict=True):
            x = joined(torch.cat([other, up(x)], 1))
        return self.last(x)  # type: ignore[no-any-return]


class Crnn(nn.Module):
    """Shi et al. 2015 (arXiv 1507.05717): convolutions, columns in a row, bidirectional LSTMs, scores of columns."""

    def __init__(self, symbols: int = 37, hidden: int = 32) -> None:
        super().__init__()
        self.features = nn.Sequential(
            block(1, 32), nn.MaxPool2d(2), block(32, 64), nn.MaxPool2d(2), block(64, 128), block(128, 128),
            nn.MaxPool2d((2, 1)), block(128, 128), nn.MaxPool2d((4, 1)),
        )  # fmt: skip
        self.rnn = nn.LSTM(128, hidden, num_layers=2, bidirectional=True, batch_first=True)
        self.head = nn.Linear(2 * hidden, symbols)

    def forward(self, x: Tensor) -> Tensor:
        """[N, 1, 32, W] -> [N, W/4, symbols]."""
        columns = self.features(x).squeeze(2).permute(0, 2, 1)
        return self.head(self.rnn(columns)[0])  # type: ignore[no-any-return]


class Siamese(nn.Module):
    """Koch et al. 2015: one tower for two images, and a weighted difference of what it says of them."""

    def __init__(self) -> None:
        super().__init__()
        self.tower = nn.Sequential(
            nn.Conv2d(1, 32, 7), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(32, 64, 5), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(64, 64, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64 * 5 * 5, 256), nn.Sigmoid(),
        )  # fmt: skip
        self.head = nn.Linear(256, 1)

    def forward(self, one: Tensor, other: Tensor) -> Tensor:
        """Two [N, 1, 44, 44] -> how alike they are [N, 1]."""
        return self.head((self.tower(one) - self.tower(other)).abs())  # type: ignore[no-any-return]


def srcnn() -> nn.Module:
    """Dong et al. 2014 (arXiv 1501.00092): 9-1-5 on an image that was enlarged before."""
    return nn.Sequential(
        nn.Conv2d(1, 64, 9, padding=4), nn.ReLU(), nn.Conv2d(64, 32, 1), nn.ReLU(), nn.Conv2d(32, 1, 5, padding=2)
    )


def espcn(scale: int = 3, channels: int = 1) -> nn.Module:
    """Shi et al. 2016 (arXiv 1609.05158): what is enlarged last is put together of channels."""
    return nn.Sequential(
        nn.Conv2d(channels, 64, 5, padding=2), nn.Tanh(), nn.Conv2d(64, 32, 3, padding=1), nn.Tanh(),
        nn.Conv2d(32, channels * scale**2, 3, padding=1), nn.PixelShuffle(scale),
    )  # fmt: skip


def wave(classes: int = 10) -> nn.Module:
    """M5 of Dai et al. 2017 (arXiv 1610.00087): convolutions over a waveform."""

    def step(inputs: int, outputs: int, size: int, stride: int = 1) -> list[nn.Module]:
        return [nn.Conv1d(inputs, outputs, size, stride), nn.BatchNorm1d(outputs), nn.ReLU(), nn.MaxPool1d(4)]

    layers = [*step(1, 64, 80, 4), *step(64, 64, 3), *step(64, 128, 3), *step(128, 256, 3)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(256, classes))


def video(classes: int = 10) -> nn.Module:
    """C3D's form (Tran et al. 2015, arXiv 1412.0767): 3x3x3 convolutions over frames."""
    layers: list[nn.Module] = []
    for before, after, size in ((3, 16, (1, 2, 2)), (16, 32, (2, 2, 2)), (32, 64, (2, 2, 2))):
        layers += [nn.Conv3d(before, after, 3, padding=1), nn.ReLU(), nn.MaxPool3d(size)]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(64 * 2 * 4 * 4, 128), nn.ReLU(), nn.Linear(128, classes))


OTHER_TASKS: dict[str, OtherTask] = {
    "other/retinanet-3-levels": OtherTask(Detector, ((3, 96, 96),)),
    "other/unet-transposed": OtherTask(lambda: UNet(bilinear=False), ((3, 64, 64),)),
    "other/unet-bilinear": OtherTask(lambda: UNet(bilinear=True), ((3, 64, 64),)),
    "other/srcnn": OtherTask(srcnn, ((1, 48, 48),), "the image's one channel stays at both ends"),
    "other/espcn": OtherTask(espcn, ((1, 32, 32),)),
    "other/crnn": OtherTask(Crnn, ((1, 32, 96),), "the LSTM's hidden units stay"),
    "other/siamese": OtherTask(Siamese, ((1, 44, 44), (1, 44, 44))),
    "other/m5-wave": OtherTask(wave, ((1, 8000),)),
    "other/c3d-video": OtherTask(video, ((3, 8, 32, 32),)),
}


def ready(name: str, seed: int, images: int) -> tuple[nn.Module, Sequence[Tensor]]:
    """Return a network in eval mode, with random weights and statistics of random inputs, and inputs for it."""
    torch.manual_seed(seed)
    task = OTHER_TASKS[name]
    model = task.make()
    for norm in (m for m in model.modules() if isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d)):
        norm.momentum = None
        nn.init.uniform_(norm.weight, 0.5, 1.5)
        nn.init.normal_(norm.bias, std=0.2)
    with torch.no_grad():
        model.train()(*(torch.randn(8, *shape) for shape in task.shapes))
    return model.eval(), [torch.randn(images, *shape) for shape in task.shapes]
