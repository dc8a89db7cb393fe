"""What is made of a network's outputs, and what the code that does it must be told.

The task's form says which answer is meant, or else its name. Outputs whose shapes do not fit that stay as they are. A
bundle is untrusted input, so what is told are numbers, and names from tables of this file.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from slimwright.measure import (
    BoxesAndScoresForm,
    CenterNetForm,
    EndToEndForm,
    Manifest,
    MaskForm,
    PictureForm,
    PointsForm,
    YoloForm,
)
from slimwright.tasks import detection

ANSWERS: Mapping[str, str] = {  # what is made of the outputs, by the name of a task whose form the bundle does not say
    "classification": "classes",
    "top-5": "classes",
    "multi-label": "flags",
    "multi-label classification": "flags",
    "ctc": "text",
    "character-error": "text",
    "embedding": "embedding",
    "recall": "embedding",
    "regression": "numbers",
    "depth": "map",
}
SAID: Mapping[str, str] = {
    "classes": "the classes with the largest scores",
    "flags": "the classes that a picture shows",
    "text": "the text that a picture shows",
    "embedding": "an embedding of length 1",
    "mask": "the class of each pixel",
    "points": "the place of each point in the picture",
    "picture": "a picture in levels from 0 to 255",
    "boxes": "boxes with their classes and scores, the best first",
    "numbers": "the numbers that were learned, in their own units",
    "map": "the map that was learned, in its own unit",
    "values": "the network's outputs",
}
LARGEST = 1_000_000  # numbers along a side of an output, places in it, classes
Shapes: TypeAlias = Sequence[Sequence[int]]
Told: TypeAlias = Mapping[str, Any]


@dataclass(frozen=True)
class Answer:
    """What is made of the outputs: one of `SAID`, what its code is told, and how many names it needs."""

    name: str
    told: Told = field(default_factory=dict)
    names: int = 0


@dataclass(frozen=True)
class Layout:
    """Where output `at` has number k of place p: at p * `place` + k * `number`."""

    at: int
    places: int
    numbers: int
    places_last: bool = False

    @property
    def place(self) -> int:
        """The step from one place to the next."""
        return 1 if self.places_last else self.numbers

    @property
    def number(self) -> int:
        """The step from one number of a place to the next."""
        return self.places if self.places_last else 1


def answer_of(manifest: Manifest) -> Answer:
    """Return what is made of the outputs of a bundle's model."""
    side, form = manifest.result, manifest.task.form
    sides = [length for shape in (*side.input_shapes, *side.output_shapes) for length in shape]
    if not all(0 < length <= LARGEST for length in sides):
        return Answer("values")
    if form is None:
        return _named(manifest.task.name, side.output_shapes, len(manifest.data.labels))
    found = READ[form.kind](form, side.output_shapes, side.input_shapes[0], len(manifest.data.labels))
    return found or Answer("values")


def names_of(answer: Answer, labels: Sequence[str]) -> list[str]:
    """Return what labels.txt holds: the labels, each on one line; numbers where the answer needs names and has none."""
    if not labels:
        return [str(number) for number in range(answer.names)]
    return [" ".join(name.split("\n")) for name in labels]


def _named(task: str, shapes: Shapes, labels: int) -> Answer:
    name = ANSWERS.get(task, "values")
    needed = {"classes": 0, "flags": 0, "text": 1}  # labels that the scores have more than names
    sizes = [shape[-1] for shape in shapes if shape]
    fits = len(sizes) == 1 and (name not in needed or sizes[0] == labels + needed[name])
    return Answer(name if fits else "values")


def _mask(form: MaskForm, shapes: Shapes, wanted: Sequence[int], labels: int) -> Answer | None:
    if len(shapes) != 1 or len(shapes[0]) != 4 or labels not in (0, max(shapes[0][1], 2)):
        return None
    channels, *size = shapes[0][1:]
    resized = size != list(wanted[2:])
    told = {
        "channels": channels,
        "map": size,
        "resized": resized,
        "logs": form.shares and resized,  # else the largest share is the largest score
        "threshold": 0.5 if form.shares and not resized else 0.0,  # of a foreground's score
    }
    return Answer("mask", told, max(channels, 2))


