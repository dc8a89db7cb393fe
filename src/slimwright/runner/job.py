"""A job for a device and what comes back, as folders of plain files.

    job.json       what to load, how often to run it     result.json           what was measured, or what went wrong
    inputs-K.npy   [N, ...] for input K, if outputs are  outputs-SIDE-K.npy    [N, ...] of side SIDE's output K:
                   wanted; and the artefacts' files                            float32, or int64 where it is integers

A job may come over a network: what it names must lie inside its own folder, and its numbers must be in bounds.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from math import prod
from pathlib import Path
from typing import Any

from slimwright.runner.machine import FORMATS, PACKAGES

JOB, RESULT, OUTPUTS = "job.json", "result.json", "outputs-"
RUNTIMES = (*PACKAGES, *FORMATS)
MOST_SIDES, MOST_RUNS, MOST_ROUNDS, MOST_SECONDS, MOST_THREADS = 512, 100_000, 100, 3600.0, 256
MOST_VALUES = 1 << 28  # of one input or output, for one image: 1 GiB as float32
MOST_ENDS, MOST_RANK, MOST_SIZE = 64, 8, 1 << 24  # inputs or outputs of a side, their dimensions, and each of those
INPUT_DTYPES = ("float32", "int64", "int32")
MOST_EVICTED = 1 << 30


class JobError(Exception):
    """A job cannot be done; `kind` says why: "job", "missing" (the runtime), "load" or "run"."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


@dataclass(frozen=True)
class Side:
    """One artefact to load: file names inside the job's folder, the model's main file first.

    Inputs and outputs are those of the network, in its order; without names, they are taken in the file's order.
    """

    name: str
    runtime: str
    precision: str
    files: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]  # of each input: [1, C, H, W], or [1, C], or of any rank
    threads: int = 1
    dtypes: tuple[str, ...] = ()  # of each input; float32 where there are none
    inputs: tuple[str, ...] = ()  # what the file calls them
    outputs: tuple[str, ...] = ()
    output_shapes: tuple[tuple[int, ...], ...] = ()  # of each output: [1, ...]; () where they are not known

    def dtype(self, place: int) -> str:
        """The dtype of an input."""
        return self.dtypes[place] if self.dtypes else "float32"


@dataclass(frozen=True)
class Job:
    """Sides to run in turn: `runs` rounds and at least `least_s` seconds; then `profile_runs` times for kernels.

    Of several `profile_rounds` the fastest counts, since a processor's clock drifts.
    """

    sides: tuple[Side, ...]
    runs: int = 0
    warm_up: int = 5
    least_s: float = 0.0
    profile_runs: int = 0
    profile_rounds: int = 1
    evict_bytes: int = 0  # read through before each profiled run, so that the caches hold something else
    energy_s: float = 0.0  # for each side, where the device has an energy counter


def write_job(job: Job, folder: Path) -> None:
    """Write a job's description; its files must be in `folder` already."""
    (folder / JOB).write_text(json.dumps(asdict(job)))


def input_file(place: int) -> str:
    """Return the name of the file with what input `place` is given."""
    return f"inputs-{place}.npy"


def output_file(side: int, place: int) -> str:
    """Return the name of the file with what output `place` of a side gave."""
    return f"{OUTPUTS}{side}-{place}.npy"


def read_job(folder: Path) -> Job:
    """Return the job in `folder`. Raises JobError, naming the field, for one that is not well formed."""
    try:
        found = json.loads((folder / JOB).read_text())
        sides = tuple(_side(entry, folder) for entry in _list(found, "sides", MOST_SIDES))
        if not sides:
            raise ValueError("sides is empty: there is nothing to run")
        return Job(
            sides,
            runs=int(_number(found, "runs", MOST_RUNS)),
            warm_up=int(_number(found, "warm_up", MOST_RUNS)),
            least_s=_number(found, "least_s", MOST_SECONDS),
            profile_runs=int(_number(found, "profile_runs", MOST_RUNS)),
            profile_rounds=max(int(_number(found, "profile_rounds", MOST_ROUNDS)), 1),
            evict_bytes=int(_number(found, "evict_bytes", MOST_EVICTED)),
            energy_s=_number(found, "energy_s", MOST_SECONDS),
        )
    except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        raise JobError("job", f"this is no job: {error!r}") from error


def _side(entry: Mapping[str, Any], folder: Path) -> Side:
    files = tuple(_inside(name, folder) for name in _list(entry, "files", 16))
    if not files:
        raise ValueError("files is empty")
    if entry["runtime"] not in RUNTIMES:
        raise ValueError(f"runtime is {entry['runtime']!r}, not one of {', '.join(RUNTIMES)}")
    shapes, output_shapes = (_shapes(entry, key) for key in ("shapes", "output_shapes"))
    dtypes, inputs, outputs = (tuple(map(str, _list(entry, key, MOST_ENDS))) for key in ("dtypes", "inputs", "outputs"))
    if not shapes or not set(dtypes) <= set(INPUT_DTYPES) or not {len(dtypes), len(inputs)} <= {0, len(shapes)}:
        raise ValueError(f"{len(shapes)} inputs have dtypes {dtypes} and names {inputs}")
    if output_shapes and outputs and len(output_shapes) != len(outputs):
        raise ValueError(f"{len(output_shapes)} outputs have names {outputs}")
    return Side(
        str(entry["name"]),
        entry["runtime"],
        str(entry["precision"]),
        files,
        shapes,
        threads=max(int(_number(entry, "threads", MOST_THREADS)), 1),
        dtypes=dtypes,
        inputs=inputs,
        outputs=outputs,
        output_shapes=output_shapes,
    )


def _shapes(entry: Mapping[str, Any], key: str) -> tuple[tuple[int, ...], ...]:
    """The shapes of inputs or outputs, each with its batch of one."""
    shapes = []
    for sizes in _list(entry, key, MOST_ENDS):
        shape = tuple(int(size) for size in _list({key: sizes}, key, MOST_RANK))
        if shape[:1] != (1,) or not all(0 < size <= MOST_SIZE for size in shape) or prod(shape) > MOST_VALUES:
            raise ValueError(f"{key} holds {shape}")
        shapes.append(shape)
    return tuple(shapes)


def _inside(name: object, folder: Path) -> str:
    """A file name, known to lie in the job's folder itself."""
    if not isinstance(name, str) or Path(name).name != name or not (folder / name).is_file():
        raise ValueError(f"file {name!r} is not in the job's folder")
    return name


def _number(found: Mapping[str, Any], key: str, most: float) -> float:
    value = found[key]
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= most:
        raise ValueError(f"{key} is {value!r}; it must be from 0 to {most:g}")
    return float(value)


def _list(found: Mapping[str, Any], key: str, most: int) -> Sequence[Any]:
    value = found[key]
    if not isinstance(value, list) or len(value) > most:
        raise ValueError(f"{key} must be a list of at most {most}")
    return value
