"""Boxes, and the best of many: a detection is a row x1, y1, x2, y2, score, class, in pixels of the picture.

Non-maximum suppression is the greedy one, class by class, computed without a loop over boxes: a box stays if no better
one that stays covers it, and that rule is applied to all boxes at once until nothing changes. After n rounds the n best
boxes are settled, so the result is exactly that of the loop.
"""

import torch
from torch import Tensor

LEAST_SCORE = 0.001  # of what counts for average precision, as in Ultralytics' validation
MOST_OVERLAP = 0.6  # intersection over union, above which the worse of two boxes of a class goes; as in YOLOv5's
CANDIDATES, MOST = 1_000, 100  # of an image: before suppression, and after it, where COCO's metric counts 100


def corners(centred: Tensor) -> Tensor:
    """Return boxes [..., 4] given as centre x, centre y, width, height as x1, y1, x2, y2."""
    centre, half = centred[..., :2], centred[..., 2:] / 2
    return torch.cat([centre - half, centre + half], -1)


def overlaps(one: Tensor, other: Tensor) -> Tensor:
    """Return the intersection over union [A, B] of boxes [A, 4] and [B, 4]; 0 where either has no area."""
    low = torch.maximum(one[:, None, :2], other[None, :, :2])
    high = torch.minimum(one[:, None, 2:], other[None, :, 2:])
    shared = (high - low).clamp_min(0).prod(2)  # [A, B]
    areas = [(boxes[:, 2:] - boxes[:, :2]).clamp_min(0).prod(1) for boxes in (one, other)]
    return shared / (areas[0][:, None] + areas[1][None, :] - shared).clamp_min(1e-12)


def suppressed(rows: Tensor, most_overlap: float = MOST_OVERLAP) -> Tensor:
    """Return the detections [D, 6], best first, without those that a better one of their class covers."""
    alike = rows[:, None, 5] == rows[None, :, 5]
    covers = ((overlaps(rows[:, :4], rows[:, :4]) > most_overlap) & alike).triu(1).float()  # [better, worse]
    stays = torch.ones(len(rows))
    while True:
        now = (stays @ covers == 0).float()
        if torch.equal(now, stays):
            return rows[stays.bool()]
        stays = now


def best(boxes: Tensor, scores: Tensor) -> Tensor:
    """Return the detections [D, 6], best first, of places with a box [A, 4] and scores [A, K].

    Numbers that are none are no detections.
    """
    flat = torch.where(torch.isfinite(boxes).all(1, keepdim=True), scores, 0).nan_to_num(0.0).flatten()
    found, chosen = flat.topk(min(CANDIDATES, len(flat)))
    chosen = chosen[found > LEAST_SCORE]
    place, kind = chosen // scores.shape[1], chosen % scores.shape[1]
    rows = torch.cat([boxes[place], flat[chosen, None], kind[:, None].to(boxes)], 1)
    return suppressed(rows)[:MOST]