def _points(form: PointsForm, shapes: Shapes, wanted: Sequence[int], labels: int) -> Answer | None:
    shape = list(shapes[0][1:]) if len(shapes) == 1 else []
    if len(shape) == 3:
        count, unit = shape[0], [wanted[3] / shape[2], wanted[2] / shape[1]]
    elif shape and math.prod(shape) % 2 == 0 and (len(shape) == 1 or (len(shape) == 2 and shape[1] == 2)):
        count, unit = math.prod(shape) // 2, [float(wanted[3]), float(wanted[2])] if form.shares else [1.0, 1.0]
    else:
        return None
    told = {"count": count, "map": shape[1:] if len(shape) == 3 else None, "unit": unit}
    return Answer("points", told, count) if labels in (0, count) else None


def _picture(form: PictureForm, shapes: Shapes, wanted: Sequence[int], labels: int) -> Answer | None:
    if len(shapes) != 1 or len(shapes[0]) != 4 or shapes[0][1] not in (1, 3):
        return None
    return Answer("picture", {"channels": shapes[0][1], "map": list(shapes[0][2:]), "white": form.white})


def _yolo(form: YoloForm, shapes: Shapes, wanted: Sequence[int], labels: int) -> Answer | None:
    shape = shapes[form.at] if form.at < len(shapes) else []
    if len(shape) != 3:
        return None
    places, numbers = shape[:0:-1] if form.places_last else shape[1:]
    first = 4 + form.objectness
    if numbers != first + labels:
        return None
    rows = Layout(form.at, places, numbers, form.places_last)
    scores = {"first": first, "objectness": form.objectness, "scale": ""}
    return _boxes("places", labels, form.unit, {"boxes": rows, "scores": rows, "centred": True, **scores})


def _boxes_and_scores(form: BoxesAndScoresForm, shapes: Shapes, wanted: Sequence[int], labels: int) -> Answer | None:
    if max(form.boxes_at, form.scores_at) >= len(shapes):
        return None
    boxes, scores = shapes[form.boxes_at], shapes[form.scores_at]
    more = form.background is not None
    if len(boxes) != 3 or list(scores) != [boxes[0], boxes[1], labels + more] or boxes[2] != 4:
        return None
    told = {
        "boxes": Layout(form.boxes_at, boxes[1], 4),
        "scores": Layout(form.scores_at, boxes[1], labels + more),
        "first": 1 if form.background == 0 else 0,
        "objectness": False,
        "scale": form.scale,
        "centred": form.centred,
    }
    return _boxes("places", labels, form.unit, told)


def _end_to_end(form: EndToEndForm, shapes: Shapes, wanted: Sequence[int], labels: int) -> Answer | None:
    shape = shapes[form.at] if form.at < len(shapes) else []
    if len(shape) != 3 or shape[2] != 6:
        return None
    return _boxes("rows", labels, form.unit, {"at": form.at, "rows": shape[1]})


def _centernet(form: CenterNetForm, shapes: Shapes, wanted: Sequence[int], labels: int) -> Answer | None:
    size = list(shapes[0][2:]) if shapes else []
    if [list(shape[1:]) for shape in shapes] != [[labels, *size], [2, *size], [2, *size]] or len(size) != 2:
        return None
    return _boxes("maps", labels, form.cell, {"map": size, "logits": form.logits})


def _boxes(decode: str, classes: int, unit: Sequence[float], told: Told) -> Answer | None:
    """Boxes that code of one of three kinds decodes: places that are chosen from, rows that were chosen, or maps."""
    limits = {
        "least": detection.LEAST_SCORE,
        "sure": detection.SURE,
        "overlap": detection.MOST_OVERLAP,
        "candidates": detection.CANDIDATES,
        "most": detection.MOST,
    }
    said = {"decode": decode, "classes": classes, "unit": list(unit), **limits, **told}
    return Answer("boxes", said, classes) if classes else None


READ: Mapping[str, Callable[[Any, Shapes, Sequence[int], int], Answer | None]] = {  # by the kind of a form
    "mask": _mask,
    "points": _points,
    "picture": _picture,
    "yolo": _yolo,
    "boxes and scores": _boxes_and_scores,
    "end to end": _end_to_end,
    "centernet": _centernet,
}
