"""The forms in which detectors give their boxes, one class each: how they are decoded, and what counts in a loss.

Detectors of one kind give the same numbers in the same places, so imitation is a loss for all of them. It is taken of
the parts of a form: scores are one part, boxes another, as they come in other units. A box counts by the score of its
place, for almost all of a detector's boxes surround nothing.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, TypeAlias, runtime_checkable

import torch
from torch import Tensor

from slimwright.tasks.detection.boxes import LEAST_SCORE, MOST, best, corners
from slimwright.tasks.task import Outputs

Decode: TypeAlias = Callable[[Outputs], Sequence[Tensor]]  # outputs of N images -> each one's detections [D, 6]
Unit: TypeAlias = tuple[float, float]  # pixels, across and down, that a coordinate of 1 stands for
Part: TypeAlias = Tensor  # [N, ...]
LEAST_WEIGHT = 1e-3  # of a box, however low its score: the weights of the layers that make boxes have some gradient


@runtime_checkable
class Form(Protocol):
    """How outputs say which boxes there are."""

    @property
    def said(self) -> str:
        """What people call it."""

    def decode(self, outputs: Outputs) -> Sequence[Tensor]:
        """Return each image's detections [D, 6]: x1, y1, x2, y2, score, class."""

    def parts(self, outputs: Outputs, seen: Outputs) -> tuple[Part, ...]:
        """Return what is imitated of `outputs`, each box weighed by its score in `seen`, outputs of the same images."""


@dataclass(frozen=True)
class Yolo:
    """One output [N, A, 4 + K], or [N, 4 + K, A] with the places last: centre, size, and class scores.

    With an objectness, which its class scores are multiplied by, it is [N, A, 5 + K].
    """

    classes: int
    objectness: bool
    places_last: bool
    unit: Unit
    at: int = 0  # the place of the output among all

    @property
    def said(self) -> str:
        """What people call it."""
        kind = "YOLO with objectness" if self.objectness else "YOLO anchor-free"
        return f"{kind}, {self.classes} classes, {_in(self.unit)}"

    def decode(self, outputs: Outputs) -> Sequence[Tensor]:
        """Return each image's detections [D, 6]."""
        boxes, scores = self._read(outputs)
        return _each(_pixels(corners(boxes), self.unit), scores)

    def parts(self, outputs: Outputs, seen: Outputs) -> tuple[Part, ...]:
        """Return boxes and scores."""
        boxes, scores = self._read(outputs)
        return boxes * _weight(self._read(seen)[1].amax(2))[..., None], scores

    def _read(self, outputs: Outputs) -> tuple[Tensor, Tensor]:
        """The boxes [N, A, 4], as they stand, and scores [N, A, K]."""
        rows = outputs[self.at].mT if self.places_last else outputs[self.at]
        if self.objectness:
            return rows[..., :4], rows[..., 4:5] * rows[..., 5:]
        return rows[..., :4], rows[..., 4:]


@dataclass(frozen=True)
class BoxesAndScores:
    """Boxes [N, A, 4] and scores [N, A, K], or K + 1 with a background: SSD, RetinaNet, EfficientDet, DETR."""

    classes: int
    boxes_at: int
    scores_at: int
    centred: bool  # boxes are centre and size, not corners
    background: int | None  # its place among the scores, 0 or -1
    scale: Literal["", "sigmoid", "softmax"]  # what makes shares of the scores
    unit: Unit

    @property
    def said(self) -> str:
        """What people call it."""
        boxes = "centre and size" if self.centred else "corners"
        more = {None: "", 0: " behind a background", -1: " before a background"}[self.background]
        return f"boxes and scores, {self.classes} classes{more}, {boxes} {_in(self.unit)}"

    def decode(self, outputs: Outputs) -> Sequence[Tensor]:
        """Return each image's detections [D, 6]."""
        boxes = outputs[self.boxes_at]
        return _each(_pixels(corners(boxes) if self.centred else boxes, self.unit), self._scores(outputs))

    def parts(self, outputs: Outputs, seen: Outputs) -> tuple[Part, ...]:
        """Return boxes and scores."""
        weight = _weight(self._scores(seen).amax(2))
        return outputs[self.boxes_at] * weight[..., None], self._scores(outputs)

    def _scores(self, outputs: Outputs) -> Tensor:
        """The scores [N, A, K] of the classes, 0..1."""
        scores = outputs[self.scores_at]
        if self.scale:
            scores = scores.softmax(2) if self.scale == "softmax" else scores.sigmoid()
        if self.background is None:
            return scores
        return scores[..., 1:] if self.background == 0 else scores[..., :-1]


