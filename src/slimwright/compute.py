"""Where tensors are computed: the processor, or an accelerator that torch knows, such as "cuda" or "cuda:1".

Nets lie on the processor; what observes, solves and trains moves what it needs, and gives its results back there.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from slimwright.errors import RequestError


def usable(device: str) -> str:
    """Return the device. Raises RequestError where torch has none of that name, or it cannot compute in float64."""
    try:
        float(torch.zeros(1, dtype=torch.float64, device=device))
    except (RuntimeError, AssertionError, TypeError) as error:
        fault = str(error).splitlines()[0]
        raise RequestError(f"nothing can be computed on device '{device}': {fault}; 'cpu' is always there") from error
    return device


def device_of(module: nn.Module) -> str:
    """Return where a module's weights lie; that of one without any is the processor."""
    tensors = (*module.parameters(), *module.buffers())
    return str(tensors[0].device) if tensors else "cpu"


@contextmanager
def placed(device: str) -> Iterator[None]:
    """What is made anew is made on the device; there float32 keeps its precision, and the same work its bits."""
    if device == "cpu":
        yield
        return
    with torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False), torch.device(device):
        yield
