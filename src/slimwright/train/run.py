"""What a training run carries from step to step, and what it goes back to where its loss stops being a number."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from time import monotonic

import torch
from torch import Tensor, nn
from torch.optim import SGD
from torch.optim.swa_utils import AveragedModel

from slimwright.data import Dataset
from slimwright.errors import DataError, RequestError
from slimwright.tasks import Task
from slimwright.train.schedule import Schedule, leads_to
from slimwright.train.scoring import mean_loss
from slimwright.train.thinning import Thinning

MOST_HALVINGS = 8  # of the rate: a 256th
EXPLODED = 1e3  # of the first loss, or nats: no run came back from there, and its rectifiers may all be dead


class Clock:
    """The seconds that a run has taken; `spent_s` were taken before."""

    def __init__(self, spent_s: float = 0.0) -> None:
        self.spent_s, self._looked = spent_s, monotonic()

    def look(self) -> None:
        """Add the time since the last look."""
        now = monotonic()
        self.spent_s, self._looked = self.spent_s + (now - self._looked), now


@dataclass(frozen=True)
class Best:
    """The weights with the least validation loss so far, those of the end of an epoch; none at first."""

    weights: Mapping[str, Tensor] = field(default_factory=dict)
    loss: float = math.inf
    epoch: int = 0

    def or_of(self, model: nn.Module, loss: float, epoch: int) -> "Best":
        """Return these, or the weights of `model` where its loss is lower."""
        if not loss < self.loss:
            return self
        return Best({name: tensor.clone() for name, tensor in model.state_dict().items()}, loss, epoch)


@dataclass(frozen=True)
class Good:
    """Weights to go back to: those of the end of an epoch that left the loss no higher than it began, or the first."""

    weights: Mapping[str, Tensor]
    epoch: int = 0

    @classmethod
    def of(cls, model: nn.Module, epoch: int) -> "Good":
        """Keep a model's weights."""
        return cls({name: tensor.clone() for name, tensor in model.state_dict().items()}, epoch)


