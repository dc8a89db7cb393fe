"""The server's part, trained to do with coarser numbers what it did with finer ones; the original teaches it.

The phone's part stays as it is, and so do the numbers that it sends: gradients need not pass by the rounding, and a
message takes what it took. A step twice as coarse is tried first, then one that is coarser or finer by the half of
that, as the first one worked or did not.
"""

import json
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from slimwright.codec.split.features import restored, rounded
from slimwright.codec.split.judging import Judge
from slimwright.codec.split.rates import Fitted
from slimwright.data import Dataset, part_fingerprint, tensors_of
from slimwright.graph.net import Net
from slimwright.kept import kept_at, kept_tensors, write_tensors
from slimwright.progress import Tell
from slimwright.tasks import Outputs
from slimwright.train import Schedule, fit

RATE, LONGEST_GRADIENT = 0.03, 1.0  # of 0.01, 0.03 and 0.1 best on digits behind a step twice as coarse (2026-11-30)
PARTS = 2  # trainings that share the time


@dataclass(frozen=True)
class Tuning:
    """For how many minutes each cut may be tuned, on what, and where a training that is killed goes on from."""

    minutes: float
    data: Dataset
    cache: Path | None = None


def tuned(fitted: Fitted, teacher: Net, judge: Judge, tuning: Tuning, tell: Tell) -> Fitted:
    """Return a bottleneck whose server's part was trained for its step; one that was trained before is kept."""
    said = _said(fitted, teacher, judge, tuning)
    place = None if tuning.cache is None else kept_at(tuning.cache, "split", said)
    if place is not None and (found := kept_tensors(place, said)):
        return replace(fitted, server=fitted.server.edited(tensors=found[0]))
    model = _Behind(fitted.phone.to_module(), fitted.server.to_module())
    schedule = Schedule(minutes=tuning.minutes / PARTS, rate=RATE, longest_gradient=LONGEST_GRADIENT)
    checkpoint = None if place is None else place.with_suffix(".partial")
    if checkpoint is not None:
        checkpoint.parent.mkdir(parents=True, exist_ok=True)
    taught = judge.task.data(tuning.data, judge.original.forward)
    fit(model, taught, schedule, task=judge.task, teacher=teacher.to_module(), checkpoint=checkpoint, tell=tell)
    server = fitted.server.trained(model.server)
    if place is not None:
        write_tensors(place, server.tensors, {"key": said})
    return replace(fitted, server=server)


def drop_of(fitted: Fitted, judge: Judge) -> float:
    """Return how much the metric drops behind rounded components, without a cap."""
    given = fitted.phone.run(tensors_of(judge.inputs))
    return judge.drop(fitted.server.run(tuple(map(_as_sent, given))))


def _said(fitted: Fitted, teacher: Net, judge: Judge, tuning: Tuning) -> str:
    """All that shapes a training."""
    data = "" if tuning.cache is None else part_fingerprint(tuning.data, "train")
    said = (fitted.phone.digest, fitted.server.digest, teacher.digest, repr(judge.task), tuning.minutes, RATE, data)
    return json.dumps(said)


def _as_sent(given: Tensor) -> Tensor:
    return torch.from_numpy(restored(rounded(given.numpy(), 0), 0))


class _Behind(nn.Module):
    """The server's part behind a phone's part that is not trained."""

    def __init__(self, phone: nn.Module, server: nn.Module) -> None:
        super().__init__()
        self.server = server
        self._phone = (phone.eval(),)  # in a tuple: no part of what is trained

    def forward(self, *inputs: Tensor) -> Outputs:
        """Inputs [N, ...] -> the outputs of the whole net."""
        with torch.no_grad():
            given = self._phone[0](*inputs)
        values = (given,) if isinstance(given, Tensor) else given
        made = self.server(*map(_as_sent, values))
        return (made,) if isinstance(made, Tensor) else tuple(made)
