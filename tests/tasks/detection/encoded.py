"""Outputs of detectors that say what is true, in every form."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from slimwright.tasks import Outputs

SIDE, CLASSES, PLACES = 64, 3, 40


def truth(images: int = 6, seed: int = 0) -> Tensor:
    """Boxes [N, 3, 5] that do not overlap, one in each of three corners; the last image has one box."""
    generator = torch.Generator().manual_seed(seed)
    corner = torch.tensor([[2.0, 2], [34, 2], [2, 34]]) + 6 * torch.rand(images, 3, 2, generator=generator)
    size = 10 + 10 * torch.rand(images, 3, 2, generator=generator)
    kinds = torch.randint(CLASSES, (images, 3, 1), generator=generator).float()
    boxes = torch.cat([kinds, corner, corner + size], 2)
    boxes[-1, 1:] = torch.tensor([-1.0, 0, 0, 0, 0])
    return boxes


def placed(boxes: Tensor) -> tuple[Tensor, Tensor]:
    """Corners [N, A, 4] and scores [N, A, K]; the true boxes at some places, nothing at the others."""
    corners = torch.tensor([30.0, 30, 33, 34]).repeat(len(boxes), PLACES, 1)
    scores = torch.full((len(boxes), PLACES, CLASSES), 1e-4)
    for image, rows in enumerate(boxes):
        for place, row in enumerate(rows[rows[:, 0] >= 0]):
            corners[image, 7 * place + 3] = row[1:]
            scores[image, 7 * place + 3, int(row[0])] = 0.9 - 0.1 * place
    return corners, scores


def centred(corners: Tensor) -> Tensor:
    low, high = corners[..., :2], corners[..., 2:]
    return torch.cat([(low + high) / 2, high - low], -1)


def anchor_free(boxes: Tensor) -> Outputs:
    corners, scores = placed(boxes)
    return (torch.cat([centred(corners), scores], 2).mT.contiguous(),)


def anchor_free_as_shares(boxes: Tensor) -> Outputs:
    corners, scores = placed(boxes)
    return (torch.cat([centred(corners) / SIDE, scores], 2),)


def with_objectness(boxes: Tensor) -> Outputs:
    corners, scores = placed(boxes)
    sure = scores.amax(2, keepdim=True)
    raw = torch.randn(len(boxes), 3, 4, 4, 8, generator=torch.Generator().manual_seed(0))
    return torch.cat([centred(corners), sure, scores / sure], 2), raw


def boxes_and_scores(boxes: Tensor) -> Outputs:
    corners, scores = placed(boxes)
    return corners / SIDE, scores


def logits_before_boxes(boxes: Tensor) -> Outputs:
    corners, scores = placed(boxes)
    return scores.logit(), corners


def behind_a_background(boxes: Tensor) -> Outputs:
    corners, scores = placed(boxes)
    return corners, torch.cat([1 - scores.sum(2, keepdim=True), scores], 2).log()


def queries(boxes: Tensor) -> Outputs:
    """As DETR gives them: no object comes last, boxes are centre and size as shares."""
    corners, scores = placed(boxes)
    return torch.cat([scores, 1 - scores.sum(2, keepdim=True)], 2).log(), centred(corners) / SIDE


def chosen(boxes: Tensor) -> Outputs:
    rows = torch.zeros(len(boxes), 10, 6)
    for image, some in enumerate(boxes):
        for place, row in enumerate(some[some[:, 0] >= 0]):
            rows[image, place] = torch.tensor([*row[1:], 0.9 - 0.1 * place, row[0]])
    return (rows,)


def maps(boxes: Tensor) -> Outputs:
    """As CenterNet gives them, in cells of four pixels."""
    heat = torch.full((len(boxes), CLASSES, 16, 16), 1e-4)
    size, offset = torch.ones(len(boxes), 2, 16, 16), torch.full((len(boxes), 2, 16, 16), 0.5)
    for image, some in enumerate(boxes):
        for place, row in enumerate(some[some[:, 0] >= 0]):
            x, y, width, height = centred(row[1:]) / 4
            column, line = int(x), int(y)
            heat[image, int(row[0]), line, column] = 0.9 - 0.1 * place
            size[image, :, line, column] = torch.stack([width, height])
            offset[image, :, line, column] = torch.stack([x - column, y - line])
    return heat, size, offset


def raw_maps(boxes: Tensor) -> Outputs:
    heat, size, offset = maps(boxes)
    return heat.logit(), size, offset


ENCODED: Mapping[str, tuple[Callable[[Tensor], Outputs], str]] = {
    "anchor-free": (anchor_free, "YOLO anchor-free, 3 classes, in pixels"),
    "transposed, shares": (anchor_free_as_shares, "YOLO anchor-free, 3 classes, as shares of a side"),
    "objectness": (with_objectness, "YOLO with objectness, 3 classes, in pixels"),
    "pair": (boxes_and_scores, "boxes and scores, 3 classes, corners as shares of a side"),
    "logits": (logits_before_boxes, "boxes and scores, 3 classes, corners in pixels"),
    "background": (behind_a_background, "boxes and scores, 3 classes behind a background, corners in pixels"),
    "queries": (queries, "boxes and scores, 3 classes before a background, centre and size as shares of a side"),
    "chosen": (chosen, "detections that the network chose, corners in pixels"),
    "CenterNet": (maps, "CenterNet, 3 classes, cells of 4x4 pixels"),
    "CenterNet, logits": (raw_maps, "CenterNet, 3 classes, cells of 4x4 pixels"),
}
