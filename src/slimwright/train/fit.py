"""Train a network, or tune one after it was changed, with an optional teacher.

Plain SGD with Nesterov momentum and a one-cycle rate: linear warm-up over the first fifth, cosine to zero. With a
teacher the loss is (1-a) CE(labels) + a T^2 KL(teacher_T || student_T) (Hinton et al. 2015, arXiv 1503.02531, sec. 2).
Each epoch draws its randomness from (seed, epoch), so a run that was killed goes on from its last whole epoch and
ends with the same weights as one that was not.
"""

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from slimwright.data import Dataset, Part
from slimwright.errors import DataError
from slimwright.graph.store import replacing
from slimwright.progress import Event, Tell, silent


@dataclass(frozen=True)
class Schedule:
    """How to train. `rate` is the peak learning rate; `teacher_share` is `a` above."""

    epochs: int = 16
    rate: float = 0.1
    batch_size: int = 32
    weight_decay: float = 5e-4
    momentum: float = 0.9
    label_smoothing: float = 0.05
    temperature: float = 4.0
    teacher_share: float = 0.9
    seed: int = 0


def fit(
    model: nn.Module,
    data: Dataset,
    schedule: Schedule,
    *,
    teacher: nn.Module | None = None,
    checkpoint: Path | None = None,
    tell: Tell = silent,
) -> nn.Module:
    """Train `model` in place on the train part and return it in eval mode.

    `checkpoint` is a file to go on from and to write after every epoch; it is removed at the end. Raises DataError
    where the loss stops being a number.
    """
    optimizer = torch.optim.SGD(
        model.parameters(), schedule.rate, schedule.momentum, weight_decay=schedule.weight_decay, nesterov=True
    )
    key = _key(model, data, schedule)
    first = _restored(model, optimizer, checkpoint, key) if checkpoint else 0
    steps = math.ceil(data.size("train") / schedule.batch_size)
    for epoch in range(first, schedule.epochs):
        model.train()
        torch.manual_seed(schedule.seed * 100_003 + epoch)  # dropout
        for step, (images, labels) in enumerate(
            data.batches("train", schedule.batch_size, seed=schedule.seed * 100_003 + epoch)
        ):
            for group in optimizer.param_groups:
                group["lr"] = schedule.rate * one_cycle((epoch * steps + step) / (schedule.epochs * steps))
            loss = loss_of(model, images, labels, schedule, teacher)
            if not math.isfinite(loss.item()):
                raise DataError(
                    f"the training loss is {loss.item()} in epoch {epoch + 1}; "
                    f"lower the rate ({schedule.rate}) or check the data"
                )
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        tell(Event("train", epoch + 1, schedule.epochs, f"loss {loss.item():.3f}"))
        if checkpoint and epoch + 1 < schedule.epochs:
            _save(model, optimizer, checkpoint, key, epoch + 1)
    if checkpoint:
        checkpoint.unlink(missing_ok=True)
    return model.eval()


def loss_of(model: nn.Module, images: Tensor, labels: Tensor, schedule: Schedule, teacher: nn.Module | None) -> Tensor:
    """Return the mean loss of one batch."""
    scores = model(images)
    hard = F.cross_entropy(scores, labels, label_smoothing=0 if teacher else schedule.label_smoothing)
    if teacher is None:
        return hard
    with torch.no_grad():
        target = F.log_softmax(teacher(images) / schedule.temperature, dim=1)
    student = F.log_softmax(scores / schedule.temperature, dim=1)
    soft = F.kl_div(student, target, reduction="batchmean", log_target=True) * schedule.temperature**2
    return (1 - schedule.teacher_share) * hard + schedule.teacher_share * soft


def one_cycle(done: float, warm_up: float = 0.2) -> float:
    """Return the share of the peak rate at `done` in 0..1 of the run."""
    if done < warm_up:
        return max(done / warm_up, 0.01)
    return 0.5 * (1 + math.cos(math.pi * (done - warm_up) / (1 - warm_up)))


def accuracy(model: nn.Module, data: Dataset, part: Part) -> float:
    """Return the share of a part that the model, in eval mode, gets right: 0 to 1."""
    model.eval()
    right = 0
    with torch.no_grad():
        for images, labels in data.batches(part, 128):
            right += int((model(images).argmax(1) == labels).sum())
    return right / data.size(part)


def _key(model: nn.Module, data: Dataset, schedule: Schedule) -> str:
    """What must agree for a checkpoint to belong to this run."""
    shapes = {name: list(t.shape) for name, t in model.state_dict().items()}
    said = json.dumps([shapes, data.name, data.size("train"), asdict(schedule)], sort_keys=True)
    return hashlib.sha256(said.encode()).hexdigest()


def _save(model: nn.Module, optimizer: torch.optim.SGD, path: Path, key: str, epoch: int) -> None:
    tensors = {f"model.{name}": t.contiguous() for name, t in model.state_dict().items()}
    for name, parameter in model.named_parameters():
        momentum = optimizer.state[parameter].get("momentum_buffer")
        if momentum is not None:
            tensors[f"momentum.{name}"] = momentum.contiguous()
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        safetensors.torch.save_file(tensors, temporary, {"key": key, "epoch": str(epoch)})


def _restored(model: nn.Module, optimizer: torch.optim.SGD, path: Path, key: str) -> int:
    """Load a checkpoint of this very run, if there is one; return the epochs that are done."""
    try:
        with safetensors.safe_open(path, "pt") as file:
            metadata: Mapping[str, str] = file.metadata() or {}
            if metadata.get("key") != key:
                return 0
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (FileNotFoundError, safetensors.SafetensorError):
        return 0
    model.load_state_dict({k.removeprefix("model."): t for k, t in tensors.items() if k.startswith("model.")})
    for name, parameter in model.named_parameters():
        if f"momentum.{name}" in tensors:
            optimizer.state[parameter]["momentum_buffer"] = tensors[f"momentum.{name}"]
    return int(metadata["epoch"])
