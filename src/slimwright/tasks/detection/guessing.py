"""Tell the form of a detector's outputs from their shapes and their values on a few images.

What no form fits is refused: outputs that are read wrongly would be scored wrongly.
"""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from slimwright.errors import DataError
from slimwright.tasks.detection.centernet import CenterNet
from slimwright.tasks.detection.forms import BoxesAndScores, EndToEnd, Form, Unit, Yolo
from slimwright.tasks.task import Outputs

RELATIVE = 2.0  # coordinates below it are shares of a side, for no picture is so small
ORDERED = 0.99  # share of the boxes whose second corner lies right of and below the first
SLACK = 1e-4


def form_of(outputs: Outputs, classes: int, image_shape: Sequence[int]) -> Form:
    """Return the form of a detector's outputs for some images of shape [C, H, W], which show `classes` classes.

    Raises DataError where none fits, with the shapes and the way out.
    """
    size = float(image_shape[-1]), float(image_shape[-2])
    found = next(_fitting(outputs, classes, size), None)
    if found is None:
        shapes = " and ".join(str(["N", *output.shape[1:]]).replace("'", "") for output in outputs)
        raise DataError(
            f"the model's outputs {shapes} are of no form of a detector of {classes} classes that can be told from "
            f"shapes and values{_hint(outputs, classes)}. Write a function that decodes them and name it with --task "
            "module:callable: the callable returns Detection(labels, decode=my_decode), and my_decode(outputs) each "
            "image's rows x1, y1, x2, y2, score, class"
        )
    return found


def _fitting(outputs: Outputs, classes: int, size: Unit) -> Iterator[Form]:
    """Every form that fits, the most telling first."""
    shapes = [tuple(output.shape[1:]) for output in outputs]
    if len(outputs) == 3 and all(len(shape) == 3 for shape in shapes):
        height, width = shapes[0][1:]
        if shapes == [(classes, height, width), (2, height, width), (2, height, width)]:
            yield CenterNet(classes, (size[0] / width, size[1] / height), not _shares(outputs[0]))
    for at, output in enumerate(outputs):
        if len(shapes[at]) == 2 and shapes[at][1] == 6 and _chosen(output, classes):
            yield EndToEnd(_unit(output[..., :4][output[..., 4] > 0], size), at)
    if len(outputs) == 2:
        pairs = [at for at in ((0, 1), (1, 0)) if _a_pair(shapes[at[0]], shapes[at[1]], classes)]
        if pairs:  # of three or four classes both may be boxes
            yield _pair(outputs, max(pairs, key=lambda at: _extents(outputs[at[0]])), classes, size)
    for at, output in enumerate(outputs):
        if len(shapes[at]) == 2:
            yield from _yolos(output, at, classes, size)


def _yolos(output: Tensor, at: int, classes: int, size: Unit) -> Iterator[Yolo]:
    for places_last in (True, False):
        rows = output.mT if places_last else output
        for objectness in (False, True):
            first = 4 + objectness
            if rows.shape[2] == first + classes and _shares(rows[..., 4:]) and bool((rows[..., 2:4] > -SLACK).all()):
                yield Yolo(classes, objectness, places_last, _unit(rows[..., :4], size), at)


def _a_pair(boxes: Sequence[int], scores: Sequence[int], classes: int) -> bool:
    return (
        len(boxes) == len(scores) == 2
        and boxes[0] == scores[0]
        and boxes[1] == 4
        and scores[1] in (classes, classes + 1)
    )


def _pair(outputs: Outputs, at: tuple[int, int], classes: int, size: Unit) -> BoxesAndScores:
    boxes, scores = outputs[at[0]], outputs[at[1]]
    more = scores.shape[2] > classes
    background = None
    if more:  # almost every place shows the background, so it has the higher scores
        background = 0 if float(scores[..., 0].mean()) >= float(scores[..., -1].mean()) else -1
    scale = "" if _shares(scores) else "softmax" if more else "sigmoid"
    ordered = ((boxes[..., 2] >= boxes[..., 0] - SLACK) & (boxes[..., 3] >= boxes[..., 1] - SLACK)).double().mean()
    unit = _unit(boxes, size)
    return BoxesAndScores(classes, *at, float(ordered) < ORDERED, background, scale, unit)  # type: ignore[arg-type]


def _extents(boxes: Tensor) -> float:
    """The share of the boxes that have an area, as corners or else as centre and size."""
    areas = [((high > low) & (boxes[..., 2:] > 0)).all(2).double().mean()
             for low, high in ((boxes[..., :2], boxes[..., 2:]), (torch.zeros(()), boxes[..., 2:]))]  # fmt: skip
    return float(max(areas))


def _chosen(rows: Tensor, classes: int) -> bool:
    """True for rows x1, y1, x2, y2, score, class."""
    there = rows[rows[..., 4] > 0]
    kinds = there[:, 5]
    return (
        len(there) > 0
        and _shares(there[:, 4])
        and bool((there[:, 2:4] >= there[:, :2] - SLACK).all())
        and bool((kinds == kinds.round()).all())
        and 0 <= float(kinds.min()) <= float(kinds.max()) < classes
    )


def _shares(scores: Tensor) -> bool:
    """True where all are in 0..1."""
    return bool(((scores >= -SLACK) & (scores <= 1 + SLACK)).all())


def _unit(boxes: Tensor, size: Unit) -> Unit:
    """Pixels that a coordinate of 1 stands for: 1, or a side's where coordinates are shares of it."""
    largest = float(torch.nan_to_num(boxes).abs().max()) if boxes.numel() else 0.0
    return size if largest <= RELATIVE else (1.0, 1.0)


def _hint(outputs: Outputs, classes: int) -> str:
    """What is likely wrong, where that can be told."""
    raw = [output for output in outputs if output.ndim in (4, 5) and output.shape[1] in (3, 3 * (5 + classes))]
    if raw:
        return (
            ": they look like the raw maps of a YOLO with anchors, which are not in the outputs; export the model with "
            "its decoding, or write that"
        )
    for output in outputs:
        more = [side - 4 for side in output.shape[1:]] if output.ndim == 3 else []
        found = min((count for count in more if count > 0), default=0)
        if found and found not in (classes, classes + 1):
            return f": a YOLO of {classes} classes gives {4 + classes} or {5 + classes} numbers a place"
    return ""
