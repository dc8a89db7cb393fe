"""What a board runs first, sent to it as text: takes the runner in, lets it do the job, and leaves nothing behind.

The arguments are the runner's size in bytes, the most seconds it may take, the folder to work in ("" for the system's),
and the runner's own arguments. The runner comes on standard input, before what is meant for it. Python 3.6 must be able
to read this file, so that it can say that it is too old. Standard library only.
"""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from types import FrameType
from typing import BinaryIO, NoReturn

OLDEST = (3, 10)
TOLD, FAILED = 81, 82  # exit status: the last line on standard error says what to do; the runner itself failed
MARK = b"\n--slimwright--\n"  # on standard output, before the answer: shells may have printed something already
END_S = 5.0


def main() -> None:
    """Take the runner, run it, remove it."""
    if sys.version_info < OLDEST:
        told("its Python is {}.{}; the runner needs {}.{} or newer".format(*sys.version_info[:2], *OLDEST))
    size, seconds, home, arguments = int(sys.argv[1]), float(sys.argv[2]), sys.argv[3], sys.argv[4:]
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
        signal.signal(number, ended)
    folder = ""
    try:
        folder = tempfile.mkdtemp(prefix="slimwright-", dir=home or None)
        path = os.path.join(folder, "runner.pyz")  # noqa: PTH118
        with open(path, "wb") as runner:  # noqa: PTH123
            take(size, runner)
        status = run([sys.executable, path, *arguments], folder, seconds)
    except OSError as error:
        told(f"it cannot write to its disk ({error}); make room, or name a folder that has some")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    sys.exit(FAILED if status else 0)


def take(size: int, file: "BinaryIO") -> None:
    """Copy `size` bytes from standard input, and not one more: the rest is the runner's."""
    while size:
        part = os.read(0, min(size, 1 << 16))
        if not part:
            sys.exit("the connection ended early")
        file.write(part)
        size -= len(part)


def run(command: "list[str]", folder: str, seconds: float) -> int:
    """Run the runner, all its files in `folder`, and return its exit status; end it where it takes too long."""
    os.write(1, MARK)
    child = subprocess.Popen(command, env=dict(os.environ, TMPDIR=folder), start_new_session=True)
    try:
        return child.wait(timeout=seconds)
    except subprocess.TimeoutExpired:
        told(f"its runner was stopped after {seconds:g} s")
    finally:
        end(child)


def end(child: "subprocess.Popen[bytes]") -> None:
    """Have the runner end what it started; end it by force where it does not."""
    if child.poll() is None:
        child.terminate()
        try:
            child.wait(timeout=END_S)
        except subprocess.TimeoutExpired:
            os.killpg(child.pid, signal.SIGKILL)
            child.wait()


def told(text: str) -> "NoReturn":
    """End, saying what is wrong."""
    sys.stderr.write("\n" + text + "\n")
    sys.exit(TOLD)


def ended(number: int, frame: "FrameType | None") -> None:
    """A signal that ends this process ends it in order; no other one shall disturb that."""
    for each in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
        signal.signal(each, signal.SIG_IGN)
    sys.exit(128 + number)


if __name__ == "__main__":
    main()
