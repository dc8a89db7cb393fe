"""Entry of the runner.

runner FOLDER [PARENT SECONDS MEMORY]
    Do the job in a folder; end with the process PARENT, which waits for it SECONDS. MEMORY is how many bytes more than
    at its start the process may take, or "any".
runner --pipe SECONDS LENGTH [MEMORY]
    Read a packed job of LENGTH bytes from standard input, do it in a child, write the packed results; more bytes, now
    and then, say that somebody still waits. By default the child may take the memory that the machine has available.
runner --about
    Describe this machine.
"""

import json
import os
import signal
import sys
import threading
import time
from pathlib import Path
from types import FrameType


def main() -> None:
    """Do what the arguments say. What runtimes print goes to standard error."""
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    match sys.argv[1:]:
        case ["--about"]:
            from slimwright.runner import machine

            out.write(json.dumps(machine.about()).encode())
        case ["--pipe", seconds, length, *memory] if len(memory) <= 1:
            out.write(_answer(float(seconds), int(length), _bytes(*memory)))
        case [folder, parent, seconds, memory]:
            threading.Thread(target=_end_with, args=(int(parent),), daemon=True).start()
            _do(Path(folder), float(seconds), _bytes(memory))
        case [folder] if not folder.startswith("-"):
            _do(Path(folder))
        case _:
            sys.exit(__doc__)
    out.flush()


def _bytes(text: str = "any") -> int | None:
    return None if text == "any" else int(text)


def _answer(seconds: float, length: int, memory_bytes: int | None) -> bytes:
    from slimwright.runner import pipe

    signal.signal(signal.SIGTERM, _end)
    try:
        return pipe.answer_wire(seconds, length, memory_bytes)
    except pipe.Abandoned:
        sys.exit("nobody waits for the answer any more")


def _do(folder: Path, seconds: float | None = None, memory_bytes: int | None = None) -> None:
    from slimwright.runner import memory, pipe
    from slimwright.runner.job import RESULT

    if seconds is not None:
        memory.limit(memory_bytes, memory.most_cpu_s(seconds))
    try:
        from slimwright.runner import measure
    except ImportError as error:  # numpy, that is: nothing else is imported
        fix = f"{sys.executable} -m pip install numpy"
        told = {
            "error": {"kind": "missing", "message": f"numpy is not installed here ({error}); install it with: {fix}"}
        }
        (folder / RESULT).write_text(json.dumps(told))
        return
    try:
        measure.do(folder, memory_bytes)
    except OSError as error:  # a runtime's own errors are results
        print(error, file=sys.stderr)
        sys.exit(pipe.DISK_FULL)


def _end_with(parent: int) -> None:
    """End this process once its parent has: nobody would take the results."""
    while os.getppid() == parent:
        time.sleep(1.0)
    os._exit(1)


def _end(number: int, frame: FrameType | None) -> None:
    """A signal that ends the process ends it in order: children killed, folders removed."""
    sys.exit(128 + number)


if __name__ == "__main__":
    main()
