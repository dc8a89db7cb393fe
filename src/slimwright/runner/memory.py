"""How much memory a process may still take, and limits that end it before the system runs out.

What a process may take is the least of what the machine has available, what its control groups leave it, and what its
own limits leave it. A limit counts the private memory that a process can write to (RLIMIT_DATA, Linux 4.7 and newer):
runtimes reserve far more addresses than they use, which RLIMIT_AS would count. Standard library only.
"""

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import suppress
from math import ceil
from pathlib import Path

NONE = 1 << 62  # bytes: control groups of version 1 write "no limit" as a number of about this size
FIRST_TO_GO = "1000"  # of /proc/self/oom_score_adj: a system that is short of memory ends this process before others
SHORT = (  # what Python, torch, numpy, C++ and the runtimes say where they get no memory, in lower case
    "memoryerror",
    "bad_alloc",
    "bad alloc",
    "allocate memory",
    "unable to allocate",
    "failed to allocate",
    "could not allocate",
    "out of memory",
)


def available_bytes(root: Path = Path("/")) -> int | None:
    """Return how much more memory this process may take, in bytes; None where the system does not tell."""
    found = [*_of_machine(root), *_of_groups(root), *_of_limits(root)]
    return max(min(found), 0) if found else None


def limit(memory_bytes: int | None, cpu_s: float) -> None:
    """Let this process take so much more memory than it has, and so much processor time, and be the first to go.

    Where it wants more memory, it gets an error; after its time SIGXCPU ends it. Limits that are lower stay. Without
    `memory_bytes`, and where the system cannot limit writable memory, memory has no limit.
    """
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(FIRST_TO_GO)
    with suppress(ImportError):  # there is none on Windows
        import resource

        _lower(resource.RLIMIT_CPU, ceil(cpu_s))
        if memory_bytes is not None and sys.platform == "linux":
            _lower(resource.RLIMIT_DATA, _told(Path("/proc/self/status")).get("VmData", 0) + memory_bytes)


def most_cpu_s(seconds: float) -> float:
    """Return the processor time that a process can take in `seconds` on all cores."""
    return seconds * (os.cpu_count() or 1)


def is_short(said: str) -> bool:
    """True where an error's text says that there was no memory."""
    return any(sign in said.lower() for sign in SHORT)


def shortage(memory_bytes: int | None, said: str) -> str:
    """Say that there was too little memory, how much it was, and what to do."""
    most = "there was" if memory_bytes is None else f"the {memory_bytes / 1e9:.3g} GB that it may take"
    return (
        f"it needed more memory than {most} ({said}); allow it more with --memory-limit, end what else runs there, or "
        "give smaller inputs"
    )


def killed_by(status: int) -> str:
    """Say which signal ended a process, and of SIGKILL, which nobody here sent, what that mostly means."""
    name = signal.Signals(-status).name
    return f"was killed by {name}" + (" (the system may be short of memory)" if name == "SIGKILL" else "")


def _lower(which: int, most: int) -> None:
    import resource

    soft, hard = resource.getrlimit(which)
    least = min(one for one in (soft, hard, most) if one != resource.RLIM_INFINITY)
    resource.setrlimit(which, (least, hard))


def _of_machine(root: Path) -> Iterator[int]:
    told = _told(root / "proc/meminfo")
    if "MemAvailable" in told:
        yield told["MemAvailable"]


def _of_groups(root: Path) -> Iterator[int]:
    """What each control group on the way up leaves, of version 2 and of version 1; files in its caches can go."""
    for line in _lines(root / "proc/self/cgroup"):
        _, controllers, path = line.split(":", 2)
        if controllers in ("", "memory"):
            home = root / "sys/fs/cgroup" / controllers
            group = home / path.lstrip("/")
            while group.is_relative_to(home):
                yield from _left(group)
                group = group.parent


def _left(group: Path) -> Iterator[int]:
    stat = dict(line.split() for line in _lines(group / "memory.stat"))
    for limit, used, kept in (
        ("memory.max", "memory.current", ("inactive_file", "active_file")),
        ("memory.limit_in_bytes", "memory.usage_in_bytes", ("total_inactive_file", "total_active_file")),
    ):
        most, now = _number(group / limit), _number(group / used)
        if most is not None and now is not None and most < NONE:
            yield most - now + sum(int(stat.get(name, 0)) for name in kept)


def _of_limits(root: Path) -> Iterator[int]:
    """What this process's own limits leave, on writable memory and on addresses."""
    used = _told(root / "proc/self/status")
    for line in _lines(root / "proc/self/limits"):
        for name, counted in (("Max data size", "VmData"), ("Max address space", "VmSize")):
            if line.startswith(name) and (soft := line.removeprefix(name).split()[0]).isdigit():
                yield int(soft) - used.get(counted, 0)


def _told(path: Path) -> dict[str, int]:
    """The fields of a file like /proc/meminfo that are sizes, in bytes."""
    split = (line.split() for line in _lines(path))
    return {words[0].rstrip(":"): int(words[1]) * 1024 for words in split if words[2:] == ["kB"]}


def _number(path: Path) -> int | None:
    text = "".join(_lines(path))
    return int(text) if text.isdigit() else None


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except OSError:
        return []
