"""Outputs of two images, and the tasks that say what they mean: what kits make of them must be what the tasks make."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from slimwright.data import ArrayData, Preprocessing, split
from slimwright.tasks import (
    BoxesAndScores,
    CenterNet,
    Detection,
    EndToEnd,
    Keypoints,
    Outputs,
    Restoration,
    Segmentation,
    Task,
    Yolo,
)

LABELS = ("a cat", "b", "c")
HEIGHT, WIDTH = 24, 20
LETTERBOX = Preprocessing(HEIGHT, WIDTH, fit="letterbox")
CROP = Preprocessing(HEIGHT, WIDTH, crop_share=0.875)
PLAIN = Preprocessing(HEIGHT, WIDTH, fit="cut", mean=(0.0,), std=(1.0,))
PIXELS, SHARES = (1.0, 1.0), (float(WIDTH), float(HEIGHT))
PLACES = 150


@dataclass(frozen=True)
class Case:
    """Outputs [2, ...] of nets that read pictures placed by `how`."""

    task: Task
    outputs: Outputs
    how: Preprocessing = LETTERBOX
    labels: tuple[str, ...] = LABELS

    @property
    def data(self) -> ArrayData:
        """Data that says how its pictures were placed."""
        images, none = torch.zeros(20, *self.how.shape), (torch.zeros(20, 0),)
        said = {**self.how.said, "mean": list(self.how.mean), "std": list(self.how.std), "scale": self.how.scale}
        return ArrayData("things", self.labels, split(images, none, seed=0), said)


def masks(shares: bool, channels: int, side: int) -> Case:
    """Scores at 1 / side of the network's size."""
    scores = torch.randn(2, channels, HEIGHT // side, WIDTH // side)
    if shares:
        scores = scores.sigmoid() if channels == 1 else scores.softmax(1)
    return Case(Segmentation(LABELS[: max(channels, 2)], shares), (scores,), CROP, LABELS[: max(channels, 2)])


def picture(channels: int, white: float, how: Preprocessing = PLAIN) -> Case:
    """Levels that reach beyond both ends."""
    shape = channels, 2 * HEIGHT, 2 * WIDTH
    return Case(Restoration(shape, 0.3, white=white), (white * (1.4 * torch.rand(2, *shape) - 0.2),), how, ())


def crowd() -> tuple[Tensor, Tensor]:
    """Boxes [2, A, 4], centre and size in pixels, of which many overlap, and scores [2, A, K]; one box is no number."""
    boxes = torch.cat([torch.rand(2, PLACES, 2) * torch.tensor(SHARES), 4 + 8 * torch.rand(2, PLACES, 2)], 2)
    boxes[0, 3, 1] = torch.nan
    scores = torch.rand(2, PLACES, len(LABELS)) ** 3
    scores[0, 3] = 0.99
    return boxes, scores


def corners(boxes: Tensor) -> Tensor:
    return torch.cat([boxes[..., :2] - boxes[..., 2:] / 2, boxes[..., :2] + boxes[..., 2:] / 2], 2)


def detected(form: Yolo | BoxesAndScores | EndToEnd | CenterNet, *outputs: Tensor) -> Case:
    return Case(Detection(LABELS, form, len(outputs)), outputs)


def anchor_free() -> Case:
    return detected(Yolo(3, False, True, PIXELS), torch.cat(crowd(), 2).mT.contiguous())


def with_objectness() -> Case:
    boxes, scores = crowd()
    rows = torch.cat([boxes / torch.tensor([*SHARES, *SHARES]), 0.5 + 0.5 * torch.rand(2, PLACES, 1), scores], 2)
    return detected(Yolo(3, True, False, SHARES, 1), torch.zeros(2, 3, 4), rows)


def logits_before_boxes() -> Case:
    boxes, scores = crowd()
    return detected(BoxesAndScores(3, 1, 0, False, None, "sigmoid", PIXELS), scores.logit(), corners(boxes))


def behind_a_background() -> Case:
    boxes, scores = corners(crowd()[0]) / torch.tensor([*SHARES, *SHARES]), 3 * torch.randn(2, PLACES, 4)
    return detected(BoxesAndScores(3, 0, 1, False, 0, "softmax", SHARES), boxes, scores)


def queries() -> Case:
    boxes, scores = crowd()[0] / torch.tensor([*SHARES, *SHARES]), 3 * torch.randn(2, PLACES, 4)
    return detected(BoxesAndScores(3, 1, 0, True, -1, "softmax", SHARES), scores, boxes)


def plain_pair() -> Case:
    boxes, scores = crowd()
    return detected(BoxesAndScores(3, 0, 1, False, None, "", PIXELS), corners(boxes), scores)


def chosen() -> Case:
    boxes, scores = crowd()
    kinds = torch.randint(3, (2, PLACES, 1)).float()
    return detected(EndToEnd(PIXELS), torch.cat([corners(boxes), scores[..., :1], kinds], 2))


def maps(logits: bool) -> Case:
    heat = torch.randn(2, 3, 6, 5)
    heat[0, 1, 2, 2] = torch.nan
    size, offset = 1 + 2 * torch.rand(2, 2, 6, 5), torch.rand(2, 2, 6, 5)
    return detected(CenterNet(3, (4.0, 4.0), logits), heat if logits else heat.sigmoid(), size, offset)


CASES: Mapping[str, Callable[[], Case]] = {
    "mask": lambda: masks(shares=False, channels=3, side=1),
    "smaller mask": lambda: masks(shares=False, channels=3, side=4),
    "smaller mask of shares": lambda: masks(shares=True, channels=3, side=2),
    "foreground": lambda: masks(shares=False, channels=1, side=2),
    "foreground in shares": lambda: masks(shares=True, channels=1, side=1),
    "smaller foreground in shares": lambda: masks(shares=True, channels=1, side=2),
    "heat maps": lambda: Case(Keypoints(3, HEIGHT, WIDTH), (F.avg_pool2d(torch.randn(2, 3, 12, 10), 3, 1, 1),)),
    "heat maps without names": lambda: Case(Keypoints(4, HEIGHT, WIDTH), (torch.randn(2, 4, 6, 5),), CROP, ()),
    "coordinates": lambda: Case(Keypoints(3, HEIGHT, WIDTH, shares=True), (torch.rand(2, 6),)),
    "coordinates in pixels": lambda: Case(Keypoints(3, HEIGHT, WIDTH), (20 * torch.rand(2, 3, 2),), CROP),
    "picture": lambda: picture(3, 1.0),
    "picture in BGR": lambda: picture(3, 255.0, Preprocessing(HEIGHT, WIDTH, fit="cut", channels="BGR")),
    "grey picture": lambda: picture(1, 255.0),
    "anchor-free": anchor_free,
    "objectness": with_objectness,
    "logits": logits_before_boxes,
    "background": behind_a_background,
    "queries": queries,
    "plain pair": plain_pair,
    "chosen": chosen,
    "CenterNet": lambda: maps(logits=False),
    "CenterNet, logits": lambda: maps(logits=True),
}


def case(name: str) -> Case:
    """A case, always the same."""
    torch.manual_seed(0)
    return CASES[name]()
