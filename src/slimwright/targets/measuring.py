"""Send artefacts to a target, and read what it measured."""

import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Protocol

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator
from torch import Tensor

from slimwright.errors import DeviceError, ProofError, RequestError
from slimwright.reading import json_of
from slimwright.runner.job import MOST_SIDES, RESULT, Job, input_file, output_file, write_job
from slimwright.runner.machine import Described
from slimwright.runner.pack import packed, unpack
from slimwright.runner.sessions.session import Kernel
from slimwright.runner.timing import Latency
from slimwright.runtimes.artefact import Artefact, name_in_job
from slimwright.runtimes.layers import is_tensor_kernel
from slimwright.targets.described import plain

TIMEOUT_S = 900.0


class Target(Protocol):
    """Something that runs jobs."""

    @property
    def name(self) -> str:
        """How messages call it."""

    def about(self) -> Described:
        """Describe the device: processor, system, and the version of each runtime. Raises DeviceError."""

    def answer(self, data: bytes, seconds: float) -> bytes:
        """Do a packed job within `seconds`, and return the packed results. Raises DeviceError."""


@dataclass(frozen=True)
class Effort:
    """How often to run, in turn with the other sides: `runs` rounds, at least `least_s` seconds in all."""

    runs: int = 0
    least_s: float = 0.0
    warm_up: int = 10
    profile_runs: int = 0
    profile_rounds: int = 1  # of which the fastest counts
    evict_bytes: int = 0  # before each profiled run; see `Job`
    energy_s: float = 0.0
    threads: int = 1


@dataclass(frozen=True)
class Measurement:
    """What an artefact did on a target. Memory and cold start mean something only where it was alone in its process."""

    latency: Latency | None
    load_ms: float
    first_run_ms: float
    empty_rss_bytes: int  # of the process before the artefact was loaded
    peak_rss_bytes: int
    planned_bytes: int | None  # what the runtime says it set aside; None where it does not say
    kernels: tuple[Kernel, ...] = ()
    outputs: tuple[Tensor, ...] | None = None  # each [N, ...], in the order of the net's outputs
    energy_mj: float | None = None  # for an image; None where the device has no counter that can be read
    temperature_c: float | None = None

    @property
    def cold_start_ms(self) -> float:
        """From nothing loaded but the runtime to the first result."""
        return self.load_ms + self.first_run_ms

    @property
    def kernel_ms(self) -> dict[str, float]:
        """Milliseconds of a run by kind of kernel."""
        found: dict[str, float] = {}
        for kernel in self.kernels:
            found[kernel.kind] = found.get(kernel.kind, 0.0) + kernel.ms
        return found

    @property
    def tensor_share(self) -> float:
        """Share of the kernels' time in those that multiply by weights; 1 where there was no profile."""
        tensor = sum(ms for kind, ms in self.kernel_ms.items() if is_tensor_kernel(kind))
        return tensor / total if (total := sum(self.kernel_ms.values())) else 1.0

    @property
    def own_rss_bytes(self) -> int:
        """Peak memory over that of the empty runtime."""
        return self.peak_rss_bytes - self.empty_rss_bytes


MOST = 2**50  # bytes, or milliseconds: what no device has or takes
Milliseconds = Annotated[float, Field(gt=0, le=MOST)]
Bytes = Annotated[int, Field(ge=0, le=MOST)]
Word = Annotated[str, StringConstraints(max_length=1000)]


