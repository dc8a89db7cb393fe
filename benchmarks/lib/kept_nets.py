"""What benchmarks find once and keep: trained nets, what the evidence says of them, and data that is drawn."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from torch import nn

from slimwright.atomic import replacing
from slimwright.data import PARTS, ArrayData, Dataset, whole
from slimwright.data.streamed import StreamedData
from slimwright.errors import ModelError
from slimwright.graph import Net, load_net, save_net
from slimwright.importers import capture
from slimwright.progress import Tell
from slimwright.tasks import Classification
from slimwright.techniques.prune import Removal
from slimwright.train import Schedule, fit

Arrays: TypeAlias = dict[str, NDArray[Any]]
ORDER, DAMAGE = "order of ", "damage of "


def found_once(place: Path, find: Callable[[], Arrays]) -> Arrays:
    """Return the arrays in the file `place`, or find them and keep them there."""
    try:
        return dict(np.load(place, allow_pickle=False))
    except FileNotFoundError:
        found = find()
    with replacing(place) as path, path.open("wb") as file:
        np.savez(file, **found)  # type: ignore[arg-type]  # names are no options of it
    return found


def as_arrays(orders: Mapping[str, Removal]) -> Arrays:
    """Return removal orders as arrays by name."""
    named = {ORDER + name: removal.order for name, removal in orders.items()}
    return named | {DAMAGE + name: removal.damage for name, removal in orders.items()}


def as_orders(arrays: Arrays) -> dict[str, Removal]:
    """Return the removal orders among some arrays."""
    names = [name.removeprefix(ORDER) for name in arrays if name.startswith(ORDER)]
    return {name: Removal(arrays[ORDER + name], arrays[DAMAGE + name]) for name in names}


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
    fit(model, data, schedule, task=Classification(data.labels), checkpoint=place.with_suffix(".partial"), tell=tell)
    net = capture(model, data.image_shape)
    save_net(net, place)
    return net


def in_memory(data: StreamedData) -> ArrayData:
    """Return the same images in the same order, held."""
    parts = {part: whole(data, part) for part in PARTS}
    return ArrayData(data.name, data.labels, parts, data.preprocessing, data.augment)
