"""How to train, as data: the lengths, the rates and the shares of one run."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from slimwright.errors import RequestError


@dataclass(frozen=True)
class Schedule:
    """How to train: plain SGD with Nesterov momentum and a one-cycle rate.

    The rate rises for the first fifth of the run and falls along a cosine to zero. A run with `patience` has no length
    to lay a cycle over, as it may end any time: its rate is constant.

    `faster` makes some parameters learn at a multiple of the rate, by the path of their layer: `{"fc": 10}`, as
    DeepRebirth has it for new layers (Li et al. 2018, arXiv 1708.04728). The longest path that fits counts; 0 leaves
    parameters as they are.

    `average_over` adds a moving average of the weights, whose memory is so many epochs long. `longest_gradient` keeps
    nets that are thin already, chains of factorised layers above all, from leaving what they were solved to be.

    `zeros` is the share of the weights of convolutions and linear layers that become zero in the course of the run
    (`thinning.py`). That needs all of the run: it goes with neither `patience` nor `average_over`.

    Raises RequestError for numbers that mean nothing.
    """

    epochs: int = 16
    minutes: float | None = None  # of wall-clock time; where given, it takes the place of `epochs`
    patience: int = 0  # epochs without a lower validation loss after which to stop; 0: never
    rate: float = 0.1  # the peak learning rate
    faster: Mapping[str, float] = field(default_factory=dict)
    batch_size: int = 32
    weight_decay: float = 5e-4
    momentum: float = 0.9
    average_over: float = 0.0
    longest_gradient: float | None = None  # the norm, over all parameters, to which longer gradients are cut
    label_smoothing: float = 0.05  # without a teacher only
    teacher_share: float = 0.9  # of the loss: 0 is the labels alone, 1 the teacher alone
    temperature: float = 4.0
    zeros: float = 0.0
    feature_weight: float = 1.0  # of values matched inside the networks, where there are any
    seed: int | None = 0  # of shuffled and augmented passes; None: plain ones in order

    def __post_init__(self) -> None:
        if self.minutes is not None and not self.minutes > 0:
            raise RequestError(f"a run of {self.minutes:g} minutes cannot learn; give more than 0, or None for epochs")
        if min(self.epochs, self.batch_size) < 1 or not self.rate > 0:
            raise RequestError(f"epochs and batch_size must be at least 1 and the rate above 0, not {self}")
        if not 0 <= self.teacher_share <= 1:
            raise RequestError(f"the teacher's share of the loss is between 0 and 1, not {self.teacher_share:g}")
        if not 0 <= self.zeros < 1:
            raise RequestError(f"the share of weights that become zero is 0 or more and below 1, not {self.zeros:g}")
        if self.zeros and (self.patience or self.average_over):
            raise RequestError("zeros that grow need the whole run: leave patience and average_over 0")
        if self.longest_gradient is not None and not self.longest_gradient > 0:
            raise RequestError(f"gradients need a length above 0, not {self.longest_gradient:g}")
        if min(self.patience, self.average_over, self.feature_weight, *self.faster.values(), 0) < 0:
            raise RequestError("patience, average_over, feature_weight and the factors of `faster` are 0 or more")

    def rate_at(self, done: float) -> float:
        """Return the rate when the share `done`, 0..1, of the run is over."""
        return self.rate * (1.0 if self.patience else one_cycle(done))

    def factor(self, parameter: str) -> float:
        """Return the multiple of the rate at which the parameter of this name learns."""
        fitting = [path for path in self.faster if leads_to(path, parameter)]
        return self.faster[max(fitting, key=len)] if fitting else 1.0


def leads_to(path: str, parameter: str) -> bool:
    """True where `path` names the parameter, or the layer or block that it is in."""
    return parameter == path or parameter.startswith(path + ".")


def one_cycle(done: float, warm_up: float = 0.2) -> float:
    """Return the share of the peak rate at `done` in 0..1 of the run."""
    if done < warm_up:
        return max(done / warm_up, 0.01)
    return 0.5 * (1 + math.cos(math.pi * (done - warm_up) / (1 - warm_up)))
