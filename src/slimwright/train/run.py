"""What a training run carries from step to step, and how it survives a kill.

A checkpoint holds all of it: the weights, the momenta, the moving average, the best weights so far and the time spent.
It belongs to the run whose key it bears, which covers the weights that the run began with, and the teacher's.
"""

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from time import monotonic

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.swa_utils import AveragedModel

from slimwright.atomic import replacing
from slimwright.compute import device_of, placed
from slimwright.data import Dataset, Part
from slimwright.errors import DataError, RequestError
from slimwright.train.loss import outputs_of
from slimwright.train.schedule import Schedule, leads_to


class Run:
    """A model in training. `epoch` epochs are over, which took `spent_s` seconds."""

    def __init__(self, model: nn.Module, data: Dataset, schedule: Schedule) -> None:
        self.model, self.schedule = model, schedule
        self.steps = math.ceil(data.size("train") / schedule.batch_size)  # in an epoch
        self.optimizer = _optimizer(model, schedule)
        self.average = _average(model, schedule, self.steps)
        self.epoch, self.spent_s, self._looked = 0, 0.0, monotonic()
        self.loss = math.nan  # of the last batch
        self.best: dict[str, Tensor] = {}
        self.best_loss, self.best_epoch = math.inf, 0
        self.lost = False  # the loss is no number any more

    @property
    def over(self) -> bool:
        """True where the epochs, the time or the patience are used up, or the loss is lost."""
        if self.lost or (self.schedule.patience and self.epoch - self.best_epoch >= self.schedule.patience):
            return True
        if self.schedule.minutes is None:
            return self.epoch >= self.schedule.epochs
        return self.spent_s >= 60 * self.schedule.minutes

    def look(self) -> None:
        """Look at the clock: what went by since the last look was spent on this run."""
        now = monotonic()
        self.spent_s, self._looked = self.spent_s + (now - self._looked), now

    def done(self, step: int) -> float:
        """Return how much of the run is over before this step of the epoch: 0 to 1 or more."""
        if self.schedule.minutes is None:
            return (self.epoch * self.steps + step) / (self.schedule.epochs * self.steps)
        return self.spent_s / (60 * self.schedule.minutes)

    def descend(self, loss: Tensor, done: float) -> None:
        """Take one step down the gradient of `loss`, at the rate for the share of the run that is done.

        Where the loss is no number the run is over; raises DataError where it has no best weights to go back to.
        """
        self.loss = loss.item()
        if not math.isfinite(self.loss):
            self.lost = True
            self._expect_best(f"the training loss is {self.loss} in epoch {self.epoch + 1}")
            return
        for group in self.optimizer.param_groups:
            group["lr"] = self.schedule.rate_at(done) * group["factor"]
        self.optimizer.zero_grad()
        loss.backward()
        if self.schedule.longest_gradient is not None:
            nn.utils.clip_grad_norm_(self.model.parameters(), self.schedule.longest_gradient)
        self.optimizer.step()
        if self.average:
            self.average.update_parameters(self.model)

    def judge(self, data: Dataset) -> None:
        """Keep what is best on the validation part so far: the weights as they are, or their average.

        Raises DataError where no loss was a number yet.
        """
        loss = math.nan
        for candidate in (self.model, self.average.module if self.average else None):
            if candidate is not None and (loss := mean_loss(candidate, data, "validation")) < self.best_loss:
                self.best_loss, self.best_epoch = loss, self.epoch
                self.best = {name: tensor.clone() for name, tensor in candidate.state_dict().items()}
        self._expect_best(f"the validation loss is {loss} after epoch {self.epoch}")

    def _expect_best(self, otherwise: str) -> None:
        if not self.best:
            raise DataError(f"{otherwise}; lower the rate ({self.schedule.rate}) or check the data")

    def save(self, path: Path, key: str) -> None:
        """Write all of it to `path`, replaced at once."""
        tensors = {f"model.{name}": t for name, t in self.model.state_dict().items()}
        tensors |= {f"best.{name}": t for name, t in self.best.items()}
        tensors |= {f"average.{name}": t for name, t in (self.average.state_dict() if self.average else {}).items()}
        for name, parameter in self.model.named_parameters():
            momentum = self.optimizer.state[parameter].get("momentum_buffer")
            if momentum is not None:
                tensors[f"momentum.{name}"] = momentum
        numbers = {"epoch": self.epoch, "spent_s": self.spent_s, "best": self.best_loss, "best_epoch": self.best_epoch}
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary:
            said = {"key": key, **{name: repr(number) for name, number in numbers.items()}}
            safetensors.torch.save_file({name: t.clone().contiguous() for name, t in tensors.items()}, temporary, said)

    def restore(self, path: Path, key: str) -> None:
        """Go on from `path`, if it is a checkpoint of this very run."""
        try:
            with safetensors.safe_open(path, "pt") as file:
                said: Mapping[str, str] = file.metadata() or {}
                if said.get("key") != key:
                    return
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except (FileNotFoundError, safetensors.SafetensorError):
            return
        self.model.load_state_dict(_under("model.", tensors))
        self.best = _under("best.", tensors)
        if self.average:
            self.average.load_state_dict(_under("average.", tensors))
        momenta = _under("momentum.", tensors)
        for name, parameter in self.model.named_parameters():
            if name in momenta:
                self.optimizer.state[parameter]["momentum_buffer"] = momenta[name].to(parameter.device)
        self.epoch, self.spent_s = int(said["epoch"]), float(said["spent_s"])
        self.best_loss, self.best_epoch = float(said["best"]), int(said["best_epoch"])


