"""A small net that knows digits, cut in two once for all processes of a test run."""

import fcntl
from pathlib import Path

from shared_workshop import shared_workshop
from slimwright.codec.split.bundle import MANIFEST
from slimwright.codec.split.job import Request
from slimwright.codec.split.links import Link
from slimwright.codec.split.making import split
from slimwright.codec.split.timing import Machines
from slimwright.measure import original_of
from slimwright.progress import silent
from slimwright.tasks import Classification
from small_digits import few_digits, small_digit_net

LINK = Link("given", uplink_mbps=1.0, rtt_ms=40.0)


def request(cache: Path | None, **changed: object) -> Request:
    """What is asked for in tests, but for what is changed."""
    usual: dict[str, object] = {"machines": Machines(4.0, 1.0), "max_drop": 3.0, "candidates": 1, "expect": "0"}
    return Request(LINK, cache=cache, workshop=shared_workshop(), **{**usual, **changed})  # type: ignore[arg-type]


def small_split(run_folder: Path, cache: Path) -> Path:
    """Return the bundle; whoever comes first makes it, and the others wait."""
    out, data = run_folder / "split", few_digits()
    with (run_folder / "split.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (out / MANIFEST).exists():
            task = Classification(data.labels)
            split(original_of(small_digit_net(), []), data, task, request(cache), out=out, tell=silent)
    return out
