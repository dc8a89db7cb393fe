"""How a training run survives a kill.

A checkpoint holds all that the run carries: the weights, the momenta, the moving average, the best weights so far, the
last good ones, which weights are zero for good, and the time spent. It belongs to the run whose key it bears, which
covers the weights that the run began with, the task and the teacher's weights.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, is_dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from slimwright.data import Dataset
from slimwright.kept import kept_tensors, write_tensors
from slimwright.tasks import Task
from slimwright.train.run import Best, Good, Run
from slimwright.train.schedule import Schedule


def key_of(model: nn.Module, data: Dataset, schedule: Schedule, *, task: Task, teacher: nn.Module | None) -> str:
    """Return what must agree for a checkpoint to belong to a run."""
    aim = repr(task) if is_dataclass(task) else task.name
    said = [data.name, data.size("train"), asdict(schedule), aim]
    hasher = hashlib.sha256(json.dumps(said, sort_keys=True).encode())
    for module in (model, teacher):
        hasher.update(str(module).encode())
        for name, tensor in (module.state_dict() if module else {}).items():
            hasher.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
            hasher.update(tensor.cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return hasher.hexdigest()


def save(run: Run, path: Path, key: str) -> None:
    """Write all that the run carries to `path`, replaced at once."""
    tensors = {f"model.{name}": t for name, t in run.model.state_dict().items()}
    tensors |= {f"best.{name}": t for name, t in run.best.weights.items()}
    tensors |= {f"average.{name}": t for name, t in (run.average.state_dict() if run.average else {}).items()}
    tensors |= {f"thinning.{name}": t for name, t in (run.thinning.state() if run.thinning else {}).items()}
    if run.good.epoch != run.epoch:  # else they are the model's
        tensors |= {f"good.{name}": t for name, t in run.good.weights.items()}
    for name, parameter in run.model.named_parameters():
        momentum = run.optimizer.state[parameter].get("momentum_buffer")
        if momentum is not None:
            tensors[f"momentum.{name}"] = momentum
    numbers = {
        "epoch": run.epoch,
        "spent_s": run.clock.spent_s,
        "best_loss": run.best.loss,
        "best_epoch": run.best.epoch,
        "good_epoch": run.good.epoch,
        "first_loss": run.first_loss,
        "halvings": run.halvings,
    }
    write_tensors(path, tensors, {"key": key, **{name: repr(number) for name, number in numbers.items()}})


def restore(run: Run, path: Path, key: str) -> None:
    """Let the run go on from `path`, if that is a checkpoint of this very run."""
    found = kept_tensors(path, key)
    if found is None:
        return
    tensors, said = found
    run.model.load_state_dict(_under("model.", tensors))
    if run.average:
        run.average.load_state_dict(_under("average.", tensors))
    if run.thinning:
        run.thinning.restore(_under("thinning.", tensors))
    momenta = _under("momentum.", tensors)
    for name, parameter in run.model.named_parameters():
        if name in momenta:
            run.optimizer.state[parameter]["momentum_buffer"] = momenta[name].to(parameter.device)
    run.epoch, run.clock.spent_s = int(said["epoch"]), float(said["spent_s"])
    run.first_loss, run.halvings = float(said["first_loss"]), int(said["halvings"])
    good = _under("good.", tensors)
    run.good = Good(good, int(said["good_epoch"])) if good else Good.of(run.model, run.epoch)
    run.best = Best(_under("best.", tensors), float(said["best_loss"]), int(said["best_epoch"]))


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
