"""Whether a stage of work has the memory that it needs, forecast from counts before it begins.

A forecast is what a stage adds to this process at its peak, to about a third (our measurement of 2026-11-29:
`tests/jobs/test_forecast.py`). So a stage that can do with less is made smaller where it would take more than `AIM` of
what there is; one is refused only where the least of it is more than all there is.
"""

import math

from slimwright.errors import RequestError
from slimwright.runner.memory import available_bytes
from slimwright.units import megabytes

AIM = 0.8  # of the memory that there is


def memory_there(memory_bytes: int | None = None) -> float:
    """Return how many bytes a stage may take: those given, or what the system has; infinite where it does not tell."""
    found = available_bytes() if memory_bytes is None else memory_bytes
    return math.inf if found is None else found


def check_memory(what: str, needed: float, there: float, fix: str) -> None:
    """Raise RequestError where something needs more bytes than there are; `fix` says what to do about it."""
    if needed > there:
        raise RequestError(
            f"{what} needs about {megabytes(needed)} of memory, and {megabytes(there)} are there: {fix}, end what else "
            "runs, or allow more with --memory-limit"
        )
