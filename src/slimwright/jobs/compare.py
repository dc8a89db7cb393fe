"""Compare two networks: what each costs, measured in turn in one run, and how far apart their outputs are.

Costs and scores are those of `inspect`. Outputs are of the models as they were given: a file runs in its own framework,
a bundle's model in its runtime. Both see the same images, those of the test part or random ones.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from slimwright.data import Dataset, Inputs, count_of, whole
from slimwright.errors import DataError, ProofError
from slimwright.jobs.inspect import Subject, inspect
from slimwright.measure import Inspection, given_by, parity, random_exam
from slimwright.progress import Event, Tell, told
from slimwright.targets import Local, Target
from slimwright.tasks import Outputs, Task, task_for


@dataclass(frozen=True)
class Likeness:
    """Outputs of two networks on the same images. None, and a reason in `why`, for what cannot be said."""

    images: int
    data: str | None  # whose test part they are; None: random images
    agreement: float | None = None  # share of images on which both mean the same, by the task
    max_abs_error: float | None = None
    max_relative_error: float | None = None  # of the largest value of the first network's output
    why: str = ""


@dataclass(frozen=True)
class Comparison:
    """Two networks side by side."""

    sides: tuple[Inspection, Inspection]
    outputs: Likeness


def compare(
    first: Subject,
    second: Subject,
    *,
    data: Dataset | None = None,
    task: Task | None = None,
    memory_bytes: int | None = None,
    tell: Tell | None = None,
) -> Comparison:
    """Return what two networks cost and how their outputs differ; with `data` their scores on its test part, too.

    Raises DataError where they take other inputs, so that nothing can be shown to both, and RequestError as `inspect`
    does where `memory_bytes` are sure to be too little.
    """
    takes = [[list(node.shape[1:]) for node in each.original.net.inputs] for each in (first, second)]
    if takes[0] != takes[1]:
        said = [" and ".join(map(str, shapes)) for shapes in takes]
        raise DataError(f"{first.name} takes images of {said[0]}, {second.name} of {said[1]}; give --image, or --data")
    with told(tell) as tell:
        sides = inspect((first, second), data=data, task=task, timed=True, memory_bytes=memory_bytes, tell=tell)
        tell(Event("outputs", 0, 1))
        outputs = likeness(first, second, data, task, Local(memory_bytes))
        tell(Event("outputs", 1, 1))
    return Comparison((sides[0], sides[1]), outputs)


def likeness(
    first: Subject, second: Subject, data: Dataset | None, task: Task | None, place: Target | None = None
) -> Likeness:
    """Return how far the outputs of two networks, which take the same inputs, are apart on the same images.

    The models of bundles run at a `place`, by default here.
    """
    place = place or Local()
    original = first.original
    if data is None:
        exam = random_exam(original.net, task)
        inputs, task = exam.inputs, exam.task
    else:
        inputs, _ = whole(data, "test")
        task = task_for(data, original.output_shapes, original.forward, task)
    said = Likeness(count_of(inputs), data.name if data else None)
    shapes = [_shapes(each) for each in (first, second)]
    if shapes[0] != shapes[1]:
        why = f"their outputs have other shapes: {shapes[0]} and {shapes[1]}"
        return Likeness(said.images, said.data, why=why)
    try:
        found = parity(
            task, _outputs(second, inputs, place), _outputs(first, inputs, place), "fp32", random=data is None
        )
    except ProofError as error:
        return Likeness(said.images, said.data, why=str(error))
    agreement = None if data is None else found.agreement
    why = "random images lie between classes, so agreement is not told" if data is None else ""
    return Likeness(said.images, said.data, agreement, found.max_abs_error, found.max_relative_error, why)


def _shapes(subject: Subject) -> Sequence[Sequence[int]]:
    net = subject.original.net
    return [list(net[name].shape[1:]) for name in net.outputs]


def _outputs(subject: Subject, inputs: Inputs, place: Target) -> Outputs:
    """What a network gives: a bundle's model in its runtime, any other as it was given."""
    if subject.artefact is None:
        return subject.original.forward(inputs)
    return given_by(place, subject.artefact, inputs)
