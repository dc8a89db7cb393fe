"""GoogLeNet with response normalisation as a scale model, for images of 32x32: trained here, and kept.

Half of every width, and the first convolution moves by one pixel: every value is then 3.5 times smaller each way than
at 224x224, and half as deep. So every layer does the same share of the work as in the full network, has the same name,
and what is found out about one can be carried over to the other. Without batch norms our trainings did not leave chance
(the published one had two more classifiers on the way to help it), so it is trained with one behind every convolution,
and these are folded, which is exact: what is left is the published structure.
"""

from pathlib import Path

import torch
from torch import Tensor, nn

from lib.kept_nets import trained_once
from slimwright.data import Dataset
from slimwright.graph import Net
from slimwright.progress import Tell
from slimwright.techniques.fold import fold_batch_norm
from slimwright.train import Schedule
from slimwright.zoo.googlenet import BLOCKS, Inception, norm_unit
from slimwright.zoo.weights import he_normal

WIDTH = 0.5  # of the published one


class SmallGoogLeNet(nn.Module):
    """The stem, nine inception blocks and one linear layer, under the full network's names."""

    def __init__(self, *, classes: int, in_channels: int) -> None:
        super().__init__()
        first, second = _narrow((64, 192))
        self.stem = nn.Sequential(
            *(norm_unit(in_channels, first, 7), _pool(), _response_norm()),
            *(norm_unit(first, first, 1), norm_unit(first, second, 3), _response_norm(), _pool()),
        )
        self.blocks, channels = nn.Sequential(), second
        for widths in BLOCKS:
            if widths is None:
                self.blocks.append(_pool())
            else:
                block = Inception(channels, _narrow(widths), norm_unit, largest=5)
                self.blocks.append(block)
                channels = block.channels
        self.pool, self.dropout, self.fc = nn.AdaptiveAvgPool2d(1), nn.Dropout(0.2), nn.Linear(channels, classes)
        he_normal(self)

    def forward(self, x: Tensor) -> Tensor:
        """[N, in_channels, H, W] -> class scores [N, classes]."""
        scores: Tensor = self.fc(self.dropout(self.pool(self.blocks(self.stem(x))).flatten(1)))
        return scores


def trained(data: Dataset, schedule: Schedule, folder: Path, *, device: str = "cpu", tell: Tell) -> Net:
    """Return the network trained on `data`; it is kept in `folder`, and a training that was killed goes on."""

    def make() -> nn.Module:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(schedule.seed)
            return SmallGoogLeNet(classes=len(data.labels), in_channels=data.image_shape[0])

    return fold_batch_norm(trained_once("googlenet", make, data, schedule, folder, device=device, tell=tell))


def _narrow(widths: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(round(WIDTH * width) for width in widths)


def _pool() -> nn.MaxPool2d:
    return nn.MaxPool2d(3, 2, ceil_mode=True)


def _response_norm() -> nn.LocalResponseNorm:
    return nn.LocalResponseNorm(5, alpha=1e-4, beta=0.75, k=1.0)
