"""One pass over calibration images: forward, twice backward, and sums of what each layer reads.

The task says which class's sums an image adds to, whose loss the Taylor scores differentiate, and what targets are
drawn from the outputs' own distribution for the Fisher information, by numbers that depend on the seed and the batch's
place alone. Nodes are computed one by one: what a layer that is called several times reads at each call adds up.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from math import ceil
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from slimwright.compute import placed, usable
from slimwright.data import Batch, Inputs, Targets, count_of, taken, tensors_of
from slimwright.errors import DataError
from slimwright.evidence.memory_plan import ALIVE_BYTES, SUMS_BYTES, empty_sums
from slimwright.evidence.store import Checkpoint
from slimwright.evidence.sums import Evidence, LayerSums
from slimwright.evidence.windows import MANY, add_moments, by_channel, positions
from slimwright.graph.liveness import image_bytes
from slimwright.graph.net import Net, Node, compute
from slimwright.graph.ops import op_of
from slimwright.progress import Event, Tell, silent
from slimwright.tasks import Outputs, Task


@dataclass(frozen=True)
class Asked:
    """All that the sums depend on, but for the net and the images."""

    task: Task
    seed: int = 0
    taylor: bool = True
    memory_bytes: float = SUMS_BYTES
    share: tuple[int, int] = (0, 1)
    device: str = "cpu"
    alive_bytes: float = ALIVE_BYTES

    def key(self, net: Net) -> str:
        """Return what must agree for a checkpoint to belong to a pass; the images are told apart by what they hold."""
        said = [net.digest, repr(self.task), self.seed, self.taylor, self.memory_bytes, self.share, self.device]
        said += [] if self.alive_bytes == ALIVE_BYTES else [self.alive_bytes]
        return hashlib.sha256(json.dumps(said).encode()).hexdigest()


def observe(
    net: Net,
    batches: Iterable[Batch],
    *,
    task: Task,
    seed: int = 0,
    images: int = 0,
    taylor: bool = True,
    memory_bytes: float = SUMS_BYTES,
    alive_bytes: float = ALIVE_BYTES,
    share: tuple[int, int] = (0, 1),
    device: str = "cpu",
    checkpoint: Path | None = None,
    tell: Tell = silent,
) -> Evidence:
    """Run the images through the net once and return the sums by class, on the CPU.

    `images` is how many there are, for progress. Without `taylor` one of two backward passes is saved. Sums take no
    more than `memory_bytes`: where that is too little for each class, classes are observed together. Values that wait
    for the backward pass take no more than `alive_bytes`, or those of one image. A `share` (i, n)
    is every n-th batch from the i-th on; the `merged` evidence of all n shares is that of the whole. `device` computes;
    it must know float64. Where `checkpoint` is a path, sums so far are kept there until the end, and a pass that was
    killed goes on from them. Raises DataError where there are no images, or targets that do not fit the task or the
    outputs, and RequestError where there is no such device.
    """
    asked = Asked(task, seed, taylor, memory_bytes, share, usable(device), alive_bytes)
    if taylor:
        check_outputs(net, task)
    kept = Checkpoint(checkpoint, asked.key(net))
    sums = kept.sums or empty_sums(net, classes=len(task.classes), memory_bytes=memory_bytes)
    observer = Observer(net.on(device), sums.on(device), asked)

    def told() -> None:
        done = int(observer.sums.images.sum())
        tell(Event("observe", done, max(images, done)))

    start, step = share
    for number, (inputs, targets) in islice(enumerate(batches), start, None, step):
        if kept.holds((inputs, targets)):
            told()
        else:
            observer.add(number, inputs, targets, told)
            kept.keep(observer.sums)
    kept.ended()
    if not int(observer.sums.images.sum()):
        raise DataError("there are no calibration images to observe")
    kept.remove()
    return observer.sums.on("cpu")


class Observer:
    """A net on its device, and the sums that grow with each batch."""

    def __init__(self, net: Net, sums: Evidence, asked: Asked) -> None:
        self.net, self.sums, self.asked = net, sums, asked
        self.modules = layers_of(net)
        self.last = last_reads(net)
        self.groups = groups_by_class(sums.groups)
        self.at_once = max(int(asked.alive_bytes // image_bytes(net)), 1)  # images
        self.drawn = False  # whether the loss on its way back is that of drawn targets, or of the true ones
        self.held: dict[tuple[str, int], list[Tensor]] = {}  # by call and class group: what it read, not yet summed

    def add(self, number: int, inputs: Inputs, targets: Targets, told: Callable[[], None]) -> None:
        """Add a batch to the sums, class group by class group, a few images at a time, and tell after each."""
        count = count_of(inputs)
        if not count:
            return
        classes = self.asked.task.class_of(targets)
        if int(classes.min()) < 0 or int(classes.max()) >= len(self.groups):
            raise DataError(
                f"labels run from {int(classes.min())} to {int(classes.max())}; there are {len(self.groups)} classes"
            )
        numbers = torch.from_numpy(np.random.default_rng([self.asked.seed, number]).random(count))
        groups = self.groups[classes]
        size = ceil(count / ceil(count / self.at_once))
        for some in torch.argsort(groups, stable=True).split(size):
            chosen = [tensor[some].detach().to(self.asked.device) for tensor in tensors_of(inputs)]
            with torch.enable_grad(), placed(self.asked.device):
                self._add(chosen, taken(targets, some), groups[some], numbers[some])
            told()
        for name, group in [*self.held]:
            self._add_held(name, group)

    def _add(self, inputs: Sequence[Tensor], targets: Targets, groups: Tensor, numbers: Tensor) -> None:
        """Add a few images, sorted by their class `groups` [N]; `numbers` [N] in 0..1 draw targets."""
        task, taylor = self.asked.task, self.asked.taylor
        for tensor in inputs:
            tensor.requires_grad_(taylor and tensor.is_floating_point())
        outputs = self._outputs(inputs, groups.to(inputs[0].device))
        if not all(bool(torch.isfinite(output).all()) for output in outputs):
            raise DataError("the net's outputs for some images are NaN or infinite; check the images and the weights")
        seen = torch.bincount(groups, minlength=len(self.sums.groups)).to(inputs[0].device)
        self.sums.images.add_(seen)
        if taylor:
            self.sums.taylor_images.add_(seen)
        if not any(output.requires_grad for output in outputs):
            return
        self.drawn = True
        task.drawn_loss(outputs, numbers).backward(retain_graph=taylor)
        if taylor:
            self.drawn = False
            task.loss(outputs, targets).sum().backward()

    def _outputs(self, inputs: Sequence[Tensor], groups: Tensor) -> Outputs:
        """Run the net, look at each layer on the way, and return its outputs."""
        names = (node.name for node in self.net.nodes if node.op == "input")
        values = dict(zip(names, inputs, strict=True))
        for step, node in enumerate(self.net.nodes):
            if node.op != "input":
                made = compute(self.net, node, self.modules.get(node.name), values.__getitem__)
                if self.net.layer_called.get(node.name) in self.sums.layers:
                    self._look_at(node, values[node.source], made, groups)
                values[node.name] = made
            for name in {node.name, *node.reads}:
                if self.last[name] <= step:
                    del values[name]
        return tuple(values[name] for name in self.net.outputs)

    def _look_at(self, node: Node, read: Tensor, made: Tensor, groups: Tensor) -> None:
        """Add what one layer reads, and listen for the gradients of what it reads and makes."""
        sums, x = self._sums_of(node.name), read.detach()
        values = by_channel(node, x)  # [N, C, places]
        found, counts = (t.tolist() for t in groups.unique_consecutive(return_counts=True))
        for group, some in zip(found, x.split(counts), strict=True):
            held = self.held.setdefault((node.name, group), [])
            held.append(some)
            if positions(node) * sum(map(len, held)) >= MANY:
                self._add_held(node.name, group)
            sums.places[group] += len(some) * values.shape[2]
        sums.magnitude.index_add_(0, groups, torch.linalg.vector_norm(values, 1, dim=2).double())
        sums.zeros.index_add_(0, groups, values.eq(0).sum(2, dtype=torch.int32).double())

        def add_fisher(gradient: Tensor) -> None:
            if self.drawn:
                of = by_channel(node, gradient)  # [N, O, positions]
                sums.fisher.index_add_(0, groups, torch.linalg.vecdot(of, of).double())

        def add_taylor(gradient: Tensor) -> None:
            if not self.drawn:
                change = torch.linalg.vecdot(values, by_channel(node, gradient))  # [N, C]
                sums.taylor.index_add_(0, groups, change.abs().double())

        if not made.requires_grad:
            made.requires_grad_()  # the first layer: nothing before it has a gradient
        made.register_hook(add_fisher)
        if read.requires_grad and self.asked.taylor:
            read.register_hook(add_taylor)

    def _add_held(self, name: str, group: int) -> None:
        """Add the moments of what a layer read since they were last added: a wide Gram matrix is touched seldom."""
        sums, read = self._sums_of(name), torch.cat(self.held.pop((name, group)))
        sums.count[group] += add_moments(self.net, self.net[name], read, total=sums.total[group], gram=sums.gram[group])

    def _sums_of(self, call: str) -> LayerSums:
        """The sums of the layer that a node calls."""
        return self.sums.layers[self.net.layer_called[call]]


def check_outputs(net: Net, task: Task) -> None:
    """Raise DataError where the net's outputs have no loss by the task."""
    try:
        task.check([net[name].shape for name in net.outputs])
    except DataError as error:
        raise DataError(f"{error}; or observe without taylor") from error


def layers_of(net: Net) -> dict[str, nn.Module]:
    """Return the layer of each node that has one; its weights take no gradients."""
    return {node.name: net.module_of(node).requires_grad_(False) for node in net.nodes if op_of(node.op).module}


def last_reads(net: Net) -> dict[str, int]:
    """Return the last step that reads each value; what the net returns is read after all steps."""
    last = {name: step for step, node in enumerate(net.nodes) for name in (node.name, *node.reads)}
    return last | dict.fromkeys(net.outputs, len(net.nodes))


def groups_by_class(groups: Sequence[Sequence[int]]) -> Tensor:
    """Return the group [K] of each of K classes."""
    found = torch.empty(sum(map(len, groups)), dtype=torch.int64)
    for place, group in enumerate(groups):
        found[list(group)] = place
    return found
