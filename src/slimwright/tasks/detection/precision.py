"""Mean average precision as COCO counts it, by faster-coco-eval, from boxes in memory."""

import contextlib
import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor

from slimwright.errors import DataError, check_extra
from slimwright.tasks.detection.boxes import MOST

HALF, ALL = (0.5,), tuple(float(iou) for iou in np.linspace(0.5, 0.95, 10))  # intersections over union


def mean_average_precision(
    found: Sequence[Tensor], boxes: Tensor, *, classes: int, overlaps: Sequence[float] = ALL
) -> float:
    """Return the mean over the classes that occur, and over `overlaps`, in percent.

    `found` are each image's detections [D, 6], of which the best 100 count; `boxes` [N, M, 5] are class, x1, y1, x2,
    y2, where rows with class -1 are none. Raises DataError where there is no box at all.
    """
    there = boxes[..., 0] >= 0
    if not bool(there.any()):
        raise DataError(f"no box is in any of {len(boxes)} images; average precision needs at least one")
    detections = _detections(found)
    if not len(detections):
        return 0.0
    images, places = there.nonzero().T.tolist()
    truth = [_annotation(number, image, boxes[image, place].tolist()) for number, (image, place) in
             enumerate(zip(images, places, strict=True), 1)]  # fmt: skip
    data = {
        "images": [{"id": image} for image in range(len(boxes))],
        "annotations": truth,
        "categories": [{"id": number, "name": str(number)} for number in range(classes)],
    }
    with contextlib.redirect_stdout(io.StringIO()):  # it prints its progress
        precision = _counted(data, detections, overlaps)
    return 100 * float(precision[precision > -1].mean())  # -1 where a class does not occur


def _counted(data: dict[str, Any], detections: Any, overlaps: Sequence[float]) -> Any:
    check_extra("data", "average precision needs", "faster_coco_eval")
    from faster_coco_eval import COCO, COCOeval_faster  # it is needed here alone

    truth = COCO(data)
    count = COCOeval_faster(truth, truth.loadRes(detections), "bbox")
    count.params.iouThrs = np.array(overlaps)
    count.params.maxDets = [MOST]
    count.params.areaRng, count.params.areaRngLbl = [[0, 1e10]], ["all"]
    count.evaluate()
    count.accumulate()
    return count.eval["precision"]


def _detections(found: Sequence[Tensor]) -> Any:
    """All detections [D, 7]: image, x1, y1, width, height, score, class."""
    rows = [np.zeros((0, 7))]
    for image, one in enumerate(found):
        values = one.detach().cpu().double().numpy()
        corner, size = values[:, :2], values[:, 2:4] - values[:, :2]
        rows.append(np.column_stack([np.full(len(values), image), corner, size, values[:, 4:6]]))
    return np.concatenate(rows)


def _annotation(number: int, image: int, box: Sequence[float]) -> dict[str, Any]:
    kind, left, top, right, bottom = box
    size = [right - left, bottom - top]
    return {
        "id": number,
        "image_id": image,
        "category_id": int(kind),
        "bbox": [left, top, *size],
        "area": size[0] * size[1],
        "iscrowd": 0,
    }
