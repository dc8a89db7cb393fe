"""A control group of its own for a child: what it takes counts as a whole, shared memory and all that it starts too.

Of version 2 alone (Linux 4.5 and newer), and where the system lets this process make groups, as systemd lets users: in
the nearest group above its own that deals out `memory`, that is a user's, and that it can write to: those of root are
the system's own to order. Nothing is made but a folder of our
own name, which goes with the child; one that a killed run left is removed by the next. Where any of that is not so,
the limits of `memory.py` hold alone. Standard library only.
"""

import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

NAME = "slimwright-"
ROOT = 0  # its number as a user
BESIDE = 2 * 10**8  # bytes: interpreter, runtime and files, which count here, and not in a limit on what is written to
TRIES, PAUSE_S = 20, 0.05  # the system takes a moment to let go of processes that have ended


@contextmanager
def control_group(memory_bytes: int | None, root: Path = Path("/")) -> Iterator[Callable[[int], None]]:
    """Give what puts a process into a group that may take so many bytes more than an empty process.

    In the end whatever is left in the group is killed, and the group is removed. It never fails: where there can be no
    group, or no limit is given, nothing is done.
    """
    group = None if memory_bytes is None else _made(memory_bytes + BESIDE, root)

    def add(pid: int) -> None:
        if group is not None:
            with suppress(OSError):
                (group / "cgroup.procs").write_text(str(pid))

    try:
        yield add
    finally:
        if group is not None:
            _remove(group)


def _made(most_bytes: int, root: Path) -> Path | None:
    """A new group with a limit, in the first place that allows one."""
    for place in _places(root):
        with suppress(OSError):
            for left in place.glob(f"{NAME}*"):
                with suppress(OSError):  # in use
                    left.rmdir()
            group = place / f"{NAME}{secrets.token_hex(8)}"
            group.mkdir()
            try:
                (group / "memory.max").write_text(str(most_bytes))
            except OSError:
                group.rmdir()
                raise
            return group
    return None


def _places(root: Path) -> Iterator[Path]:
    """The groups above this process's own, from the nearest on, whose children can have limits on memory."""
    with suppress(OSError, ValueError):  # ValueError: a name that is no text
        lines, home = (root / "proc/self/cgroup").read_text().splitlines(), root / "sys/fs/cgroup"
        if len(lines) != 1 or not lines[0].startswith("0::/") or ".." in lines[0]:
            return  # version 1 has a line for each controller; .. leads out of what a container sees
        group = home / lines[0].removeprefix("0::/")
        while group != home:
            group = group.parent
            dealt_out = (group / "cgroup.subtree_control").read_text().split()
            if "memory" in dealt_out and group.stat().st_uid != ROOT:
                yield group


def _remove(group: Path) -> None:
    with suppress(OSError):  # before Linux 5.14
        (group / "cgroup.kill").write_text("1")
    for _ in range(TRIES):
        with suppress(OSError):
            group.rmdir()
            return
        time.sleep(PAUSE_S)
