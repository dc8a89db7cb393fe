"""A device that sends back what a test says, whatever it is asked; and a result as an honest one sends it."""

import io
from typing import Any

import numpy as np

from slimwright.runner.machine import Described
from slimwright.targets.described import read_description

LATENCY = {"median_ms": 1.0, "p10_ms": 0.5, "p90_ms": 2.0, "runs": 3, "cpu_ms": 1.0}
SIDE = {
    "name": "small",
    "load_ms": 1.0,
    "first_run_ms": 1.0,
    "planned_bytes": None,
    "latency": LATENCY,
    "empty_rss_bytes": 10,
    "peak_rss_bytes": 30,
    "temperature_c": 40.0,
}


class Board:
    """A target that sends back `data`."""

    name = "a board"

    def __init__(self, data: bytes) -> None:
        self._data = data

    def about(self) -> Described:
        return read_description(self._data, self.name)

    def answer(self, data: bytes, seconds: float) -> bytes:
        return self._data


def saved(array: np.ndarray[Any, Any], *, pickled: bool = False) -> bytes:
    """An array as an .npy file."""
    held = io.BytesIO()
    np.save(held, array, allow_pickle=pickled)
    return held.getvalue()
