"""The command line in forks of one process that has everything imported: what a case says, takes and leaves behind."""

import os
import select
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import slimwright.cli.sources
import slimwright.cli.tables
import slimwright.jobs.shrink  # noqa: F401  (what commands import late is imported once)
from slimwright.cli.main import main as command_line

MOST_S = 10.0  # after which a case hangs
OURS = frozenset({0, 1, 2})  # exit statuses of results and of our own errors
Files = Mapping[Path, tuple[int, int, int]]


@dataclass(frozen=True)
class Case:
    """What became of a command."""

    status: int | None  # negative for a signal; None where it did not end in time
    said: str
    peak_bytes: int  # more than the process had before
    seconds: float

    @property
    def hangs(self) -> bool:
        """It had not ended in time."""
        return self.status is None

    @property
    def crashed(self) -> bool:
        """The interpreter ended by a signal."""
        return self.status is not None and self.status < 0

    @property
    def foreign(self) -> bool:
        """It ended with an error that is not ours."""
        return not self.hangs and not self.crashed and (self.status not in OURS or "Traceback" in self.said)


def run_forked(arguments: list[str], home: Path, *, most_s: float = MOST_S) -> Case:
    """Run slimwright with these arguments in the folder `home`."""
    return forked(lambda: _command(arguments), home, most_s=most_s)


def warmed(arguments: list[str], home: Path) -> Case:
    """Run a command in this process, so that its forks find everything imported; then in a fork, as cases are."""
    here, before, streams = Path.cwd(), dict(os.environ), (os.dup(1), os.dup(2))
    with tempfile.TemporaryDirectory(prefix="robustness-") as name, (Path(name) / "said").open("w") as said:
        for stream in (1, 2):
            os.dup2(said.fileno(), stream)
        os.chdir(home)
        os.environ["SLIMWRIGHT_CACHE"] = name
        try:
            _status(lambda: _command(arguments))
        finally:
            os.chdir(here)
            os.environ.clear()
            os.environ.update(before)
            for stream, kept in zip((1, 2), streams, strict=True):
                os.dup2(kept, stream)
                os.close(kept)
    return run_forked(arguments, home, most_s=60)


def forked(work: Callable[[], None], home: Path, *, most_s: float = MOST_S) -> Case:
    """Do some work in a fork of this process, in the folder `home`, with its own session and temporary files."""
    with tempfile.TemporaryDirectory(prefix="robustness-") as name:
        said, began = Path(name) / "said", time.monotonic()
        before = _resident_bytes()
        pid = os.fork()
        if pid == 0:
            os.setsid()
            os.chdir(home)
            os.environ.update(NO_COLOR="1", COLUMNS="200", SLIMWRIGHT_CACHE=str(Path(name) / "cache"), TMPDIR=name)
            tempfile.tempdir = name
            for stream in (1, 2):
                os.dup2(os.open(said, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), stream)
            os._exit(_status(work))
        ended = os.pidfd_open(pid)
        late = not select.select([ended], [], [], most_s)[0]
        os.close(ended)
        if late:
            os.killpg(pid, signal.SIGKILL)
        _, status, used = os.wait4(pid, 0)
        text = said.read_text(errors="replace") if said.exists() else ""
        peak = max(used.ru_maxrss * 1024 - before, 0)
        return Case(None if late else os.waitstatus_to_exitcode(status), text, peak, time.monotonic() - began)


def files_below(folder: Path) -> Files:
    """Every file below a folder, with its number, size and time of change."""
    found = {}
    for path in folder.rglob("*"):
        about = path.lstat()
        found[path] = (about.st_ino, 0 if path.is_dir() else about.st_size, about.st_mtime_ns * (not path.is_dir()))
    return found


def _command(arguments: list[str]) -> None:
    sys.argv = ["slimwright", *arguments]
    command_line()


def _status(work: Callable[[], None]) -> int:
    try:
        work()
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except BaseException:
        import traceback

        traceback.print_exc()
        return 70
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
    return 0


def _resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
