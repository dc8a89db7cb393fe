"""Do a job: load its sides, run them, and write down what was measured.

With one side, load time, first run and peak memory are that artefact's own, in a process that did nothing else. With
several, they share the process, and only their latencies mean something: those are taken in turn.
"""

import json
import time
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from slimwright.runner import machine
from slimwright.runner.job import IMAGES, RESULT, Job, JobError, Side, read_job
from slimwright.runner.sessions import Session, open_session
from slimwright.runner.sessions.session import Array, first_line, load_runtime
from slimwright.runner.timing import evictor, interleaved

MOST_ENERGY_UJ = 1 << 48


def do(folder: Path) -> None:
    """Do the job in `folder`, and write `result.json` and the scores there; a failure is written down as well."""
    try:
        result: dict[str, object] = {"sides": _measured(read_job(folder), folder)}
    except JobError as error:
        result = {"error": {"kind": error.kind, "message": str(error)}}
    temporary = folder / f".{RESULT}"
    temporary.write_text(json.dumps(result))
    temporary.rename(folder / RESULT)


def _measured(job: Job, folder: Path) -> list[dict[str, Any]]:
    for runtime in dict.fromkeys(side.runtime for side in job.sides):
        load_runtime(runtime)
    empty = machine.peak_rss_bytes()
    inputs = [_image(side) for side in job.sides]
    sessions: list[Session] = []
    found: list[dict[str, Any]] = []
    for side, image in zip(job.sides, inputs, strict=True):
        began = time.perf_counter()
        session = open_session(side, folder)
        loaded = time.perf_counter()
        _run(session, side, image)
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
        str(k): partial(session.run, image) for k, (session, image) in enumerate(zip(sessions, inputs, strict=True))
    }
    if job.runs:
        times = interleaved(runs, runs=job.runs, warm_up=job.warm_up, least_s=job.least_s)
        for k, entry in enumerate(found):
            entry["latency"] = asdict(times[str(k)])
    peak, evict = machine.peak_rss_bytes(), evictor(job.evict_bytes)
    for k, (side, session, image) in enumerate(zip(job.sides, sessions, inputs, strict=True)):
        found[k] |= {"empty_rss_bytes": empty, "peak_rss_bytes": peak, "temperature_c": machine.temperature_c()}
        if job.profile_runs:
            kernels = session.profile(image, job.profile_runs, evict)
            found[k]["kernels"] = [asdict(kernel) for kernel in kernels]
        if job.energy_s:
            found[k]["energy_mj"] = _energy_mj(runs[str(k)], job.energy_s)
        if (folder / IMAGES).exists():
            scores = [_run(session, side, np.ascontiguousarray(each[None])) for each in _images(folder)]
            np.save(folder / f"scores-{k}.npy", np.concatenate(scores))
    return found


def _image(side: Side) -> Array:
    return np.random.default_rng(0).standard_normal(side.shape, dtype=np.float32)


def _images(folder: Path) -> Array:
    """The images to score, [N, C, H, W]; read as they are used."""
    try:
        images: Array = np.load(folder / IMAGES, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise JobError("job", f"{IMAGES} holds no array: {error}") from error
    if images.dtype != np.float32 or images.ndim < 2 or not len(images):
        raise JobError("job", f"{IMAGES} is {images.dtype} {images.shape}; it must be float32 [N, C, H, W]")
    return images


def _run(session: Session, side: Side, image: Array) -> Array:
    try:
        return session.run(image)
    except Exception as error:  # the runtimes' errors share no base class
        raise JobError("run", f"{side.runtime} cannot run {side.files[0]}: {first_line(error)}") from error


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