@dataclass(frozen=True)
class EndToEnd:
    """One output [N, M, 6] of detections, as networks give them that choose the best boxes themselves."""

    unit: Unit
    at: int = 0

    @property
    def said(self) -> str:
        """What people call it."""
        return f"detections that the network chose, corners {_in(self.unit)}"

    def decode(self, outputs: Outputs) -> Sequence[Tensor]:
        """Return each image's detections [D, 6], best first."""
        rows = outputs[self.at].float()
        rows = torch.cat([_pixels(rows[..., :4], self.unit), rows[..., 4:5], rows[..., 5:6].round()], 2)
        found = [image[torch.isfinite(image).all(1) & (image[:, 4] > LEAST_SCORE)] for image in rows]
        return [image[image[:, 4].argsort(descending=True)][:MOST] for image in found]

    def parts(self, outputs: Outputs, seen: Outputs) -> tuple[Part, ...]:
        """Return boxes and scores, row by row."""
        rows = outputs[self.at]
        return rows[..., :4] * _weight(seen[self.at][..., 4])[..., None], rows[..., 4]


class OwnDecode:
    """A decode function of the user's own; nothing is known of the outputs, so each is imitated whole.

    Its text is the function's name, so that it is the same in every process.
    """

    def __init__(self, function: Decode) -> None:
        self.function = function

    @property
    def said(self) -> str:
        """The function's name."""
        return f"decoded by {getattr(self.function, '__module__', '')}.{getattr(self.function, '__qualname__', '')}"

    def __repr__(self) -> str:
        return self.said

    def decode(self, outputs: Outputs) -> Sequence[Tensor]:
        """Return each image's detections [D, 6]."""
        return [image if len(image) else torch.zeros(0, 6) for image in self.function(outputs)]

    def parts(self, outputs: Outputs, seen: Outputs) -> tuple[Part, ...]:
        """Return the outputs, each in units of the root mean square of what is seen for the image."""
        return tuple(mine.float() / _root_mean_square(its) for mine, its in zip(outputs, seen, strict=True))


def form_of_own(decode: Form | Decode) -> Form:
    """Return a form; a function that decodes becomes one."""
    return decode if isinstance(decode, Form) else OwnDecode(decode)


def _each(boxes: Tensor, scores: Tensor) -> list[Tensor]:
    boxes, scores = boxes.detach().float().cpu(), scores.detach().float().cpu()
    return [best(*image) for image in zip(boxes, scores, strict=True)]


def _pixels(boxes: Tensor, unit: Unit) -> Tensor:
    return boxes * boxes.new_tensor([*unit, *unit])


def _weight(scores: Tensor) -> Tensor:
    """The weight of a box by its score: the squared error of the box is multiplied by the score."""
    return scores.detach().clamp_min(LEAST_WEIGHT).sqrt()


def _root_mean_square(output: Tensor) -> Tensor:
    values = output.detach().float()
    square = values.square().flatten(1).mean(1).sqrt().clamp_min(1e-6)  # [N]
    return square.reshape(-1, *[1] * (output.ndim - 1))


def _in(unit: Unit) -> str:
    return "in pixels" if unit == (1.0, 1.0) else "as shares of a side"
