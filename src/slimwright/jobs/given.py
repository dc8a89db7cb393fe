"""What a job is given, checked before anything is done: model, data and task fit, and the place can do the work."""

import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, fields, is_dataclass
from functools import cache, partial
from importlib.metadata import version
from types import FunctionType
from typing import Any

from slimwright.data import Dataset, Part, as_inputs, fingerprint, taken, tensors_of, whole
from slimwright.errors import DataError, RequestError
from slimwright.graph import Net
from slimwright.jobs.bench import Given, Method, Place
from slimwright.measure import About, Exam, Original, compared, least_drop, least_share
from slimwright.runner.machine import PACKAGES, loaded_by
from slimwright.runtimes.known import converter_python
from slimwright.runtimes.layers import timed_by
from slimwright.targets import Target
from slimwright.tasks import Task, untaught

VERSIONED = ("slimwright", "torch", "onnx")
FORMAT = 3  # of what a journal keeps; results in another form are not used
JUDGES: tuple[Part, ...] = ("validation", "test")  # the parts by which a drop is judged
PROBED = 8  # validation images by which a metric shows whether it is a share of images that are right
LOOKED_AT = 4  # calibration images on which a reading is compared


def shapes_of(data: Dataset) -> list[tuple[int, ...]]:
    """Return the shape of each input of an image, without the batch."""
    inputs, _ = next(iter(data.batches("calibration", 1)))
    return [tuple(tensor.shape[1:]) for tensor in tensors_of(inputs)]


def check_place(runtime: str, target: Target) -> None:
    """Raise RequestError where the runtime cannot be converted for, or its layers cannot be timed on the target."""
    converter_python(runtime)
    stands_in = timed_by(runtime)
    if stands_in != loaded_by(runtime) and stands_in not in target.about()["runtimes"]:
        raise RequestError(
            f"{runtime} exposes no timings of single layers, so shrink times them in {stands_in}, which is not "
            f"installed on {target.name}: python -m pip install {PACKAGES[stands_in]}"
        )


def check_inputs(net: Net, data: Dataset) -> None:
    """Raise DataError where a network takes other inputs than the data set has."""
    takes, has = [list(node.shape[1:]) for node in net.inputs], [list(shape) for shape in shapes_of(data)]
    if takes != has:
        said = [" and ".join(map(str, shapes)) for shapes in (takes, has)]
        hint = _hint(takes[0], has[0]) if len(takes) == len(has) == 1 else ""
        if sorted(takes) == sorted(has):
            hint = (
                '; these are the same in another order: list their names in the model\'s order under "inputs" in the '
                "metadata of a .safetensors file"
            )
        raise DataError(f"the model takes images of {said[0]}, data set '{data.name}' has {said[1]}{hint}")


def _hint(takes: Sequence[int], has: Sequence[int]) -> str:
    """What to do about images [C, H, W] of a shape that the model does not take; "" where nothing is known."""
    if len(takes) != 3 or len(has) != 3:
        return ""
    if list(takes) == [*has[1:], has[0]]:
        return "; the model reads channels last: put a transposition from [N, C, H, W] in front of it"
    if list(has) == [*takes[1:], takes[0]]:
        return "; the images are stored with their channels last: store them as [N, C, H, W]"
    parts = []
    if takes[0] != has[0] and takes[0] in (1, 3):
        channels = "grey" if takes[0] == 1 else "RGB, or grey3"
        parts.append(f"for its {takes[0]} channels give --preprocessing channels={channels}")
    if list(takes[1:]) != list(has[1:]):
        parts.append(f"for its size name pictures as folder:PATH@{takes[1]}x{takes[2]}")
    return "; " + ", and ".join(parts) if parts else ""


def given_of(original: Original, task: Task, data: Dataset, licence: str = "") -> Given:
    """Return what a job starts from; `licence` is the model's.

    Raises DataError where model, data and task do not fit one another.
    """
    net = original.net
    check_inputs(net, data)
    task.check([net[name].shape for name in net.outputs])
    taught = task.data(data, original.forward)
    judged = untaught(taught, original.forward)
    calibration, labels = whole(data, "calibration")
    first = tuple(tensor[:LOOKED_AT] for tensor in tensors_of(calibration))
    compared(original, as_inputs(first))
    validation = whole(judged, "validation")
    digests = {
        "net": net.digest,
        "original": [original.framework, original.tolerance],
        "calibration": fingerprint((calibration, labels)),
        "validation": fingerprint(validation),
    }
    exam: Callable[[], Exam] = (
        partial(Exam, task, *validation) if judged is taught else cache(partial(_exam, task, taught))
    )
    return Given(net, task, taught, calibration, digests, exam, About.of(taught, task, licence))


def _exam(task: Task, taught: Dataset) -> Exam:
    return Exam(task, *whole(taught, "validation"))


def doubts(given: Given, max_drop: float) -> list[str]:
    """Say where too few images judge the drop that is asked for: those of the validation part, and of the test part."""
    metric, sizes = given.task.metric, {part: given.data.size(part) for part in JUDGES}
    if not 0 < max_drop < least_share(min(sizes.values())):
        return []
    exam = given.exam()
    assert exam.targets is not None
    some, targets = (taken(value, slice(0, PROBED)) for value in (exam.inputs, exam.targets))
    outputs, said = given.net.run(tensors_of(some)), []
    for part, images in sizes.items():
        least = least_drop(given.task, outputs, targets, images)
        if least is not None and max_drop < least:
            said.append(
                f"{images} {part} images cannot judge {max_drop:g} {metric.step} of {metric.name}: they tell a drop "
                f"from none only from {metric.number(least)} {metric.step} on"
            )
    return said


def context_of(given: Given, place: Place, method: Method, seed: int) -> Mapping[str, Any]:
    """Return everything that shapes the results of a job besides its candidates."""
    about = place.target.about()
    return {
        "format": FORMAT,
        **given.digests,
        "task": _said(given.task),
        "about": asdict(given.about),
        "runtime": place.runtime,
        "target": [place.target.name, about["cpu"], about["machine"], dict(about["runtimes"])],
        "threads": 1,
        "techniques": [technique.name for technique in method.techniques],
        "device": method.device,
        "seed": seed,
        "versions": versions(),
    }


def versions() -> dict[str, str]:
    """Return the versions of what computes here."""
    return {name: version(name) for name in VERSIONED} | {"python": platform.python_version()}


def _said(task: Task) -> Sequence[str]:
    """What tells one task from another."""
    kind = f"{type(task).__module__}.{type(task).__qualname__}"
    own: Mapping[str, object] = {}
    if is_dataclass(task):
        own = {field.name: getattr(task, field.name) for field in fields(task)}
    return [kind, task.name, str({name: _named(value) for name, value in own.items()})]


def _named(value: object) -> object:
    """A function by its name: what Python prints of it changes from run to run."""
    return f"{value.__module__}.{value.__qualname__}" if isinstance(value, FunctionType) else value
