"""A job for a device and what comes back, as folders of plain files.

    job.json       what to load, how often to run it        result.json     what was measured, or what went wrong
    images.npy     float32 [N, C, H, W], if scores are      scores-K.npy    float32 [N, classes] of side K
                   wanted; and the artefacts' files

A job may come over a network: what it names must lie inside its own folder, and its numbers must be in bounds.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from math import prod
from pathlib import Path
from typing import Any

from slimwright.runner.machine import FORMATS, PACKAGES

JOB, RESULT, IMAGES = "job.json", "result.json", "images.npy"
RUNTIMES = (*PACKAGES, *FORMATS)
MOST_SIDES, MOST_RUNS, MOST_SECONDS, MOST_THREADS = 512, 100_000, 3600.0, 256
MOST_VALUES = 1 << 28  # of one image: 1 GiB as float32
MOST_EVICTED = 1 << 30


class JobError(Exception):
    """A job cannot be done; `kind` says why: "job", "missing" (the runtime), "load" or "run"."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


@dataclass(frozen=True)
class Side:
    """One artefact to load: file names inside the job's folder, the model's main file first."""

    name: str
    runtime: str
    precision: str
    files: tuple[str, ...]
    shape: tuple[int, ...]  # of the image: [1, C, H, W], or [1, C]
    threads: int = 1


@dataclass(frozen=True)
class Job:
    """Sides to run in turn: `runs` rounds and at least `least_s` seconds; then `profile_runs` times for kernels."""

    sides: tuple[Side, ...]
    runs: int = 0
    warm_up: int = 5
    least_s: float = 0.0
    profile_runs: int = 0
    evict_bytes: int = 0  # read through before each profiled run, so that the caches hold something else
    energy_s: float = 0.0  # for each side, where the device has an energy counter


def write_job(job: Job, folder: Path) -> None:
    """Write a job's description; its files must be in `folder` already."""
    (folder / JOB).write_text(json.dumps(asdict(job)))


def read_job(folder: Path) -> Job:
    """Return the job in `folder`. Raises JobError, naming the field, for one that is not well formed."""
    try:
        found = json.loads((folder / JOB).read_text())
        sides = tuple(_side(entry, folder) for entry in _list(found, "sides", MOST_SIDES))
        return Job(
            sides,
            runs=int(_number(found, "runs", MOST_RUNS)),
            warm_up=int(_number(found, "warm_up", MOST_RUNS)),
            least_s=_number(found, "least_s", MOST_SECONDS),
            profile_runs=int(_number(found, "profile_runs", MOST_RUNS)),
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
    shape = tuple(int(size) for size in _list(entry, "shape", 4))
    if not shape or not all(0 < size <= 1 << 16 for size in shape) or prod(shape) > MOST_VALUES:
        raise ValueError(f"shape is {shape}")
    threads = int(_number(entry, "threads", MOST_THREADS))
    return Side(str(entry["name"]), entry["runtime"], str(entry["precision"]), files, shape, max(threads, 1))


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
