"""A packed job in, packed results out. The job runs in a child, so that a runtime that crashes takes nothing along.

The child has limits on memory and on processor time; the latter ends it where nobody is left to do so. Where the system
allows it, the child runs in a control group of its own besides. Child, folder and group are removed whatever happens, a
dropped connection included.
"""

import errno
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from slimwright.runner.control_group import control_group
from slimwright.runner.job import OUTPUTS, RESULT
from slimwright.runner.memory import available_bytes, is_short, killed_by, shortage
from slimwright.runner.pack import packed, packed_files, unpack

POLL_S = 0.5
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
SILENCE_S = 60.0  # whoever sends a job down a pipe sends something more often than that, until the answer is there
QUIET = {"ORT_DISABLE_TELEMETRY": "1"}  # from 1.29 on, ONNX Runtime reports its use, and leaves a file behind
DISK_FULL = 74  # exit status of a child that could not write: EX_IOERR of sysexits.h


class Abandoned(Exception):
    """Nobody waits for the answer any more."""


def answer(
    data: bytes, seconds: float, gone: Callable[[], bool] = lambda: False, *, memory_bytes: int | None = None
) -> bytes:
    """Do a packed job within `seconds`, and return the results, packed; a failure is a result with an "error".

    The job may take `memory_bytes` more than an empty process, by default what the machine has available. Raises
    Abandoned once `gone` says that nobody waits for it.
    """
    try:
        with tempfile.TemporaryDirectory(prefix="slimwright-") as name:
            folder = Path(name)
            unpack(data, folder)
            fault = done(folder, seconds, gone, available_bytes() if memory_bytes is None else memory_bytes)
            if fault:
                return packed_files({RESULT: fault})
            for path in folder.iterdir():
                if path.name != RESULT and not path.name.startswith(OUTPUTS):
                    path.unlink()
            return packed(folder)
    except ValueError as error:
        return packed_files({RESULT: _fault("job", str(error))})
    except OSError as error:
        return packed_files({RESULT: _fault("disk", _no_room(str(error)) if error.errno in NO_ROOM else str(error))})


def answer_wire(seconds: float, length: int, memory_bytes: int | None = None) -> bytes:
    """Do the job that comes on standard input, `length` bytes of it; what follows only shows that somebody waits."""
    data = sys.stdin.buffer.read(length)
    if len(data) < length:
        raise Abandoned("the connection ended before the job was whole")
    return answer(data, seconds, _silence_on(sys.stdin.fileno()), memory_bytes=memory_bytes)


def done(folder: Path, seconds: float, gone: Callable[[], bool], memory_bytes: int | None) -> bytes | None:
    """Do the job in `folder` in a child process; return what is its result where it crashed or took too long."""
    began_with = [sys.executable, "-P"] if sys.version_info >= (3, 11) else [sys.executable]
    most = "any" if memory_bytes is None else str(memory_bytes)
    child = subprocess.Popen(
        [*began_with, *_entry(), str(folder), str(os.getpid()), str(seconds), most],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        cwd=folder,
        env=os.environ | QUIET,
        start_new_session=True,
    )
    with control_group(memory_bytes) as add:
        try:
            add(child.pid)
            said = _said(child, time.monotonic() + seconds, gone)
        except TimeoutError:
            return _fault("time", f"the job was stopped after {seconds:g} s; allow it more, or ask for fewer runs")
        finally:
            _kill(child)
            child.wait()
    if (folder / RESULT).exists() and child.returncode == 0:
        return None
    lines = said.decode(errors="replace").strip().splitlines()
    last = lines[-1] if lines else "it said nothing"
    if child.returncode == DISK_FULL:
        return _fault("disk", _no_room(lines[-1] if lines else "the job cannot write its results"))
    if short := next((line for line in lines if is_short(line)), ""):
        return _fault("memory", shortage(memory_bytes, short))
    how = killed_by(child.returncode) if child.returncode < 0 else "ended"
    return _fault("crash", f"the process {how} with no result: {last}")


def _said(child: "subprocess.Popen[bytes]", until: float, gone: Callable[[], bool]) -> bytes:
    """Wait for a child's end, and return what it wrote on standard error. Raises TimeoutError, Abandoned."""
    while True:
        try:
            return child.communicate(timeout=min(POLL_S, max(until - time.monotonic(), 0.0)))[1]
        except subprocess.TimeoutExpired:
            if child.poll() is not None:  # something it started still holds its standard error
                _kill(child)
            elif gone():
                raise Abandoned from None
            elif time.monotonic() >= until:
                raise TimeoutError from None


def _kill(child: "subprocess.Popen[bytes]") -> None:
    """End a child and whatever it started."""
    with suppress(ProcessLookupError, PermissionError):  # all of them have ended
        os.killpg(child.pid, signal.SIGKILL)


def _silence_on(descriptor: int) -> Callable[[], bool]:
    """Whether what is read from `descriptor` has ended, or nothing came for too long."""
    heard = time.monotonic()
    ended = False

    def listen() -> None:
        nonlocal heard, ended
        while os.read(descriptor, 4096):
            heard = time.monotonic()
        ended = True

    threading.Thread(target=listen, daemon=True).start()
    return lambda: ended or time.monotonic() - heard > SILENCE_S


def _entry() -> list[str]:
    """How this very runner is started: as an archive, or as a module."""
    archive = Path(__file__).parents[2].resolve()
    return [os.fspath(archive)] if archive.is_file() else ["-m", "slimwright.runner"]


def _no_room(reason: str) -> str:
    return f"{reason}; make room on the disk, or set TMPDIR to a folder that has some"


def _fault(kind: str, message: str) -> bytes:
    return json.dumps({"error": {"kind": kind, "message": message}}).encode()
