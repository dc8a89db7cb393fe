"""What a bottleneck is made from: the moments of values on their way to the server, and what errors in them cost.

A value [N, C, H, W] is seen as patches of p x p places, each a vector of C p^2 numbers; a value [N, C] is one such
vector. Of these vectors x the mean, the covariance, and the Fisher information E[g g^T] are taken, where g is the
gradient of the loss against targets that are drawn from the net's own outputs (Martens 2020, arXiv 1412.1193). An error
e of a patch then costs about e^T F e / 2 nats.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import gcd

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from slimwright.data import Batch, count_of, tensors_of
from slimwright.errors import DataError
from slimwright.graph.net import Net, compute
from slimwright.graph.ops import op_of
from slimwright.progress import Event, Tell, silent
from slimwright.tasks import Task

MOST_WIDTH = 512  # numbers of a patch
STAGE = "look at cuts"


@dataclass(frozen=True)
class Moments:
    """Of the patches [D] of one value: mean [D], covariance [D, D], and Fisher information [D, D], in float64."""

    patch: int
    mean: Tensor
    covariance: Tensor
    fisher: Tensor


def patch_of(shape: Sequence[int], images: int) -> int:
    """Return the side of the largest square patches into which a value can be parted, and of which enough are seen."""
    if len(shape) == 2:
        return 1
    _, channels, height, width = shape
    sides = [side for side in range(1, gcd(height, width) + 1) if gcd(height, width) % side == 0]
    seen = [
        side
        for side in sides
        if channels * side**2 <= MOST_WIDTH and images * height * width // side**2 >= 2 * channels * side**2
    ]
    return max(seen, default=1)


def patches(value: Tensor, patch: int) -> Tensor:
    """Return a value [N, C, H, W] as its patches [N H/p W/p, C p p], a value [N, C] as it is."""
    if value.ndim == 2:
        return value
    return F.unfold(value, patch, stride=patch).transpose(1, 2).flatten(0, 1)


def moments(
    net: Net,
    names: Iterable[str],
    batches: Iterable[Batch],
    task: Task,
    *,
    images: int,
    seed: int = 0,
    tell: Tell = silent,
) -> dict[str, Moments]:
    """Return the moments of the values of these names over `images` images. Raises DataError where there are none."""
    sums = {name: _Sums.empty(net, name, images) for name in dict.fromkeys(names)}
    modules = {n.name: net.module_of(n).requires_grad_(False) for n in net.nodes if op_of(n.op).module is not None}
    done = 0
    for number, (inputs, _) in enumerate(batches):
        tell(Event(STAGE, done, images))
        count = min(count_of(inputs), images - done)
        numbers = torch.from_numpy(np.random.default_rng([seed, number]).random(count))
        values, outputs = _values(net, modules, [one[:count] for one in tensors_of(inputs)], sums)
        wanted = list(values.values())
        gradients = torch.autograd.grad(task.drawn_loss(outputs, numbers), wanted, materialize_grads=True)
        for (name, value), gradient in zip(values.items(), gradients, strict=True):
            sums[name].add(value.detach(), gradient)
        done += count
        if done >= images:
            break
    tell(Event(STAGE, images, images))
    if not done:
        raise DataError("there are no calibration images, from which a bottleneck is made")
    return {name: one.moments for name, one in sums.items()}


def _values(
    net: Net, modules: Mapping[str, torch.nn.Module], inputs: Sequence[Tensor], wanted: Iterable[str]
) -> tuple[dict[str, Tensor], tuple[Tensor, ...]]:
    """The wanted values and the outputs, with what gradients need."""
    values = dict(zip((node.name for node in net.inputs), inputs, strict=True))
    with torch.enable_grad():
        for node in net.nodes:
            if node.op == "input":
                continue
            made = compute(net, node, modules.get(node.name), values.__getitem__)
            values[node.name] = made
            if node.name in wanted and not made.requires_grad:
                values[node.name] = made.detach().requires_grad_()
    return {name: values[name] for name in wanted}, tuple(values[name] for name in net.outputs)


@dataclass
class _Sums:
    patch: int
    count: int
    total: Tensor
    square: Tensor
    fisher: Tensor

    @classmethod
    def empty(cls, net: Net, name: str, images: int) -> "_Sums":
        shape = net[name].shape
        patch = patch_of(shape, images)
        width = shape[1] * patch**2
        zeros = (torch.zeros(width, width, dtype=torch.float64) for _ in range(2))
        return cls(patch, 0, torch.zeros(width, dtype=torch.float64), *zeros)

    def add(self, value: Tensor, gradient: Tensor) -> None:
        x, g = patches(value, self.patch), patches(gradient, self.patch)
        self.count += len(x)
        self.total += x.double().sum(0)
        self.square += (x.T @ x).double()
        self.fisher += (g.T @ g).double()

    @property
    def moments(self) -> Moments:
        mean = self.total / self.count
        covariance = self.square / self.count - mean[:, None] * mean
        return Moments(self.patch, mean, covariance, self.fisher / self.count)
