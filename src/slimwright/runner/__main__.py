"""Entry of the runner.

runner FOLDER [PARENT]            do the job in a folder; end with the process PARENT, which waits for it
runner --pipe SECONDS LENGTH      read a packed job of LENGTH bytes from standard input, do it in a child, write the
                                  packed results; more bytes, now and then, say that somebody still waits
runner --about                    describe this machine
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
        case ["--pipe", seconds, length]:
            out.write(_answer(float(seconds), int(length)))
        case [folder, *parent] if not folder.startswith("-") and len(parent) <= 1:
            for number in parent:
                threading.Thread(target=_end_with, args=(int(number),), daemon=True).start()
            _do(Path(folder))
        case _:
            sys.exit(__doc__)
    out.flush()


def _answer(seconds: float, length: int) -> bytes:
    from slimwright.runner import pipe

    signal.signal(signal.SIGTERM, _end)
    try:
        return pipe.answer_wire(seconds, length)
    except pipe.Abandoned:
        sys.exit("nobody waits for the answer any more")


def _do(folder: Path) -> None:
    from slimwright.runner import pipe
    from slimwright.runner.job import RESULT

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
        measure.do(folder)
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