def key_of(model: nn.Module, data: Dataset, schedule: Schedule, teacher: nn.Module | None) -> str:
    """What must agree for a checkpoint to belong to a run."""
    hasher = hashlib.sha256(json.dumps([data.name, data.size("train"), asdict(schedule)], sort_keys=True).encode())
    for module in (model, teacher):
        hasher.update(str(module).encode())
        for name, tensor in (module.state_dict() if module else {}).items():
            hasher.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
            hasher.update(tensor.cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return hasher.hexdigest()


@torch.no_grad()
def mean_loss(model: nn.Module, data: Dataset, part: Part) -> float:
    """Return the mean cross-entropy, in nats, of the model in eval mode on a part."""
    model.eval()
    total = 0.0
    device = device_of(model)
    for images, labels in data.batches(part, 128):
        with placed(device):
            scores, _ = outputs_of(model, images.to(device))
            total += float(F.cross_entropy(scores, labels.to(device), reduction="sum"))
    return total / data.size(part)


def _optimizer(model: nn.Module, schedule: Schedule) -> torch.optim.SGD:
    """SGD with one group of parameters for each factor of the rate."""
    groups: dict[float, list[nn.Parameter]] = {}
    names = []
    for name, parameter in model.named_parameters():
        names.append(name)
        groups.setdefault(schedule.factor(name), []).append(parameter)
    for path in schedule.faster:
        if not any(leads_to(path, name) for name in names):
            raise RequestError(f"no parameter is called '{path}' or lies in it; there are {', '.join(names[:6])}, ...")
    return torch.optim.SGD(
        [{"params": parameters, "factor": factor} for factor, parameters in groups.items()],
        schedule.rate,
        schedule.momentum,
        weight_decay=schedule.weight_decay,
        nesterov=schedule.momentum > 0,
    )


def _average(model: nn.Module, schedule: Schedule, steps: int) -> AveragedModel | None:
    """The moving average of weights and of batch-norm statistics alike; what is no float is the model's own."""
    if not schedule.average_over:
        return None
    new = 1 / max(schedule.average_over * steps, 1)

    def averaged(before: Tensor, now: Tensor, _: Tensor | int) -> Tensor:
        return before.lerp(now, new) if before.is_floating_point() else now

    return AveragedModel(model, avg_fn=averaged, use_buffers=True)


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
