"""Train a network, or tune one after it was changed, with an optional teacher.

Each epoch draws its randomness from (seed, epoch), so a run that was killed goes on from its last whole epoch and ends
with the same weights as one that was not.

Where a schedule asks for patience or for averaged weights, the validation part decides what is returned: the weights
of the epoch, plain or averaged, with the lowest loss there. An average need not help: behind a rate that falls to zero
it is often the worse of the two. Averaged are the statistics of batch norms as well as the weights, which
costs no pass over the data; both have drifted by little within the average's memory.
"""

import math
from pathlib import Path

import torch
from torch import nn

from slimwright.compute import device_of, placed
from slimwright.data import Dataset, moved
from slimwright.errors import RequestError
from slimwright.progress import Event, Tell, silent
from slimwright.tasks import Task
from slimwright.train.checkpoint import key_of, restore, save
from slimwright.train.loss import loss_of
from slimwright.train.run import Run
from slimwright.train.schedule import Schedule


def fit(
    model: nn.Module,
    data: Dataset,
    schedule: Schedule,
    *,
    task: Task,
    teacher: nn.Module | None = None,
    checkpoint: Path | None = None,
    tell: Tell = silent,
) -> nn.Module:
    """Train `model` in place on the train part, where its weights lie, and return it in eval mode.

    The targets of `data` are the task's: where it makes its own, give `task.data(data, original)`.
    `teacher`, which runs in eval mode and is not changed, is followed as `loss_of` says; make both modules with
    `paired` to follow it inside the network too. `checkpoint` is a file to go on from and to write after every epoch;
    it is removed at the end. Time that went into an epoch that was never finished is not counted; all other is, so a
    run that was killed gets no more minutes than one that was not.

    A run whose loss stops being a number goes on from its last good epoch, or starts over, at half the rate, and says
    so in an event. Where that does not help, one with patience ends with its best weights; raises DataError where there
    are none, and RequestError where schedule and model do not fit.
    """
    if teacher is not None:
        teacher.eval()
        if device_of(teacher) != device_of(model):
            raise RequestError(f"the model lies on {device_of(model)}, its teacher on {device_of(teacher)}; move one")
    run = Run.of(model, data, schedule)
    key = key_of(model, data, schedule, task=task, teacher=teacher) if checkpoint else ""
    if checkpoint:
        restore(run, checkpoint, key)
    while not run.over:
        _epoch(run, data, task, teacher)
        if run.lost and (said := run.go_back()):
            tell(Event("restart", 1, 1, said))
            continue
        if schedule.patience and not run.lost:
            run.judge(data, task)
        run.clock.look()
        tell(_event(run))
        if checkpoint and not run.over:
            save(run, checkpoint, key)
    if run.thinning:
        run.thinning.thin(1.0)
    if schedule.average_over and not schedule.patience:
        run.judge(data, task)
    if run.best.weights:
        model.load_state_dict(run.best.weights)
    if checkpoint:
        checkpoint.unlink(missing_ok=True)
    return model.eval()


def _epoch(run: Run, data: Dataset, task: Task, teacher: nn.Module | None) -> None:
    """Train for one epoch, or until the time is over."""
    schedule, model = run.schedule, run.model.train()
    device = device_of(model)
    seed = (schedule.seed or 0) * 100_003 + run.epoch
    torch.manual_seed(seed)  # dropout
    order = None if schedule.seed is None else seed
    for step, batch in enumerate(data.batches("train", schedule.batch_size, seed=order)):
        run.clock.look()
        done = run.done(step)
        if done >= 1 or run.lost:
            break
        with placed(device):
            inputs, targets = (moved(value, device) for value in batch)
            run.descend(loss_of(model, (inputs, targets), schedule, task=task, teacher=teacher), done)
    run.end_epoch()


def _event(run: Run) -> Event:
    schedule, note = run.schedule, f"loss {run.loss:.3f}"
    if schedule.patience:
        note += f", least validation loss {run.best.loss:.3f} after epoch {run.best.epoch}"
    if schedule.minutes is None:
        return Event("train", schedule.epochs if run.over else run.epoch, schedule.epochs, note)
    total = math.ceil(60 * schedule.minutes)
    return Event("train", total if run.over else int(run.clock.spent_s), total, f"epoch {run.epoch}, {note}")
