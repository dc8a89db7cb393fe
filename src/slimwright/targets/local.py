"""This machine: the job runs in a fresh process."""

from dataclasses import dataclass

from slimwright.runner import machine, pipe
from slimwright.runner.machine import Described


@dataclass(frozen=True)
class Local:
    """The machine that slimwright itself runs on. A job may take `memory_bytes`; by default, what is available."""

    memory_bytes: int | None = None

    @property
    def name(self) -> str:
        """How messages call it."""
        return "this machine"

    def about(self) -> Described:
        """Describe the machine and its runtimes."""
        return machine.about()

    def answer(self, data: bytes, seconds: float) -> bytes:
        """Do a packed job in a child process, and return the packed results."""
        return pipe.answer(data, seconds, memory_bytes=self.memory_bytes)
