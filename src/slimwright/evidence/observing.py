"""One pass over calibration images: forward, twice backward, and sums of what each layer reads.

Labels choose the class whose sums an image adds to, and the loss whose gradient the Taylor scores take. For the Fisher
information labels are drawn from the network's own scores, by numbers that depend on the seed and the batch's place
alone. Nodes are computed one by one, so that a layer which is called twice is seen twice.
"""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from itertools import islice
from math import ceil, prod
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from slimwright.compute import placed, usable
from slimwright.data import Batch
from slimwright.errors import DataError
from slimwright.evidence.room import room
from slimwright.evidence.store import Checkpoint
from slimwright.evidence.sums import Evidence
from slimwright.evidence.windows import add_moments, by_channel
from slimwright.graph.net import Net, Node, compute
from slimwright.graph.ops import op_of
from slimwright.progress import Event, Tell, silent

MEMORY_BYTES = 2e9  # of sums
ALIVE_BYTES = 3e8  # of values that wait for the backward pass: a batch is observed some images at a time; more is no
# faster (our measurement of 2026-11-21, MobileNetV2 and ResNet-18 at 224x224)


@dataclass(frozen=True)
class Asked:
    """All that the sums depend on, but for the net and the images."""

    classes: int
    seed: int = 0
    taylor: bool = True
    memory_bytes: float = MEMORY_BYTES
    share: tuple[int, int] = (0, 1)
    device: str = "cpu"


def observe(
    net: Net,
    batches: Iterable[Batch],
    *,
    classes: int,
    seed: int = 0,
    images: int = 0,
    taylor: bool = True,
    memory_bytes: float = MEMORY_BYTES,
    share: tuple[int, int] = (0, 1),
    device: str = "cpu",
    checkpoint: Path | None = None,
    tell: Tell = silent,
) -> Evidence:
    """Run the images through the net once and return the sums by class, on the CPU.

    `images` is how many there are, for progress. Without `taylor` one of two backward passes is saved. Sums take no
    more than `memory_bytes`: where that is too little for each class, classes are observed together. A `share` (i, n)
    is every n-th batch from the i-th on; the `merged` evidence of all n shares is that of the whole. `device` computes;
    it must know float64. Where `checkpoint` is a path, sums so far are kept there until the end, and a pass that was
    killed goes on from them. Raises DataError where there are no images, or labels beyond the classes or the scores,
    and RequestError where there is no such device.
    """
    asked = Asked(classes, seed, taylor, memory_bytes, share, usable(device))
    kept = Checkpoint(checkpoint, key_of(net, asked))
    found = observed(net, batches, asked, kept, images=images, tell=tell)
    if not int(found.images.sum()):
        raise DataError("there are no calibration images to observe")
    kept.remove()
    return found


def key_of(net: Net, asked: Asked) -> str:
    """What must agree for a checkpoint to belong to a pass; the images are told apart by what they hold."""
    return hashlib.sha256(json.dumps([net.digest, asdict(asked)]).encode()).hexdigest()


def observed(
    net: Net, batches: Iterable[Batch], asked: Asked, kept: Checkpoint, *, images: int = 0, tell: Tell = silent
) -> Evidence:
    """Return the sums of a share of the batches, on the CPU; none if there are no images in it."""
    sums = kept.sums or room(net, classes=asked.classes, memory_bytes=asked.memory_bytes)
    sums = sums.on(asked.device)
    look = _Look(net, asked, sums)
    start, step = asked.share
    for number, batch in islice(enumerate(batches), start, None, step):
        if not kept.holds(batch):
            look.add(number, *batch)
            kept.keep(sums)
        done = int(sums.images.sum())
        tell(Event("observe", done, max(images, done)))
    kept.ended()
    return sums.on("cpu")