@dataclass
class Run:
    """A model in training: `epoch` epochs of `steps` steps are over. `Run.of` starts one."""

    model: nn.Module
    schedule: Schedule
    steps: int
    optimizer: SGD
    average: AveragedModel | None
    clock: Clock
    good: Good
    thinning: Thinning | None
    epoch: int = 0
    loss: float = math.nan  # of the last batch
    first_loss: float = math.nan  # of the first batch
    halvings: int = 0  # of the rate, since the loss was lost so often
    lost: bool = False  # the loss exploded, or it or a weight is not a number any more
    best: Best = field(default_factory=Best)

    @classmethod
    def of(cls, model: nn.Module, data: Dataset, schedule: Schedule) -> "Run":
        """Start a run on the train part of `data`. Raises RequestError where the schedule names no such layer."""
        steps = math.ceil(data.size("train") / schedule.batch_size)
        optimizer, average = _optimizer(model, schedule), _average(model, schedule, steps)
        thinning = Thinning(model, schedule.zeros) if schedule.zeros else None
        return cls(model, schedule, steps, optimizer, average, Clock(), Good.of(model, 0), thinning)

    @property
    def over(self) -> bool:
        """True where the epochs, the time or the patience are used up, or the loss is lost."""
        if self.lost or (self.schedule.patience and self.epoch - self.best.epoch >= self.schedule.patience):
            return True
        if self.schedule.minutes is None:
            return self.epoch >= self.schedule.epochs
        return self.clock.spent_s >= 60 * self.schedule.minutes

    def done(self, step: int) -> float:
        """Return how much of the run is over before this step of the epoch: 0 to 1 or more."""
        if self.schedule.minutes is None:
            return (self.epoch * self.steps + step) / (self.schedule.epochs * self.steps)
        return self.clock.spent_s / (60 * self.schedule.minutes)

    def descend(self, loss: Tensor, done: float) -> None:
        """Take one step down the gradient of `loss`, at the rate for the share of the run that is done.

        Where the loss is not a number, or exploded, nothing is changed, and the run is lost.
        """
        self.loss = loss.item()
        if not self._sound:
            self.lost = True
            return
        self.first_loss = self.loss if math.isnan(self.first_loss) else self.first_loss
        rate = self.schedule.rate_at(done) * self.share
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["factor"]
        self.optimizer.zero_grad()
        loss.backward()
        if self.thinning:
            self.thinning.look()
        if self.schedule.longest_gradient is not None:
            nn.utils.clip_grad_norm_(self.model.parameters(), self.schedule.longest_gradient)
        self.optimizer.step()
        if self.thinning:
            self.thinning.thin(done)
        if self.average:
            self.average.update_parameters(self.model)

    @property
    def _sound(self) -> bool:
        """True where the loss is a number that a run can come down from."""
        highest = math.inf if math.isnan(self.first_loss) else EXPLODED * max(self.first_loss, 1.0)
        return math.isfinite(self.loss) and self.loss <= highest

    @property
    def share(self) -> float:
        """The share of the schedule's rate that is taken."""
        return 0.5**self.halvings

    def end_epoch(self) -> None:
        """Count an epoch; its weights are good where they are numbers and the loss is no higher than it began."""
        self.epoch += 1
        state = self.model.state_dict().values()
        if not all(bool(torch.isfinite(tensor).all()) for tensor in state if tensor.is_floating_point()):
            self.lost = True
        if not self.lost and self.loss <= self.first_loss:
            self.good = Good.of(self.model, self.epoch)

    def go_back(self) -> str:
        """Take up the last good weights at half the rate, without momentum, and say so.

        Raises DataError where the rate was halved often enough and no best weights are known; else "" where the run
        ends with those.
        """
        lost = f"the training loss is {self.loss:g} in epoch {self.epoch}"
        if self._sound:
            lost = f"weights are not numbers any more after epoch {self.epoch}"
        if self.halvings == MOST_HALVINGS:
            self._expect_best(lost)
            return ""
        self.halvings += 1
        self.model.load_state_dict(self.good.weights)
        self.optimizer.state.clear()
        if self.thinning:
            self.thinning.start_over()
        self.average = _average(self.model, self.schedule, self.steps)
        self.epoch, self.lost = self.good.epoch, False
        on = f"it goes on after epoch {self.epoch}" if self.epoch else "it starts over"
        return f"{lost}; {on} at half the rate, {self.schedule.rate * self.share:.2g}"

    def judge(self, data: Dataset, task: Task) -> None:
        """Keep what is best on the validation part so far: the weights as they are, or their average.

        Raises DataError where no loss was a number yet.
        """
        loss = math.nan
        for candidate in (self.model, self.average.module if self.average else None):
            if candidate is not None:
                loss = mean_loss(candidate, data, "validation", task)
                self.best = self.best.or_of(candidate, loss, self.epoch)
        self._expect_best(f"the validation loss is {loss} after epoch {self.epoch}")

    def _expect_best(self, otherwise: str) -> None:
        if not self.best.weights:
            halved = f", which was halved {self.halvings} times," if self.halvings else ""
            raise DataError(f"{otherwise}; lower the rate ({self.schedule.rate}){halved} or check the data")


def _optimizer(model: nn.Module, schedule: Schedule) -> SGD:
    """SGD with one group of parameters for each factor of the rate."""
    groups: dict[float, list[nn.Parameter]] = {}
    names = []
    for name, parameter in model.named_parameters():
        names.append(name)
        groups.setdefault(schedule.factor(name), []).append(parameter)
    for path in schedule.faster:
        if not any(leads_to(path, name) for name in names):
            raise RequestError(f"no parameter is called '{path}' or lies in it; there are {', '.join(names[:6])}, ...")
    return SGD(
        [{"params": parameters, "factor": factor} for factor, parameters in groups.items()],
        schedule.rate,
        schedule.momentum,
        weight_decay=schedule.weight_decay,
        nesterov=schedule.momentum > 0,
    )


def _average(model: nn.Module, schedule: Schedule, steps: int) -> AveragedModel | None:
    """The moving average of weights and of batch-norm statistics alike; what is not a float is the model's own."""
    if not schedule.average_over:
        return None
    new = 1 / max(schedule.average_over * steps, 1)

    def averaged(before: Tensor, now: Tensor, _: Tensor | int) -> Tensor:
        return before.lerp(now, new) if before.is_floating_point() else now

    return AveragedModel(model, avg_fn=averaged, use_buffers=True)
