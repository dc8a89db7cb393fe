"""A batch: what a network reads, and what its outputs should be. Either is one tensor, or a tuple of several."""

from collections.abc import Callable, Sequence
from typing import TypeAlias, TypeGuard

import torch
from torch import Tensor

from slimwright.errors import DataError

Inputs: TypeAlias = Tensor | tuple[Tensor, ...]  # each [N, ...]; one tensor: images [N, C, H, W] float32
Targets: TypeAlias = Tensor | tuple[Tensor, ...]  # each [N, ...], by the task; [N, 0] where there are none
Batch: TypeAlias = tuple[Inputs, Targets]
Labelled: TypeAlias = tuple[Tensor, Tensor]  # images [N, C, H, W] float32, labels [N] int64


def as_inputs(tensors: Sequence[Tensor]) -> Inputs:
    """Return tensors as a network takes them: one alone, or a tuple of several."""
    return tensors[0] if len(tensors) == 1 else tuple(tensors)


def tensors_of(value: Inputs | Targets) -> tuple[Tensor, ...]:
    """Return inputs or targets as a tuple of tensors."""
    return (value,) if isinstance(value, Tensor) else tuple(value)


def like(value: Inputs | Targets, change: Callable[[Tensor], Tensor]) -> Inputs | Targets:
    """Return inputs or targets with each tensor changed, in the form that they had."""
    return change(value) if isinstance(value, Tensor) else tuple(change(tensor) for tensor in value)


def taken(value: Inputs | Targets, chosen: slice | Tensor) -> Inputs | Targets:
    """Return the inputs or targets of the chosen images."""
    return like(value, lambda tensor: tensor[chosen])


def moved(value: Inputs | Targets, device: str) -> Inputs | Targets:
    """Return inputs or targets on a device."""
    return like(value, lambda tensor: tensor.to(device))


def count_of(value: Inputs | Targets) -> int:
    """Return the number of images N."""
    return len(tensors_of(value)[0])


def joined(values: Sequence[Inputs] | Sequence[Targets]) -> Inputs | Targets:
    """Return several batches' inputs, or targets, one behind the other."""
    tensors = tuple(torch.cat(parts) for parts in zip(*map(tensors_of, values), strict=True))
    return tensors[0] if isinstance(values[0], Tensor) else tensors


def images_of(inputs: Inputs) -> Tensor:
    """Return inputs that are images alone [N, C, H, W]. Raises DataError where there are several inputs."""
    first, *others = tensors_of(inputs)
    if others:
        raise DataError(f"this works on images alone, and the data set gives {len(inputs)} inputs for each image")
    return first


def is_labels(targets: Targets) -> TypeGuard[Tensor]:
    """True where targets are one whole number for each image [N]."""
    return isinstance(targets, Tensor) and targets.ndim == 1 and not targets.is_floating_point()


def labels_of(targets: Targets) -> Tensor:
    """Return targets that are labels [N] int64. Raises DataError for any others, saying what they are."""
    if is_labels(targets):
        return targets.long()
    if isinstance(targets, Tensor) and targets.shape[1:] == (0,):
        raise DataError("the images have no labels, and this needs a label for each; give a labelled data set")
    said = " and ".join(f"{each.dtype} {['N', *each.shape[1:]]}".replace("'", "") for each in tensors_of(targets))
    raise DataError(f"this needs labels, a whole number for each image [N], and the data set gives {said}")


def labelled(batch: Batch) -> Labelled:
    """Return a batch of images and their labels. Raises DataError where it holds anything else."""
    inputs, targets = batch
    return images_of(inputs), labels_of(targets)
