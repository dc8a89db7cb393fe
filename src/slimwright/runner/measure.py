"""Do a job: load its sides, run them, and write down what was measured.

With one side, load time, first run and peak memory are that artefact's own, in a process that did nothing else. With
several, they share the process, and only their latencies mean something: those are taken in turn.
"""

import json
import time
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from slimwright.runner import machine
from slimwright.runner.job import RESULT, Job, JobError, Side, input_file, output_file, read_job
from slimwright.runner.memory import is_short, shortage
from slimwright.runner.rows import RowFiles
from slimwright.runner.sessions import Session, open_session
from slimwright.runner.sessions.session import Array, Kernel, first_line, load_runtime
from slimwright.runner.timing import evictor, interleaved

MOST_ENERGY_UJ = 1 << 48


def do(folder: Path, memory_bytes: int | None = None) -> None:
    """Do the job in `folder`, and write `result.json` and the outputs there; a failure is written down as well.

    `memory_bytes` is what the process may take, for the message that it was too little.
    """
    try:
        result: dict[str, object] = {"sides": _measured(read_job(folder), folder)}
    except JobError as error:
        kind, message = error.kind, str(error)
        if is_short(message):
            kind, message = "memory", shortage(memory_bytes, message)
        result = {"error": {"kind": kind, "message": message}}
    temporary = folder / f".{RESULT}"
    temporary.write_text(json.dumps(result))
    temporary.rename(folder / RESULT)


def _measured(job: Job, folder: Path) -> list[dict[str, Any]]:
    for runtime in dict.fromkeys(side.runtime for side in job.sides):
        load_runtime(runtime)
    empty = machine.peak_rss_bytes()
    inputs = [_made_up(side) for side in job.sides]
    sessions: list[Session] = []
    found: list[dict[str, Any]] = []
    for side, given in zip(job.sides, inputs, strict=True):
        began = time.perf_counter()
        session = open_session(side, folder)
        loaded = time.perf_counter()
        run(session, side, given)
        sessions.append(session)
        found.append(
            {
                "name": side.name,
                "load_ms": (loaded - began) * 1e3,
                "first_run_ms": (time.perf_counter() - loaded) * 1e3,
                "planned_bytes": session.planned_bytes,
            }
        )
    runs = {
        str(k): partial(session.run, given) for k, (session, given) in enumerate(zip(sessions, inputs, strict=True))
    }
    if job.runs:
        times = interleaved(runs, runs=job.runs, warm_up=job.warm_up, least_s=job.least_s)
        for k, entry in enumerate(found):
            entry["latency"] = asdict(times[str(k)])
    peak = machine.peak_rss_bytes()
    kernels = _kernels(job, sessions, inputs)
    for k, (side, session) in enumerate(zip(job.sides, sessions, strict=True)):
        found[k] |= {"empty_rss_bytes": empty, "peak_rss_bytes": peak, "temperature_c": machine.temperature_c()}
        if kernels:
            found[k]["kernels"] = [asdict(kernel) for kernel in kernels[k]]
        if job.energy_s:
            found[k]["energy_mj"] = _energy_mj(runs[str(k)], job.energy_s)
        if (folder / input_file(0)).exists():
            _compute(session, side, k, folder)
    return found


def _kernels(job: Job, sessions: Sequence[Session], inputs: Sequence[list[Array]]) -> list[list[Kernel]]:
    """The kernels of each side, in the round in which it was fastest; nothing where none is to be profiled."""
    if not job.profile_runs:
        return []
    evict = evictor(job.evict_bytes)
    rounds = [
        [session.profile(given, job.profile_runs, evict) for session, given in zip(sessions, inputs, strict=True)]
        for _ in range(job.profile_rounds)
    ]
    return [min(seen, key=lambda kernels: sum(one.ms for one in kernels)) for seen in zip(*rounds, strict=True)]