class _Told(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class _Latency(_Told):
    median_ms: Milliseconds
    p10_ms: Milliseconds
    p90_ms: Milliseconds
    runs: int = Field(gt=0, le=MOST)
    cpu_ms: float = Field(ge=0, le=MOST)

    @model_validator(mode="after")
    def _is_in_order(self) -> "_Latency":
        if not self.p10_ms <= self.median_ms <= self.p90_ms:
            raise ValueError("p10_ms, median_ms and p90_ms must not fall in this order")
        return self


class _Kernel(_Told):
    name: Word
    kind: Word
    ms: float = Field(ge=0, le=MOST)


class _Side(_Told):
    name: Word
    load_ms: float = Field(ge=0, le=MOST)
    first_run_ms: float = Field(ge=0, le=MOST)
    planned_bytes: Bytes | None
    latency: _Latency | None = None
    empty_rss_bytes: Bytes
    peak_rss_bytes: Bytes
    temperature_c: float | None = Field(None, gt=-274, lt=1000)
    kernels: list[_Kernel] = Field([], max_length=100_000)
    energy_mj: float | None = Field(None, ge=0, le=MOST)


class _Fault(_Told):
    kind: Word
    message: str


class _Result(BaseModel):
    sides: list[_Side] = Field([], max_length=MOST_SIDES)
    error: _Fault | None = None


def measure(
    target: Target,
    artefacts: Mapping[str, Artefact],
    effort: Effort,
    *,
    inputs: Sequence[Tensor] | None = None,
    timeout_s: float = TIMEOUT_S,
) -> dict[str, Measurement]:
    """Run artefacts on a target, in one process and in turn; return what they give for `inputs`, if there are any.

    `inputs` are a tensor [N, ...] for each input of the net. Raises RequestError where the target lacks the runtime or
    an artefact does not take such inputs, ProofError where one cannot be loaded or run there, in the memory that it may
    take, or crashes the runtime, and DeviceError where the target cannot be reached or cannot do it.
    """
    for side, artefact in artefacts.items():
        _check_inputs(side, artefact, inputs)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        sides = []
        for number, (side, artefact) in enumerate(artefacts.items()):
            sides.append(artefact.side(side, number, effort.threads))
            for path in artefact.files:
                shutil.copyfile(path, folder / name_in_job(number, path))
        for k, given in enumerate(inputs or ()):
            np.save(folder / input_file(k), given.numpy())
        job = Job(
            tuple(sides),
            runs=effort.runs,
            warm_up=effort.warm_up,
            least_s=effort.least_s,
            profile_runs=effort.profile_runs,
            profile_rounds=effort.profile_rounds,
            evict_bytes=effort.evict_bytes,
            energy_s=effort.energy_s,
        )
        write_job(job, folder)
        answered = target.answer(packed(folder), timeout_s)
    with tempfile.TemporaryDirectory() as name:
        count = None if inputs is None else len(inputs[0])
        return _read(answered, Path(name), artefacts, count, target.name, timed=effort.runs > 0)


def _check_inputs(name: str, artefact: Artefact, inputs: Sequence[Tensor] | None) -> None:
    if inputs is not None and len(inputs) != len(artefact.shapes):
        raise RequestError(f"artefact '{name}' takes {len(artefact.shapes)} inputs; it was given {len(inputs)}")
    if inputs is not None and not artefact.output_shapes:
        raise RequestError(f"what artefact '{name}' gives is not known: it can be timed only")


def _read(
    data: bytes, folder: Path, artefacts: Mapping[str, Artefact], count: int | None, where: str, *, timed: bool
) -> dict[str, Measurement]:
    try:
        unpack(data, folder)
        result = _Result.model_validate(json_of(folder / RESULT, "a result", DeviceError))
    except (ValueError, OSError, DeviceError) as error:
        raise DeviceError(f"{where} sent back something that is no result: {plain(str(error))}") from error
    if result.error:
        raise _raised(result.error, where)
    if [side.name for side in result.sides] != list(artefacts):
        raise DeviceError(f"{where} sent back the results of another job")
    if timed and any(side.latency is None for side in result.sides):
        raise DeviceError(f"{where} sent back no times, which it was asked for")
    found = {}
    for number, side in enumerate(result.sides):
        outputs = None if count is None else _outputs(folder, number, artefacts[side.name], count, where)
        found[side.name] = Measurement(
            latency=Latency(**side.latency.model_dump()) if side.latency else None,
            load_ms=side.load_ms,
            first_run_ms=side.first_run_ms,
            empty_rss_bytes=side.empty_rss_bytes,
            peak_rss_bytes=side.peak_rss_bytes,
            planned_bytes=side.planned_bytes,
            kernels=tuple(Kernel(**kernel.model_dump()) for kernel in side.kernels),
            outputs=outputs,
            energy_mj=side.energy_mj,
            temperature_c=side.temperature_c,
        )
    return found


def _outputs(folder: Path, number: int, artefact: Artefact, count: int, where: str) -> tuple[Tensor, ...]:
    """What an artefact gave, each [N, ...], as a device sent it."""
    dtypes = artefact.output_dtypes or ("float32",) * len(artefact.output_shapes)
    ends = zip(artefact.output_shapes, dtypes, strict=True)
    return tuple(
        _output(folder / output_file(number, k), (count, *shape[1:]), dtype, where)
        for k, (shape, dtype) in enumerate(ends)
    )


def _output(path: Path, shape: tuple[int, ...], dtype: str, where: str) -> Tensor:
    """An output of a known shape; floats come as float32, integers as int64."""
    try:
        with np.errstate(over="raise"):  # of a header's sizes
            found = np.load(path, mmap_mode="r", allow_pickle=False)  # refuses what the file is too short for
    except Exception as error:  # numpy reads a header as Python's literals, and raises what their parser raises
        raise DeviceError(f"{where} sent back no outputs: {plain(str(error))}") from error
    sent = "float32" if dtype.startswith("float") else "int64"
    if found.dtype != sent or found.shape != shape:
        raise DeviceError(f"{where} sent back {found.dtype} {found.shape} where {sent} {shape} was asked for")
    tensor = torch.from_numpy(np.array(found))
    return tensor if sent == "float32" else tensor.to(getattr(torch, dtype))


def _raised(fault: _Fault, where: str) -> Exception:
    """The error for what a target wrote down as its result."""
    told = f"on {where}: {plain(fault.message)}"
    match fault.kind:
        case "missing":
            return RequestError(told)
        case "load" | "run" | "crash" | "memory":
            return ProofError(told)
        case _:
            return DeviceError(told)
