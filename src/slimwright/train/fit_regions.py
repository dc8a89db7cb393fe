"""Train regions of a changed net, one by one, to give what the original gave there. No targets take part.

For each region, front to back, what the *changed* net feeds it and what the *original* gave are computed once for all
images; then the region's weights, and no others, are trained by Adam on

    |f(x') - y|^2 / |y|^2

with a one-cycle rate. This solves what least squares cannot: two layers with something nonlinear between them, such as
a merged branch whose reducer shrank (Li et al. 2018, arXiv 1708.04728). Batch norms keep their statistics, and
dropout is off, so the region is trained as it will run.

Every fifth image is held out. The weights with the least error on those are kept, those of the start included: a
region gets better there or is left alone. (Every fifth, not the last ones: images often lie sorted by class.)

Memory: the two values of one region lie in temporary files that are mapped, 4 bytes per number of x' and y, so
what must fit in memory is a batch. The files go when the region is done.
"""

import hashlib
import json
import math
import tempfile
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, fx, nn

from slimwright.compute import placed, usable
from slimwright.data import Inputs, count_of, fingerprint, moved, taken, tensors_of
from slimwright.errors import DataError
from slimwright.graph.net import Net, Node, without_dead_ends
from slimwright.graph.ops import op_of
from slimwright.kept import kept_tensors, write_tensors
from slimwright.progress import Event, Tell, silent
from slimwright.train.loss import LEAST, Match, check_matches
from slimwright.train.region import Region, part_of
from slimwright.train.schedule import one_cycle
from slimwright.train.ties import tie, tied

HELD_OUT = 5  # every so many images
EXACT = 1e-10  # relative error of float32 rounding: there is nothing to gain below
BATCH = 32  # images that are run without gradients at once


@dataclass(frozen=True)
class RegionSchedule:
    """How to train each region: `rate` is the peak rate of Adam."""

    epochs: int = 40
    rate: float = 1e-2
    batch_size: int = 32
    seed: int = 0


def fit_regions(
    original: Net,
    changed: Net,
    regions: Sequence[Region],
    inputs: Inputs,
    *,
    schedule: RegionSchedule | None = None,
    codes: Mapping[str, Tensor] | None = None,
    device: str = "cpu",
    checkpoint: Path | None = None,
    tell: Tell = silent,
) -> Net:
    """Return `changed` with the weights of `regions` trained on `inputs`, N images; all others keep their bits.

    Regions may share layers; they are taken in the order of their ends. Weights that a node outside of a region uses
    too stay as they are, and weights keep the ties of their `codes` (`ties.py`). `device` computes. `checkpoint` is a
    file to go on from and to write after every region, removed at the end. The same object comes back if no region got
    better.

    Raises RequestError where a region has another way in or out, or does not match the original, or there is no such
    device, and DataError where images are too few or the error at the start is no number.
    """
    schedule = schedule or RegionSchedule()
    usable(device)
    if count_of(inputs) < HELD_OUT:
        raise DataError(f"{count_of(inputs)} images are too few to train on some and hold out others; give {HELD_OUT}")
    check_matches(changed, original, [region.end for region in regions])
    place = {node.name: step for step, node in enumerate(changed.nodes)}
    ordered = sorted(regions, key=lambda region: place[region.end.value])
    for region in ordered:
        part_of(changed, region)  # all are checked before any is trained
    ties = {name: int(code.max()) for name, code in (codes or {}).items()}
    key = _key(original, changed, ordered, inputs, [asdict(schedule), ties]) if checkpoint else ""
    solved, first = _restored(checkpoint, key) if checkpoint else ({}, 0)
    for number, region in enumerate(ordered[first:], first):
        net = changed.edited(tensors=solved) if solved else changed

        def say(epoch: int, note: str, number: int = number) -> None:
            tell(Event("regions", number * schedule.epochs + epoch, len(ordered) * schedule.epochs, note))

        with tempfile.TemporaryDirectory() as folder:
            pair = _Pair.of(original.on(device), net.on(device), region, inputs, Path(folder))
            better = _trained(net.on(device), region, pair, schedule, say, codes=codes or {})
            solved = {**solved, **better}
        if checkpoint and number + 1 < len(ordered):
            _save(checkpoint, key, solved, number + 1)
    if checkpoint:
        checkpoint.unlink(missing_ok=True)
    return changed.edited(tensors=solved) if solved else changed


@dataclass(frozen=True)
class _Pair:
    """What a region reads and what it shall give, for all images; both lie in files."""

    read: Tensor  # [N, ...]
    wanted: Tensor  # [N, ...]
    size: float  # mean square of `wanted`
    device: str  # of the nets; files hold what lies on the processor

    @classmethod
    def of(cls, original: Net, changed: Net, region: Region, inputs: Inputs, folder: Path) -> "_Pair":
        """Run both nets over the images."""
        read = _values(changed, Match("", region.start), inputs, folder / "read")
        wanted = _values(original, region.end, inputs, folder / "wanted")
        square = sum(float(batch.double().square().sum()) for batch in wanted.split(BATCH)) / wanted.numel()
        return cls(read, wanted, max(square, LEAST), changed.device)

    def error(self, module: nn.Module, chosen: Tensor) -> Tensor:
        """Return |module(read) - wanted|^2 / |wanted|^2 over the chosen images."""
        read, wanted = (values[chosen].to(self.device) for values in (self.read, self.wanted))
        with placed(self.device):
            made: Tensor = module(read)
            return (made - wanted).square().mean() / self.size


