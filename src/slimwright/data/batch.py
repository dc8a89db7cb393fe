"""A batch: what a network reads, and what its outputs should be. Either is one tensor, or a tuple of several."""

from collections.abc import Callable, Sequence
from typing import TypeAlias

import torch
from torch import Tensor

Inputs: TypeAlias = Tensor | tuple[Tensor, ...]  # each [N, ...]; one tensor: images [N, C, H, W] float32
Targets: TypeAlias = Tensor | tuple[Tensor, ...]  # each [N, ...], by the task; [N, 0] where there are none
Batch: TypeAlias = tuple[Inputs, Targets]
Labelled: TypeAlias = tuple[Tensor, Tensor]  # images [N, C, H, W] float32, labels [N] int64


def tensors_of(value: Inputs | Targets) -> tuple[Tensor, ...]:
    """Return inputs or targets as a tuple of tensors."""
    return (value,) if isinstance(value, Tensor) else tuple(value)


def like(value: Inputs | Targets, change: Callable[[Tensor], Tensor]) -> Inputs | Targets:
    """Return inputs or targets with each tensor changed, in the form that they had."""
    return change(value) if isinstance(value, Tensor) else tuple(change(tensor) for tensor in value)


def count_of(value: Inputs | Targets) -> int:
    """Return the number of images N."""
    return len(tensors_of(value)[0])


def joined(values: Sequence[Inputs] | Sequence[Targets]) -> Inputs | Targets:
    """Return several batches' inputs, or targets, one behind the other."""
    first = values[0]
    if isinstance(first, Tensor):
        return torch.cat([value for value in values if isinstance(value, Tensor)])
    return tuple(torch.cat(parts) for parts in zip(*(tensors_of(value) for value in values), strict=True))
