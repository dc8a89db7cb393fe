"""Networks of the zoo that have no weights yet: trained on the data, once for each cache."""

import json
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import torch
from torch import nn

from slimwright.compute import usable
from slimwright.cost import memory_there
from slimwright.data import Dataset, part_fingerprint
from slimwright.errors import ModelError
from slimwright.importers import capture
from slimwright.kept import kept_at, kept_tensors, write_tensors
from slimwright.progress import Tell
from slimwright.tasks import forward_of, task_for
from slimwright.train import Schedule, fit, schedule_within
from slimwright.zoo import CLASSIFICATION, ZOO, build


@dataclass(frozen=True)
class Training:
    """How a network of the zoo is trained, and where its weights are kept."""

    schedule: Schedule = field(default_factory=Schedule)
    cache: Path | None = None
    device: str = "cpu"
    memory_bytes: int | None = None  # that it may take; None: what the machine has available


def trained(name: str, data: Dataset, how: Training, tell: Tell) -> nn.Module:
    """Return a zoo network trained on `data`; its weights are kept under a key of all that made them.

    Where memory is short batches are smaller, and other weights come of that. Raises ModelError where the network is
    not for such data, and RequestError where there is no such device, or too little memory.
    """
    device = usable(how.device)
    _check_purpose(name, data)
    model = untrained(name, data)
    said = json.dumps([name, data.name, part_fingerprint(data, "train"), asdict(how.schedule)])
    path = kept_at(how.cache, name, said) if how.cache else None
    if path and (found := kept_tensors(path, said)):
        model.load_state_dict(found[0])
        return model.eval()
    if device == "cpu":
        net = capture(model.eval(), data.image_shape)
        schedule = schedule_within(how.schedule, net, there=memory_there(how.memory_bytes), tell=tell)
        if schedule is not how.schedule:
            return trained(name, data, replace(how, schedule=schedule), tell)
    forward = forward_of(model)
    shapes = [tuple(output.shape) for output in forward(torch.zeros(1, *data.image_shape, device="cpu"))]
    task = task_for(data, shapes, forward)
    partial = path.with_suffix(".partial") if path else None
    fit(model.to(device), data, how.schedule, task=task, checkpoint=partial, tell=tell).cpu()
    if path:
        write_tensors(path, model.state_dict(), {"key": said})
    return model


def untrained(name: str, data: Dataset) -> nn.Module:
    """Return a zoo network for the images and labels of `data`. Raises ModelError where it does not take them."""
    classes = len(data.labels) or ZOO[name].classes
    model = build(name, classes=classes, in_channels=data.image_shape[0]).eval()
    try:
        with torch.no_grad():
            model(torch.zeros(1, *data.image_shape))
    except RuntimeError as error:
        raise ModelError(
            f"{name} is made for images of shape {list(ZOO[name].image_shape)} and cannot take those of "
            f"{data.name}, {list(data.image_shape)}: {str(error).splitlines()[0]}"
        ) from error
    return model.train()


def _check_purpose(name: str, data: Dataset) -> None:
    """Raise ModelError where a network cannot be trained on such data."""
    meant, made_for = getattr(data, "task", "") or CLASSIFICATION, ZOO[name].task
    if meant != made_for:
        raise ModelError(f"{name} is a network for {made_for}, and '{data.name}' is data for {meant}; choose others")
    if not data.labels:
        raise ModelError(f"'{data.name}' has no labels to train {name} on; give its weights with --weights")