@torch.no_grad()
def _values(net: Net, match: Match, inputs: Inputs, path: Path) -> Tensor:
    """Return the channels that `match` wants of a value of `net`, as a tensor in the file at `path`."""
    module = without_dead_ends(replace(net, outputs=(match.original,))).to_module()
    values: Tensor | None = None
    for start in range(0, count_of(inputs), BATCH):
        some = moved(taken(inputs, slice(start, start + BATCH)), net.device)
        with placed(net.device):
            made = match.of(module(*tensors_of(some)))
        if values is None:
            shape = (count_of(inputs), *made.shape[1:])
            values = torch.from_numpy(np.memmap(path, np.float32, "w+", shape=shape))
        values[start : start + BATCH] = made
    assert values is not None
    return values


def _trained(
    net: Net,
    region: Region,
    pair: _Pair,
    schedule: RegionSchedule,
    say: Callable[[int, str], None],
    *,
    codes: Mapping[str, Tensor],
) -> dict[str, Tensor]:
    """Return the tensors of a region that got better, by name; none if it did not."""
    part, name = part_of(net, region), region.end.value
    module = part.to_module()
    own = _own(net, part, module)
    every = torch.arange(len(pair.read))
    held, train = every[HELD_OUT - 1 :: HELD_OUT], every[every % HELD_OUT != HELD_OUT - 1]
    start = least = _held_out_error(pair, module, held)
    if not math.isfinite(start):
        raise DataError(f"what '{name}' gives, or shall give, holds NaN or infinite values")
    if start < EXACT or not own:
        say(schedule.epochs, f"{name}: relative error {start:.3g}, left as it is")
        return {}
    best: dict[str, Tensor] = {}
    for tensor in codes.keys() & own.keys():
        tie(own[tensor], codes[tensor])
    optimizer = torch.optim.Adam(own.values(), schedule.rate)
    generator = torch.Generator().manual_seed(schedule.seed)
    for epoch in range(schedule.epochs):
        batches = train[torch.randperm(len(train), generator=generator)].split(schedule.batch_size)
        for step, chosen in enumerate(batches):
            for group in optimizer.param_groups:
                group["lr"] = schedule.rate * one_cycle((epoch + step / len(batches)) / schedule.epochs)
            optimizer.zero_grad()
            with placed(pair.device):
                pair.error(module, chosen).backward()
            optimizer.step()
        error = _held_out_error(pair, module, held)
        if error < least:
            least, best = error, {tensor: p.detach().to("cpu", copy=True) for tensor, p in own.items()}
            best |= {tensor: tied(best[tensor], codes[tensor]) for tensor in codes.keys() & own.keys()}
        say(epoch + 1, f"{name}: relative error {start:.3g}, now {least:.3g}")
    return best


@torch.no_grad()
def _held_out_error(pair: _Pair, module: nn.Module, held: Tensor) -> float:
    return sum(float(pair.error(module, some)) * len(some) for some in held.split(BATCH)) / len(held)


def _own(net: Net, part: Net, module: fx.GraphModule) -> dict[str, nn.Parameter]:
    """The parameters that a region alone uses, in one place, by tensor; all others of the module are frozen."""
    inside = {node.name for node in part.nodes[1:]}

    def elsewhere(node: Node) -> bool:
        lent = op_of(node.op).channels == "parameter" and not inside.issuperset(net.readers[node.name])
        return lent or node.name not in inside

    outside = {tensor for node in net.nodes if elsewhere(node) for tensor in node.tensors.values()}
    keys = defaultdict[str, set[str]](set)
    for node in part.nodes:
        for role, tensor in node.tensors.items():
            keys[tensor].add(part.key(node, role))
    alone = {key: tensor for tensor, (key, *more) in keys.items() if not more and tensor not in outside}
    own = {}
    for key, parameter in module.named_parameters():
        parameter.requires_grad_(key in alone)
        if key in alone:
            own[alone[key]] = parameter
    return own


def _key(original: Net, changed: Net, regions: Sequence[Region], inputs: Inputs, how: object) -> str:
    """What must agree for a checkpoint to belong to this work."""
    said = [original.digest, changed.digest, fingerprint((inputs, taken(inputs, slice(0)))), how]
    return hashlib.sha256(json.dumps([said, [asdict(region) for region in regions]]).encode()).hexdigest()


def _save(path: Path, key: str, solved: Mapping[str, Tensor], done: int) -> None:
    write_tensors(path, solved, {"key": key, "done": str(done)})


def _restored(path: Path, key: str) -> tuple[dict[str, Tensor], int]:
    """Return the tensors solved so far and the number of regions done, of a checkpoint of this very work."""
    found = kept_tensors(path, key)
    return (found[0], int(found[1]["done"])) if found else ({}, 0)
