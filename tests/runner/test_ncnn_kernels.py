"""What ncnn's layers take, where the machine does something else from time to time. The clock follows a script."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from slimwright.runner.job import Side
from slimwright.runner.sessions import ncnn as timed
from slimwright.runner.sessions.ncnn import BETWEEN_MS, Session

PARAM = """7767517
2 2
Input in0 0 1 in0
Convolution conv_0 1 1 in0 out0 0=4
"""
SIDE = Side("a", "ncnn", "fp32", ("model.param", "model.bin"), ((1, 3),))
TAKEN_MS, ASKED_MS, DISTURBED_MS = 0.030, 0.002, 0.040


class Clock:
    """A clock that goes on when something is computed; every fourth request is disturbed."""

    def __init__(self, disturbed: str) -> None:
        self.now_ms, self.requests, self.disturbed = 0.0, 0, disturbed
        self.known = set[str]()

    def perf_counter(self) -> float:
        """Return the seconds that have passed."""
        return self.now_ms / 1e3

    def create_extractor(self) -> "Clock":
        """Return what knows no values yet."""
        self.known.clear()
        return self

    def input(self, name: str, given: object) -> None:
        """Take an input."""
        self.known.add(name)

    def extract(self, name: str, _: int) -> tuple[int, None]:
        """Compute a value, or give one that is known."""
        kind = "asking" if name in self.known else "computing"
        self.now_ms += ASKED_MS + (TAKEN_MS if kind == "computing" else 0.0)
        if kind == self.disturbed:
            self.requests += 1
            self.now_ms += DISTURBED_MS if self.requests % 4 == 0 else 0.0
        self.known.add(name)
        return 0, None


@pytest.mark.parametrize("disturbed", ["nothing", "computing", "asking"])
def test_what_disturbs_a_run_makes_no_layer_slower_and_none_faster(
    disturbed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Asking again takes 2 of 32 microseconds; where it takes 42 once, a layer would seem to take nothing."""
    (tmp_path / "model.param").write_text(PARAM)
    clock: Any = Clock(disturbed)
    monkeypatch.setattr(Session, "_loaded", lambda self, light: clock)
    monkeypatch.setattr(timed, "time", SimpleNamespace(perf_counter=clock.perf_counter))
    session = Session([tmp_path / "model.param", tmp_path / "model.bin"], SIDE)
    (kernel,) = session.profile([np.zeros((1, 3), np.float32)], 20, lambda: None)
    assert kernel.kind == "Convolution"
    assert kernel.ms == pytest.approx(TAKEN_MS + BETWEEN_MS)
