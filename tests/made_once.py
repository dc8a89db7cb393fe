"""Weights that one process of a test run trains, and all of its processes read."""

import fcntl
from collections.abc import Callable
from pathlib import Path

import safetensors.torch
from torch import Tensor


def made_once(path: Path, make: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
    """Return the tensors in a file; whoever comes first makes them, and the others wait."""
    with path.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not path.exists():
            safetensors.torch.save_file(make(), path)
    return safetensors.torch.load_file(path)
