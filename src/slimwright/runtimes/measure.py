"""Time several callables against each other: interleaved, after warm-up, so that noise hits all of them alike."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Latency:
    """Wall time of one run, in milliseconds."""

    median_ms: float
    p10_ms: float
    p90_ms: float
    runs: int


def interleaved(
    sides: Mapping[str, Callable[[], object]], *, runs: int = 60, warm_up: int = 10, least_s: float = 0.0
) -> dict[str, Latency]:
    """Run every side in turn, `runs` rounds and at least `least_s` seconds in all; return each side's latency."""
    for _ in range(warm_up):
        for side in sides.values():
            side()
    taken: dict[str, list[float]] = {name: [] for name in sides}
    began = time.perf_counter()
    names = list(sides)
    while len(taken[names[0]]) < runs or time.perf_counter() - began < least_s:
        for name in names:
            start = time.perf_counter()
            sides[name]()
            taken[name].append((time.perf_counter() - start) * 1e3)
        names = names[1:] + names[:1]  # no side always follows the same neighbour
    return {name: _latency(times) for name, times in taken.items()}


def _latency(times: list[float]) -> Latency:
    p10, median, p90 = np.percentile(times, [10, 50, 90])
    return Latency(float(median), float(p10), float(p90), len(times))