class _Look:
    """A net on its device, and the sums that grow."""

    def __init__(self, net: Net, asked: Asked, sums: Evidence) -> None:
        scores = net[net.outputs[0]].shape
        if len(scores) != 2:
            raise DataError(
                f"the net gives {list(scores)} for an image; scores of classes, [1, classes], can be observed"
            )
        if asked.taylor and asked.classes > scores[1]:
            raise DataError(
                f"the net gives {scores[1]} scores, by which images of {asked.classes} classes have no loss; observe "
                "without taylor"
            )
        self.asked, self.sums = asked, sums
        self.net = net.on(asked.device)
        self.modules = {
            n.name: self.net.module_of(n).requires_grad_(False) for n in net.nodes if op_of(n.op).module is not None
        }
        self.last = {name: step for step, node in enumerate(net.nodes) for name in (node.name, *node.reads)}
        self.last[net.outputs[0]] = len(net.nodes)
        self.group = torch.empty(asked.classes, dtype=torch.int64)  # of each class
        for place, group in enumerate(sums.groups):
            self.group[list(group)] = place
        image_bytes = 4 * sum(prod(node.shape) for node in net.nodes)
        self.at_once = max(int(ALIVE_BYTES // image_bytes), 1)  # images
        self.taught = False  # which of the two losses is on its way back: that of true labels, or of drawn ones

    def add(self, number: int, images: Tensor, labels: Tensor) -> None:
        """Add a batch to the sums, class group by class group, a few images at a time."""
        if not len(labels):
            return
        if int(labels.min()) < 0 or int(labels.max()) >= self.asked.classes:
            raise DataError(
                f"labels run from {int(labels.min())} to {int(labels.max())}; there are {self.asked.classes} classes"
            )
        numbers = torch.from_numpy(np.random.default_rng([self.asked.seed, number]).random(len(labels)))
        order = torch.argsort(self.group[labels], stable=True)
        size = ceil(len(labels) / ceil(len(labels) / self.at_once))
        for some in order.split(size):
            with torch.enable_grad(), placed(self.asked.device):
                self._add(images[some].detach().to(self.asked.device), labels[some], numbers[some])

    def _add(self, images: Tensor, labels: Tensor, numbers: Tensor) -> None:
        """Add a few images, sorted by class group; `numbers` [N] in 0..1 draw the labels."""
        groups = self.group[labels]
        scores = self._scores(images.requires_grad_(self.asked.taylor), groups.to(images.device))
        if not bool(torch.isfinite(scores).all()):
            raise DataError("the net's scores for some images are NaN or infinite; check the images and the weights")
        seen = torch.bincount(groups, minlength=len(self.sums.groups)).to(images.device)
        self.sums.images.add_(seen)
        if self.asked.taylor:
            self.sums.taylor_images.add_(seen)
        if scores.requires_grad:
            likely = scores.detach().cpu().double().softmax(1).cumsum(1)
            drawn = (likely < numbers[:, None]).sum(1).clamp_max(scores.shape[1] - 1)
            self.taught = False
            F.cross_entropy(scores, drawn.to(scores.device), reduction="sum").backward(retain_graph=self.asked.taylor)
        if scores.requires_grad and self.asked.taylor:
            self.taught = True
            F.cross_entropy(scores, labels.to(scores.device), reduction="sum").backward()

    def _scores(self, images: Tensor, groups: Tensor) -> Tensor:
        """Run the net, look at each layer on the way, and return the scores."""
        values = {self.net.input.name: images}
        for step, node in enumerate(self.net.nodes):
            if node.op != "input":
                made = compute(self.net, node, self.modules.get(node.name), values.__getitem__)
                if node.name in self.sums.layers:
                    self._look_at(node, values[node.source], made, groups)
                values[node.name] = made
            for name in {node.name, *node.reads}:
                if self.last[name] <= step:
                    del values[name]
        return values[self.net.outputs[0]]

    def _look_at(self, node: Node, read: Tensor, made: Tensor, groups: Tensor) -> None:
        """Add what one layer reads, and listen for the gradients of what it reads and makes."""
        sums, x = self.sums.layers[node.name], read.detach()
        values = by_channel(node, x)  # [N, C, places]
        found, counts = (t.tolist() for t in groups.unique_consecutive(return_counts=True))
        for group, some in zip(found, x.split(counts), strict=True):
            sums.count[group] += add_moments(self.net, node, some, total=sums.total[group], gram=sums.gram[group])
            sums.places[group] += len(some) * values.shape[2]
        sums.magnitude.index_add_(0, groups, torch.linalg.vector_norm(values, 1, dim=2).double())
        sums.zeros.index_add_(0, groups, values.eq(0).sum(2, dtype=torch.int32).double())

        def add_fisher(gradient: Tensor) -> None:
            if not self.taught:
                of = by_channel(node, gradient)  # [N, O, positions]
                sums.fisher.index_add_(0, groups, torch.linalg.vecdot(of, of).double())

        def add_taylor(gradient: Tensor) -> None:
            if self.taught:
                change = torch.linalg.vecdot(values, by_channel(node, gradient))  # [N, C]
                sums.taylor.index_add_(0, groups, change.abs().double())

        if not made.requires_grad:
            made.requires_grad_()  # the first layer: nothing before it has a gradient
        made.register_hook(add_fisher)
        if read.requires_grad and self.asked.taylor:
            read.register_hook(add_taylor)
