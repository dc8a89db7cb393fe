"""Whole jobs of the command line in processes of their own: how long they take, how much memory the largest uses."""

import os
import resource
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Ran:
    """What became of a job."""

    seconds: float
    peak_mb: float  # of the largest of its processes
    status: int
    said: str
    cpu_s: float = 0.0  # of all of its processes


def command(*arguments: str) -> list[str]:
    """Return a command line of slimwright, run by this Python."""
    return [sys.executable, "-m", "slimwright", *arguments]


def surroundings(cache: Path, scratch: Path) -> Mapping[str, str]:
    """Return the environment of a job: its own cache, its own folder for temporary files, benchmarks importable."""
    path = os.pathsep.join([str(HERE), *filter(None, [os.environ.get("PYTHONPATH")])])
    return os.environ | {"SLIMWRIGHT_CACHE": str(cache), "TMPDIR": str(scratch), "PYTHONPATH": path, "NO_COLOR": "1"}


def run(arguments: Sequence[str], cache: Path, scratch: Path) -> Ran:
    """Run a job to its end."""
    scratch.mkdir(parents=True, exist_ok=True)
    began = time.perf_counter()
    pid = os.fork()
    if pid == 0:  # a child of its own, so that the memory of earlier jobs does not count
        done = subprocess.run(
            command(*arguments), env=surroundings(cache, scratch), cwd=HERE, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, check=False,
        )  # fmt: skip
        (scratch / "said").write_bytes(done.stdout)
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        (scratch / "used").write_text(f"{used.ru_maxrss} {used.ru_utime + used.ru_stime}")
        os._exit(done.returncode)
    _, status = os.waitpid(pid, 0)
    seconds = time.perf_counter() - began
    peak, cpu_s = map(float, (scratch / "used").read_text().split())
    said = (scratch / "said").read_text()
    return Ran(seconds, peak * 1024 / 1e6, os.waitstatus_to_exitcode(status), said, cpu_s)
