"""A small net that knows digits, cut in two once for all processes of a test run."""

import fcntl
from pathlib import Path

import torch
from torch import nn

from shared_workshop import shared_workshop
from slimwright.codec.split.bundle import MANIFEST
from slimwright.codec.split.job import Request
from slimwright.codec.split.links import Link
from slimwright.codec.split.making import split
from slimwright.codec.split.timing import Machines
from slimwright.graph import Net
from slimwright.importers import capture
from slimwright.measure import original_of
from slimwright.progress import silent
from slimwright.tasks import Classification
from small_digits import few_digits, small_digit_net

LINK = Link("given", uplink_mbps=1.0, rtt_ms=40.0)


class Twofold(nn.Module):
    """A wide value, and two smaller ones made of it that are both needed."""

    def __init__(self) -> None:
        super().__init__()
        self.wide = nn.Conv2d(1, 16, 3, padding=1)
        self.left, self.right = nn.Conv2d(16, 2, 3, 2, 1), nn.Conv2d(16, 3, 3, 2, 1)
        self.up, self.down = nn.Conv2d(2, 4, 1), nn.Conv2d(3, 4, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.wide(x).relu()
        left, right = self.left(y), self.right(y)
        return self.up(left) * self.down(right)  # type: ignore[no-any-return]


def twofold() -> Net:
    """The net of two values that are sent together."""
    torch.manual_seed(0)
    return capture(Twofold().eval(), (1, 8, 8))


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
