"""The stages of a job: how long each took, and what its listener hears."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from slimwright.progress import Tell


@dataclass(frozen=True)
class Stages:
    """Seconds by stage. A stage inside another one counts for itself alone."""

    tell: Tell
    seconds: dict[str, float] = field(default_factory=dict)
    running: list[float] = field(default_factory=list)  # of each stage under way: seconds of the stages inside it

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        """Take the time of a stage."""
        began = time.perf_counter()
        self.running.append(0.0)
        try:
            yield
        finally:
            took, inside = time.perf_counter() - began, self.running.pop()
            self.seconds[name] = round(self.seconds.get(name, 0.0) + took - inside, 2)
            if self.running:
                self.running[-1] += took
