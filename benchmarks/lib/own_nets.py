"""Nets of five tasks that are trained here: what to train, on which data, for how long, and how to judge a result."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from lib.kept_nets import in_memory
from lib.other_tasks import block, espcn
from slimwright.data import PARTS, ArrayData, Batch, Dataset, Part, glyphs, scenes, tensors_of, whole
from slimwright.data.glyphs import parsed, parsed_scenes
from slimwright.tasks import Task, forward_of, scored, task_for
from slimwright.tasks.task import Forward
from slimwright.train import Schedule, fit
from slimwright.zoo import build

SEED = 0
SIZES = "train=2000,calibration=256,validation=384,test=768"


@dataclass(frozen=True)
class Own:
    """A net and what it is trained on. Its file is written once by torch's exporter."""

    make: Callable[[], nn.Module]
    data: Callable[[], Dataset]
    schedule: Schedule

    def trained(self) -> nn.Module:
        """Return the net, trained."""
        torch.manual_seed(SEED)
        model, data = self.make(), self.data()
        return fit(model, data, self.schedule, task=_task(data, forward_of(model)))

    @property
    def shapes(self) -> list[tuple[int, ...]]:
        """The shapes of the inputs, without the batch."""
        inputs, _ = next(self.data().batches("calibration", 1))
        return [tuple(one.shape[1:]) for one in tensors_of(inputs)]


class Twins(nn.Module):
    """One tower for two pictures (Bromley et al. 1993), and the logit that both show the same character."""

    def __init__(self) -> None:
        super().__init__()
        self.tower = nn.Sequential(
            block(3, 32), nn.MaxPool2d(2), block(32, 64), nn.MaxPool2d(2), block(64, 128), nn.MaxPool2d(2),
            block(128, 128), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(128, 64),
        )  # fmt: skip
        self.head = nn.Linear(64, 1)

    def forward(self, one: Tensor, other: Tensor) -> Tensor:
        """Two [N, 3, H, W] -> [N, 1]."""
        return self.head((self.tower(one) - self.tower(other)).square())  # type: ignore[no-any-return]


class Corners(nn.Module):
    """Heat maps at a quarter of the size, by Xiao et al. 2018 (arXiv 1804.06208): down, and up by transposed layers."""

    def __init__(self, points: int) -> None:
        super().__init__()
        self.down = nn.Sequential(block(3, 24, 2), block(24, 48, 2), block(48, 96, 2), block(96, 96), block(96, 96))
        self.up = nn.Sequential(nn.ConvTranspose2d(96, 48, 4, 2, 1, bias=False), nn.BatchNorm2d(48), nn.ReLU())
        self.maps = nn.Conv2d(48, points, 1)

    def forward(self, x: Tensor) -> Tensor:
        """[N, 3, H, W] -> [N, points, H/4, W/4]."""
        return self.maps(self.up(self.down(x)))  # type: ignore[no-any-return]


def drawn(text: str) -> Dataset:
    """Scenes, held in memory."""
    data = scenes(parsed_scenes(f"{text},{SIZES}"), SEED)
    return _Held.of(data, data.task)


def corners() -> Dataset:
    """Scenes of one character; the points are the left upper and the right lower corner of its box."""
    data = scenes(parsed_scenes(f"boxes,glyphs=1,{SIZES}"), SEED)
    parts: dict[Part, Batch] = {}
    for part in PARTS:
        images, boxes = whole(data, part)
        (rows,) = tensors_of(boxes)
        places = rows[:, 0, 1:].reshape(-1, 2, 2)
        seen = (rows[:, :1, 0] >= 0).float()[..., None].expand(-1, 2, 1)
        parts[part] = images, (torch.cat([places, seen], 2),)
    return _Held("corners", (), parts, data.preprocessing, task="keypoints")


def pairs() -> Dataset:
    """Two characters each, and whether they are the same one, as half of the pairs are."""
    data = in_memory(
        glyphs(parsed("classes=20,difficulty=0.5,train=6000,calibration=512,validation=768,test=1536"), SEED)
    )
    parts: dict[Part, Batch] = {}
    for number, part in enumerate(PARTS):
        images, labels = data.parts[part]
        assert isinstance(images, Tensor) and isinstance(labels, Tensor)
        rng = torch.Generator().manual_seed(SEED + number)
        order = torch.randperm(len(labels), generator=rng)
        one, other = order.chunk(2)
        for place in range(0, len(one), 2):  # every other pair shows one character
            same = (labels == labels[one[place]]).nonzero().flatten()
            other[place] = same[int(torch.randint(len(same), (), generator=rng))]
        parts[part] = (images[one], images[other]), (labels[one] == labels[other]).float()[:, None]
    return ArrayData("pairs", ("same",), parts)


@dataclass(frozen=True)
class _Held(ArrayData):
    """Data in memory that says which task it is for."""

    task: str = ""

    @classmethod
    def of(cls, data: Dataset, task: str) -> "_Held":
        parts = {part: whole(data, part) for part in PARTS}
        return cls(data.name, data.labels, parts, data.preprocessing, task=task)


def _task(data: Dataset, forward: Forward) -> Task:
    """The task that the data is for."""
    inputs, _ = next(data.batches("calibration", 1))
    return task_for(data, [tuple(one.shape) for one in forward(inputs)], forward)


def judged_by_task(data: Dataset, original: Forward) -> Task:
    """Imitate the original, and judge by the metric of the task that the data is for."""
    task = _task(data, original)
    return scored(task.name, task.score, task.metric, agreement=task.agreement)(data, original)


OWN = {
    "detector": Own(
        partial(build, "glyph-detector", classes=10), partial(drawn, "boxes"), Schedule(epochs=16, rate=0.05)
    ),
    "segmenter": Own(
        partial(build, "glyph-unet", classes=5), partial(drawn, "masks,classes=4"), Schedule(epochs=16, rate=0.1)
    ),
    "super-resolution": Own(partial(espcn, 2, 3), partial(drawn, "double"), Schedule(epochs=10, rate=0.02)),
    "siamese": Own(Twins, pairs, Schedule(epochs=12, rate=0.05, label_smoothing=0)),
    "key points": Own(partial(Corners, 2), corners, Schedule(epochs=10, rate=0.02)),
}
