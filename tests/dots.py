"""Images of two classes that are quick to learn, networks small enough to learn them, and a clock that tests move."""

import itertools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from slimwright.data import ArrayData, Dataset, split
from slimwright.graph import Net
from slimwright.graph.net import Node, Ref, checked
from slimwright.importers import capture
from slimwright.progress import Event, Tell, silent
from slimwright.tasks import Classification
from slimwright.train import Schedule, fit

SHAPE = (1, 8, 8)
TASK = Classification(("left", "right"))


class Killed(Exception):
    """The machine went down."""


def dots(name: str = "dots") -> ArrayData:
    """80 images of noise in two classes: one brighter to the left, one to the right."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(80) % 2
    images = 0.3 * torch.randn(80, *SHAPE, generator=generator)
    images[labels == 0, :, :, :4] += 1
    images[labels == 1, :, :, 4:] += 1
    return ArrayData(name, ("left", "right"), split(images, labels, seed=0))


def small_net(seed: int = 0, width: int = 4) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(1, width, 3),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        nn.Dropout(0.2),
        nn.Flatten(),
        nn.Linear(width * 36, 2),
    )


def two_stages(seed: int = 0, widths: tuple[int, int, int] = (6, 4, 5)) -> Net:
    """Nodes conv2d, relu, conv2d_1, relu_1, conv2d_2, relu_2, flatten, linear."""
    torch.manual_seed(seed)
    a, b, c = widths
    model = nn.Sequential(
        nn.Conv2d(1, a, 3), nn.ReLU(), nn.Conv2d(a, b, 1), nn.ReLU(), nn.Conv2d(b, c, 3), nn.ReLU(),
        nn.Flatten(), nn.Linear(c * 16, 2),
    )  # fmt: skip
    return capture(model.eval(), SHAPE)


def joined_stages(seed: int = 0) -> Net:
    """As `two_stages`, with a second input [6, 6, 6] that is added behind `relu`."""
    net = two_stages(seed)
    front, (conv, *rest) = net.nodes[:3], net.nodes[3:]
    other = Node("other", "input", shape=(1, 6, 6, 6))
    add = Node("add", "add", {"self": Ref("relu"), "other": Ref("other"), "alpha": 1})
    conv = replace(conv, arguments={**conv.arguments, "input": Ref("add")})
    return checked(Net((front[0], other, *front[1:], add, conv, *rest), net.tensors, net.outputs))


def state(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def same_bits(one: nn.Module, other: nn.Module) -> bool:
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


def killed_after(count: int) -> tuple[list[Event], Callable[[Event], None]]:
    """What was told, and a listener that pulls the plug at this many events."""
    told: list[Event] = []

    def tell(event: Event) -> None:
        told.append(event)
        if len(told) == count:
            raise Killed

    return told, tell


def fit_labels(
    model: nn.Module,
    data: Dataset,
    schedule: Schedule,
    *,
    teacher: nn.Module | None = None,
    checkpoint: Path | None = None,
    tell: Tell = silent,
) -> nn.Module:
    """Train on the labels of a data set."""
    task = Classification(data.labels)
    return fit(model, data, schedule, task=task, teacher=teacher, checkpoint=checkpoint, tell=tell)


def set_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on a quarter of a second goes by between two looks at the clock."""
    ticks = itertools.count(1000)
    monkeypatch.setattr("slimwright.train.run.monotonic", lambda: next(ticks) / 4)
