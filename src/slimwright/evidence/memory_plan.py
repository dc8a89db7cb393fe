"""How much memory the sums of a net take, and what to do where there is less: observe classes together, skip layers."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from math import ceil, prod

import torch

from slimwright.cost import AIM, check_memory
from slimwright.errors import RequestError
from slimwright.evidence.sums import Evidence, LayerSums, shapes_of
from slimwright.evidence.windows import MOST_TAPS, groups_of, taps
from slimwright.graph.liveness import image_bytes, weight_bytes
from slimwright.graph.net import Net

ELEMENT = 8  # bytes: all sums are float64
SUMS_BYTES = 2e9
ALIVE_BYTES = 6e8
"""Of values that wait for the backward pass: a batch is observed some images at a time. With half of it a ResNet-50 at
224x224 takes a sixth longer, and twice as much saves 1 % (our measurement of 2026-11-28)."""
AROUND = 1.4  # times the values that wait: gradients and columns beside them (our measurement of 2026-11-29)


@dataclass(frozen=True)
class Portions:
    """Bytes that observing may spend: on sums, and on values that wait for the backward pass."""

    sums: float = SUMS_BYTES
    alive: float = ALIVE_BYTES


def portions_within(net: Net, *, classes: int, batch: int, there: float) -> Portions:
    """Return what observing batches may spend where `there` bytes are there: half and half again, sums first.

    Fewer sums are those of classes together, which add up to the same. Raises RequestError where the sums of all
    classes together, and the values of one image, do not fit.
    """
    one_group, one_image = sum(sums_bytes(net).values()), image_bytes(net)

    def needed(spent: Portions) -> float:
        sums = min(spent.sums, classes * one_group)
        alive = max(min(spent.alive, batch * one_image), one_image)
        return observing_bytes(net, sums, alive)

    spent = Portions()
    while needed(spent) > AIM * there:
        if min(spent.sums, classes * one_group) / 2 >= one_group:
            spent = replace(spent, sums=spent.sums / 2)
        elif min(spent.alive, batch * one_image) / 2 >= one_image:
            spent = replace(spent, alive=spent.alive / 2)
        else:
            break
    check_memory("observing the network", needed(spent), there, "give smaller inputs")
    return spent


def together_within(net: Net, *, batch: int, there: float) -> Portions:
    """Return what observing may spend where only the sum over all classes is wanted: one group holds them all.

    Raises RequestError as `portions_within` does.
    """
    spent = portions_within(net, classes=1, batch=batch, there=there)
    return replace(spent, sums=min(spent.sums, sum(sums_bytes(net).values())))


def observing_bytes(net: Net, sums: float, alive: float) -> float:
    """Return about how many bytes observing takes at its peak, where sums and values that wait take so many."""
    return weight_bytes(net) + sums + AROUND * alive


def sums_bytes(net: Net) -> dict[str, int]:
    """Return how many bytes the sums of each layer take that can be observed, for one group of classes."""
    return _bytes(_shapes(net)[0])


def narrowest(needed: Mapping[str, int], fit: Callable[[Collection[str]], bool]) -> dict[str, int]:
    """Return the layers that are left, with the bytes they need, once the widest went one by one until the rest fit."""
    left = dict(needed)
    while left and not fit(left):
        del left[max(left, key=lambda name: left[name])]
    return left


def _bytes(shapes: Mapping[str, Mapping[str, tuple[int, ...]]]) -> dict[str, int]:
    return {name: ELEMENT * sum(map(prod, of.values())) for name, of in shapes.items()}


def empty_sums(net: Net, *, classes: int, memory_bytes: float) -> Evidence:
    """Return evidence of nothing yet: zeros in as many groups of classes as memory allows, at most one for each class.

    A group holds classes that follow one another. Layers are skipped where they are too wide, where the first dimension
    of what they read is not the images', and, widest first, where not even one group of classes fits into memory.
    Raises RequestError where there are no classes, or memory for no layer.
    """
    if classes < 1:
        raise RequestError(f"images are observed by class, and there are {classes} classes; give 1 or more")
    shapes, skipped = _shapes(net)
    needed = _bytes(shapes)
    smallest = min(needed.values(), default=0)
    if smallest > memory_bytes:
        raise RequestError(f"sums of one layer take {smallest} bytes or more; memory_bytes={memory_bytes:g} is too few")
    left = narrowest(needed, lambda names: sum(needed[name] for name in names) <= memory_bytes)
    for name in sorted(needed.keys() - left, key=lambda name: -needed[name]):
        skipped[name] = f"memory_bytes={memory_bytes:g} has no room for the {needed[name]} bytes of its sums"
    most = int(memory_bytes // max(sum(left.values()), 1))  # groups that fit
    together = ceil(classes / max(most, 1))
    groups = tuple(tuple(range(i, min(i + together, classes))) for i in range(0, classes, together))

    def zeros(dtype: torch.dtype, *shape: int) -> torch.Tensor:
        return torch.zeros(len(groups), *shape, dtype=dtype)

    layers = {
        name: LayerSums(**{role: zeros(torch.float64, *shape) for role, shape in of.items()})
        for name, of in shapes.items()
        if name in left
    }
    images, taylor_images = zeros(torch.int64), zeros(torch.int64)
    return Evidence(net.digest, images, layers, groups, taylor_images, skipped)


def _shapes(net: Net) -> tuple[dict[str, Mapping[str, tuple[int, ...]]], dict[str, str]]:
    """The shapes of each layer's sums for one group of classes, and which layers cannot be observed, and why."""
    shapes: dict[str, Mapping[str, tuple[int, ...]]] = {}
    skipped = {}
    for name, calls in net.layers.items():
        node = net[name]
        if taps(net, node) > MOST_TAPS:
            skipped[node.name] = (
                f"each output reads {taps(net, node)} values, more than the {MOST_TAPS} that are observed"
            )
        elif any(net[net[call].source].shape[:1] != (1,) for call in calls):
            skipped[node.name] = "the first dimension of what it reads is not the images'"
        else:
            inputs = net[node.source].shape[1 if node.op == "conv2d" else -1]
            outputs = net.tensors[node.tensors["weight"]].shape[0]
            shapes[node.name] = shapes_of(groups_of(node), taps(net, node), inputs, outputs)
    return shapes, skipped
