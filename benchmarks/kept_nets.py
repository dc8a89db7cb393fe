"""Nets that are trained once, and kept; data that is read or drawn once."""

from collections.abc import Callable
from pathlib import Path

from torch import nn

from slimwright.data import PARTS, ArrayData, Dataset, whole
from slimwright.data.streamed import StreamedData
from slimwright.errors import ModelError
from slimwright.graph import Net, capture, load_net, save_net
from slimwright.progress import Tell
from slimwright.train import Schedule, fit


def trained_once(
    name: str,
    make: Callable[[], nn.Module],
    data: Dataset,
    schedule: Schedule,
    folder: Path,
    *,
    device: str = "cpu",
    tell: Tell,
) -> Net:
    """Return what `make` builds, trained on `data`; it is kept in `folder`, and a training that was killed goes on."""
    place = folder / f"{name}-{data.name}-{schedule.epochs}".replace(":", "-")
    try:
        return load_net(place)
    except ModelError:
        folder.mkdir(parents=True, exist_ok=True)
    model = make().to(device)
    fit(model, data, schedule, checkpoint=place.with_suffix(".partial"), tell=tell)
    net = capture(model, data.image_shape)
    save_net(net, place)
    return net


def in_memory(data: StreamedData) -> ArrayData:
    """Return the same images in the same order, held."""
    parts = {part: whole(data, part) for part in PARTS}
    return ArrayData(data.name, data.labels, parts, data.preprocessing, data.augment)
