"""How outputs are to be read, as a bundle says it: what code that runs the model elsewhere cannot tell from shapes.

A bundle is untrusted input, so every number has a range and every word comes from a list. `None` stands for tasks that
need no such record, and for outputs that only the user's own code can read.
"""

from typing import Annotated, Literal, TypeAlias

from pydantic import Field

from slimwright.measure.record import Record
from slimwright.tasks import (
    BoxesAndScores,
    CenterNet,
    Detection,
    EndToEnd,
    Keypoints,
    Restoration,
    Segmentation,
    Task,
    Yolo,
)

MOST_OUTPUTS = 1_000
Positive: TypeAlias = Annotated[float, Field(ge=1e-6, le=1e9, allow_inf_nan=False)]
Pixels: TypeAlias = tuple[Positive, Positive]  # across and down
Place: TypeAlias = Annotated[int, Field(ge=0, lt=MOST_OUTPUTS)]  # of an output among all


class MaskForm(Record):
    """Scores of each pixel's classes; `shares` lie between 0 and 1."""

    kind: Literal["mask"] = "mask"
    shares: bool


class PointsForm(Record):
    """Heat maps, or coordinates, which are pixels or `shares` of the input's sides."""

    kind: Literal["points"] = "points"
    shares: bool


class PictureForm(Record):
    """A picture whose brightest level is called `white`."""

    kind: Literal["picture"] = "picture"
    white: Positive


class YoloForm(Record):
    """Centre, size, perhaps an objectness, and class scores of each place, in one output."""

    kind: Literal["yolo"] = "yolo"
    objectness: bool
    places_last: bool
    unit: Pixels  # that a coordinate of 1 stands for
    at: Place


class BoxesAndScoresForm(Record):
    """Boxes in one output, scores in another."""

    kind: Literal["boxes and scores"] = "boxes and scores"
    boxes_at: Place
    scores_at: Place
    centred: bool  # boxes are centre and size, not corners
    background: Literal[0, -1] | None  # its place among the scores
    scale: Literal["", "sigmoid", "softmax"]  # what makes shares of the scores
    unit: Pixels


class EndToEndForm(Record):
    """Rows of corners, score and class, which the network chose."""

    kind: Literal["end to end"] = "end to end"
    unit: Pixels
    at: Place


class CenterNetForm(Record):
    """Maps of centres, sizes and offsets; a `cell` of them is so many pixels wide and high."""

    kind: Literal["centernet"] = "centernet"
    cell: Pixels
    logits: bool


OutputForm: TypeAlias = Annotated[
    MaskForm | PointsForm | PictureForm | YoloForm | BoxesAndScoresForm | EndToEndForm | CenterNetForm,
    Field(discriminator="kind"),
]


def output_form(task: Task) -> OutputForm | None:
    """Return how a task reads outputs."""
    match task:
        case Segmentation():
            return MaskForm(shares=task.shares)
        case Keypoints():
            return PointsForm(shares=task.shares)
        case Restoration():
            return None if task.by == "MAE" else PictureForm(white=task.white)
        case Detection():
            return _boxes(task)
        case _:
            return None


def _boxes(task: Detection) -> OutputForm | None:
    """The form of a detector's outputs; None for a function of the user's own."""
    match form := task.form:
        case Yolo():
            at = form.at % task.outputs
            return YoloForm(objectness=form.objectness, places_last=form.places_last, unit=form.unit, at=at)
        case BoxesAndScores():
            places = {"boxes_at": form.boxes_at % task.outputs, "scores_at": form.scores_at % task.outputs}
            said = {"centred": form.centred, "background": form.background, "scale": form.scale, "unit": form.unit}
            return BoxesAndScoresForm.model_validate(places | said)
        case EndToEnd():
            return EndToEndForm(unit=form.unit, at=form.at % task.outputs)
        case CenterNet():
            return CenterNetForm(cell=form.cell, logits=form.logits)
        case _:
            return None
