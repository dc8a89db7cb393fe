"""What a job is given, checked before anything is done: model, data and task fit, and the place can do the work."""

import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, is_dataclass
from importlib.metadata import version
from typing import Any

from slimwright.data import Dataset, as_inputs, fingerprint, tensors_of, whole
from slimwright.errors import DataError, RequestError
from slimwright.graph import Net
from slimwright.jobs.bench import Given, Method, Place
from slimwright.measure import Exam, Original, compared
from slimwright.runner.machine import PACKAGES, loaded_by
from slimwright.runtimes.known import converter_python
from slimwright.runtimes.layers import timed_by
from slimwright.targets import Target
from slimwright.tasks import Task

VERSIONED = ("slimwright", "torch", "onnx")
FORMAT = 3  # of what a journal keeps; results in another form are not used
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
        raise DataError(f"the model takes images of {said[0]}, data set '{data.name}' has {said[1]}")


def given_of(original: Original, task: Task, data: Dataset) -> Given:
    """Return what a job starts from. Raises DataError where model, data and task do not fit one another."""
    net = original.net
    check_inputs(net, data)
    task.check([net[name].shape for name in net.outputs])
    taught = task.data(data, original.forward)
    calibration, labels = whole(data, "calibration")
    first = tuple(tensor[:LOOKED_AT] for tensor in tensors_of(calibration))
    compared(original, as_inputs(first))
    inputs, targets = whole(taught, "validation")
    digest = fingerprint((calibration, labels))
    return Given(net, task, taught, calibration, digest, Exam(task, inputs, targets))


def context_of(given: Given, place: Place, method: Method, seed: int) -> Mapping[str, Any]:
    """Return everything that shapes the results of a job besides its candidates."""
    about = place.target.about()
    return {
        "format": FORMAT,
        "net": given.net.digest,
        "calibration": given.calibration_digest,
        "validation": fingerprint((given.exam.inputs, given.exam.targets if given.exam.targets is not None else ())),
        "task": _said(given.task),
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
    return [kind, task.name, str(asdict(task)) if is_dataclass(task) and not isinstance(task, type) else ""]
