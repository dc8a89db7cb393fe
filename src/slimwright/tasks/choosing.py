"""The tasks by name, and the one that a data set and a net's outputs call for."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import cast

from torch import Tensor

from slimwright.data import Dataset, Part, is_labels, no_images, tensors_of
from slimwright.errors import DataError, RequestError, SlimwrightError
from slimwright.tasks.classification import Classification
from slimwright.tasks.ctc import Ctc
from slimwright.tasks.detection import detecting
from slimwright.tasks.embedding import embedding_of
from slimwright.tasks.imitation import imitating
from slimwright.tasks.keypoints import locating
from slimwright.tasks.multi_label import MultiLabel
from slimwright.tasks.regression import regressing
from slimwright.tasks.restoration import restoring
from slimwright.tasks.segmentation import segmenting
from slimwright.tasks.task import Forward, Making, Task, shapes_said

NONE = "no labels"
LABELS = "a label for each image"
FLAGS = "a 0 or 1 for each image and class"
OWN = "targets of its own kind"  # of a data set whose attribute `task` names it


@dataclass(frozen=True)
class Named:
    """A task that can be named: how it is made from a data set and the original, and what labels it needs.

    `reads` names tasks whose targets are good for this one, too.
    """

    make: Making
    needs: str = NONE
    reads: tuple[str, ...] = ()


NAMED: Mapping[str, Named] = {
    "classification": Named(lambda data, _: Classification(data.labels), LABELS),
    "top-5": Named(lambda data, _: Classification(data.labels, top=5, name="top-5"), LABELS),
    "multi-label": Named(lambda data, _: MultiLabel(data.labels), FLAGS),
    "detection": Named(detecting, OWN),
    "detection-50": Named(partial(detecting, half=True), OWN, ("detection",)),
    "segmentation": Named(segmenting, OWN),
    "restoration": Named(restoring, OWN),
    "ssim": Named(lambda data, original: restoring(data, original, "SSIM"), OWN, ("restoration",)),
    "depth": Named(lambda data, original: restoring(data, original, "MAE"), OWN, ("restoration",)),
    "regression": Named(regressing, OWN, ("regression", "restoration")),
    "keypoints": Named(locating, OWN),
    "imitation": Named(imitating),
    "embedding": Named(embedding_of, LABELS),
    "recall": Named(lambda data, original: embedding_of(data, original, "recall"), LABELS),
    "ctc": Named(lambda data, _: Ctc(data.labels), OWN),
    "character-error": Named(lambda data, _: Ctc(data.labels, "character-error"), OWN, ("ctc",)),
}
MEMBERS = (
    "name", "metric", "classes", "outputs", "check", "data", "class_of", "loss", "drawn_loss", "distance", "score",
    "agreement",
)  # fmt: skip
GUESSED = {NONE: "imitation", LABELS: "classification", FLAGS: "multi-label"}


def task_for(
    data: Dataset,
    shapes: Sequence[Sequence[int]],
    original: Forward,
    wanted: str | Task | Making | None = None,
    *,
    part: Part = "calibration",
) -> Task:
    """Return the task that is wanted, by name, as it is, or made; or that which the labels of `data` call for.

    `shapes` are those of the net's outputs for one image, and `original` is the net as the user gave it. Labels are
    those of the first image of `part`. Raises RequestError where there is no task of the name, and for a task of the
    user's own that is none, and DataError where labels or outputs do not fit it.
    """
    if wanted is None or isinstance(wanted, str):
        task = NAMED[_chosen(wanted, data, part)].make(data, original)
    else:
        task = _made(wanted, data, original) if callable(wanted) else as_task(wanted, "what was given")
    task.check(shapes)
    return task


def as_task(found: object, where: str) -> Task:
    """Return a task of the user's own; raise RequestError, naming what it lacks, where it is none."""
    missing = [name for name in MEMBERS if not hasattr(found, name)]
    if missing:
        raise RequestError(f"{where} is not a task: it has no {', '.join(missing)}")
    return cast("Task", found)


def _made(making: Making, data: Dataset, original: Forward) -> Task:
    try:
        found = making(data, original)
    except SlimwrightError:
        raise
    except Exception as error:  # the user's own code may raise anything
        raise RequestError(
            f"the task could not be made: {type(error).__name__}: {error}; it is made by a function of the data and "
            "the original, as slimwright.tasks.scored returns one for a metric"
        ) from error
    return as_task(found, "what was made")


def _chosen(name: str | None, data: Dataset, part: Part) -> str:
    """The name of a task that reads the labels of `data`."""
    if name is not None and name not in NAMED:
        raise RequestError(f"there is no task '{name}'; the tasks are {', '.join(NAMED)}")
    meant: str = getattr(data, "task", "")
    inner = _labels_in(data, part)
    has = f"targets for {meant}" if meant else inner
    chosen = name or meant or GUESSED.get(has, "")
    if chosen not in NAMED:
        raise DataError(f"data set '{data.name}' has {has}, which no task reads; choose the task 'imitation'")
    if chosen != meant and not _serves(NAMED[chosen], meant, inner):
        needs = NAMED[chosen].needs
        needed = f"targets for {' or '.join(NAMED[chosen].reads or (chosen,))}" if needs == OWN else needs
        raise DataError(
            f"the task '{chosen}' needs {needed}, and data set '{data.name}' has {has}; choose the task "
            f"'{meant or GUESSED.get(has, GUESSED[NONE])}'"
        )
    return chosen


def _serves(task: Named, meant: str, form: str) -> bool:
    """Whether a task can read targets that are for the task `meant`, or, where they say nothing, have this form."""
    if task.needs == OWN:
        return meant in task.reads if meant else form not in GUESSED  # the task itself looks at them
    return task.needs in (form, NONE)


def _labels_in(data: Dataset, part: Part) -> str:
    """What labels the images have: one of the keys of `GUESSED`, or other targets, in words."""
    first = next(data.batches(part, 1), None)
    if first is None:
        raise no_images(data.name, part)
    targets = first[1]
    if isinstance(targets, Tensor) and targets.shape[1:] == (0,):
        return NONE
    if data.labels and is_labels(targets):
        return LABELS
    if data.labels and isinstance(targets, Tensor) and targets.shape == (1, len(data.labels)):
        return FLAGS
    return f"targets {shapes_said([each.shape[1:] for each in tensors_of(targets)])}"