def _made_up(side: Side) -> list[Array]:
    """What the inputs are given while only time counts: normal numbers, and zeros, which are an index of any table."""
    numbers = np.random.default_rng(0)
    return [
        numbers.standard_normal(shape, dtype=np.float32)
        if side.dtype(k) == "float32"
        else np.zeros(shape, side.dtype(k))
        for k, shape in enumerate(side.shapes)
    ]


def _compute(session: Session, side: Side, number: int, folder: Path) -> None:
    """Run a side on every row of the inputs, and write what each output gives, row by row."""
    inputs = _inputs(side, folder)
    with RowFiles(len(inputs[0])) as files:
        for rows in zip(*inputs, strict=True):
            outputs = run(session, side, [np.ascontiguousarray(row[None]) for row in rows])
            for k, output in enumerate(outputs):
                files.write(folder / output_file(number, k), output)


def _inputs(side: Side, folder: Path) -> list[Array]:
    """What the inputs are given, each [N, ...]; read as they are used."""
    inputs = [_input(side, k, folder) for k in range(len(side.shapes))]
    if len({len(given) for given in inputs}) != 1:
        raise JobError("job", f"the inputs have {' and '.join(str(len(given)) for given in inputs)} rows")
    return inputs


def _input(side: Side, place: int, folder: Path) -> Array:
    name = input_file(place)
    try:
        given: Array = np.load(folder / name, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise JobError("job", f"{name} holds no array: {error}") from error
    if given.dtype != side.dtype(place) or given.ndim < 1 or not len(given):
        wanted = ", ".join(("N", *map(str, side.shapes[place][1:])))
        raise JobError("job", f"{name} is {given.dtype} {given.shape}; it must be {side.dtype(place)} [{wanted}]")
    return given


def _as_row(output: Array, shape: tuple[int, ...]) -> Array:
    """An output whose batch of one stands at another dimension, or at none, with the batch first."""
    same = [size for size in output.shape if size != 1] == [size for size in shape if size != 1]
    return output.reshape(shape) if same else output


def run(session: Session, side: Side, inputs: Sequence[Array]) -> list[Array]:
    """Run a side once; return each output as float32, or as int64 where it is integers.

    Raises JobError where the inputs are not those that the side takes, where the runtime fails, and where an output
    has not the shape that it must have.
    """
    told = f"{side.runtime} cannot run {side.files[0]}"
    for k, (given, shape) in enumerate(zip(inputs, side.shapes, strict=True)):
        if given.shape != shape:
            raise JobError("run", f"{told}: input {k} is {list(given.shape)}; it takes {list(shape)}")
    try:
        outputs = [_plain(output) for output in session.run(inputs)]
        if len(outputs) == len(side.output_shapes):
            outputs = [_as_row(output, shape) for output, shape in zip(outputs, side.output_shapes, strict=True)]
    except Exception as error:  # the runtimes' errors share no base class
        raise JobError("run", f"{told}: {first_line(error)}") from error
    shapes = tuple(output.shape for output in outputs)
    if any(shape[:1] != (1,) for shape in shapes) or (side.output_shapes and shapes != side.output_shapes):
        wanted = f" and not {list(map(list, side.output_shapes))}" if side.output_shapes else ", not a row each"
        raise JobError("run", f"{told}: it gives {list(map(list, shapes))}{wanted}")
    return outputs


def _plain(output: Array) -> Array:
    return np.asarray(output, np.float32 if output.dtype.kind == "f" else np.int64)


def _energy_mj(run: Any, seconds: float) -> float | None:
    """Energy of the processor packages per run, whatever else runs included; None where no counter can be read."""
    before, began, runs = machine.energy_uj(), time.perf_counter(), 0
    if before is None:
        return None
    while time.perf_counter() - began < seconds:
        run()
        runs += 1
    after = machine.energy_uj()
    if after is None or not 0 < after - before < MOST_ENERGY_UJ:  # the counter may wrap around
        return None
    return (after - before) * 1e-3 / runs
