"""The main job in a process that a power cut ends: it kills itself where its board is asked for one thing too many.

Such processes are forks of one (`serve`) that has all that it takes seconds to load, the converters included.
"""

import os
import signal
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch

from exact import small_net
from scripted_jobs import done
from scripted_target import Scripted, in_blocks
from shared_workshop import shared_workshop
from slimwright import Budget
from slimwright.graph import load_net

BUDGET = Budget(latency_ms="0.5x", max_drop=100)


def board() -> Scripted:
    """Channels are computed four at a time; a model's time is that of its layers."""
    return Scripted(layer_ms=in_blocks(4))


def journal_lines(cache: Path) -> list[bytes]:
    """The lines of every journal in a cache."""
    return [line for path in sorted(cache.glob("jobs/*/journal.jsonl")) for line in path.read_bytes().splitlines(True)]


@dataclass
class Deadly(Scripted):
    """A board that kills the process which asks it, once the journal has so many lines."""

    cache: Path = Path()
    lines: int = 0

    def answer(self, data: bytes, seconds: float) -> bytes:
        """Do a packed job, or end everything."""
        if len(journal_lines(self.cache)) >= self.lines:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().answer(data, seconds)


def serve() -> None:
    """For each folder and number of lines on standard input, run the job in a fork, and say how it ended."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        shared_workshop().convert(small_net("Residual"), "onnxruntime", "fp32", Path(folder))
    for line in sys.stdin:
        home, lines = line.split()
        pid = os.fork()
        if pid == 0:
            run(Path(home), int(lines))
            os._exit(0)
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)


def run(home: Path, lines: int) -> None:
    """Shrink the net in `home` until the journal has so many lines."""
    tempfile.tempdir = os.environ["TMPDIR"] = str(home / "tmp")
    deadly = Deadly(layer_ms=in_blocks(4), cache=home / "cache", lines=lines)
    done(deadly, BUDGET, home / "b", net=load_net(home / "net"), cache=home / "cache")
