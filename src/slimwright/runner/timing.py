"""Time several callables against each other: in turns, after warm-up, so that noise hits all of them alike.

A turn is several runs, of which the first is left out: it finds the caches full of what the side before it used, and
would make a small network pay for a large one beside it.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

TURN = 5  # runs of a turn that count, at most


@dataclass(frozen=True)
class Latency:
    """Time of one run, in milliseconds: on the clock, and of the processor (all threads together)."""

    median_ms: float
    p10_ms: float
    p90_ms: float
    runs: int
    cpu_ms: float  # median


def interleaved(
    sides: Mapping[str, Callable[[], object]], *, runs: int = 60, warm_up: int = 10, least_s: float = 0.0
) -> dict[str, Latency]:
    """Run every side in turns, at least `runs` times and `least_s` seconds in all; return each side's latency."""
    for _ in range(warm_up):
        for side in sides.values():
            side()
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in sides}
    began = time.perf_counter()
    names, turn = list(sides), min(runs or TURN, TURN)
    while len(taken[names[0]]) < runs or time.perf_counter() - began < least_s:
        for name in names:
            side, times = sides[name], taken[name]
            if len(names) > 1:
                side()
            for _ in range(turn):
                start, cpu = time.perf_counter(), time.process_time()
                side()
                wall = time.perf_counter() - start
                times.append((wall * 1e3, (time.process_time() - cpu) * 1e3))
        names = names[1:] + names[:1]  # no side always follows the same neighbour
    return {name: _latency(times) for name, times in taken.items()}


def evictor(size: int) -> Callable[[], object]:
    """Return what reads through `size` bytes, so that they are what the caches hold."""
    held = np.ones(size // 8)
    return lambda: held[::8].sum()  # a value of each line of 64 bytes


def undisturbed(times: Sequence[float]) -> float:
    """Return the mean of the fastest quarter: whatever else a machine does only ever slows a kernel down."""
    return float(np.sort(times)[: -(-len(times) // 4)].mean())


def _latency(times: list[tuple[float, float]]) -> Latency:
    wall, cpu = np.array(times).T
    p10, median, p90 = np.percentile(wall, [10, 50, 90])
    return Latency(float(median), float(p10), float(p90), len(times), float(np.median(cpu)))
