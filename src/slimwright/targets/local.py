"""This machine: the job runs in a fresh process."""

from slimwright.runner import machine, pipe
from slimwright.runner.machine import Described


class Local:
    """The machine that slimwright itself runs on."""

    name = "this machine"

    def about(self) -> Described:
        """Describe the machine and its runtimes."""
        return machine.about()

    def answer(self, data: bytes, seconds: float) -> bytes:
        """Do a packed job in a child process, and return the packed results."""
        return pipe.answer(data, seconds)
