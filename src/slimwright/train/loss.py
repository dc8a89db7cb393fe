"""What training makes small: the task's loss, the distance to a teacher's outputs, and to values inside it.

    (1-a) loss(targets) + a distance(teacher) + w mean_k |s_k - t_k|^2 / |t_k|^2

For classification the first two terms are those of Hinton et al. 2015 (arXiv 1503.02531, sec. 2); with a = 0.7 they
are the loss of Data-Driven Compression (Pahwa et al. 2019, arXiv 1911.12740), whose printed equations pair each term
with the other's targets. s_k and t_k are values at the borders of regions that were changed: a student that gives
them, too, learns where it is wrong, not only that it is (FitNets, Romero et al. 2015, arXiv 1412.6550, with a norm in
place of the regressor: here the channels are the teacher's own).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from slimwright.data import Batch, Inputs
from slimwright.errors import RequestError
from slimwright.graph.net import Net
from slimwright.tasks import Outputs, Task, returned
from slimwright.train.schedule import Schedule

LEAST = 1e-6  # mean square below which a teacher's value is as good as zero, and is not divided by


@dataclass(frozen=True)
class Match:
    """A value of a changed net that stands for one of the original: for all its channels (dimension 1), or for some."""

    value: str
    original: str
    channels: tuple[int, ...] | None = None

    def of(self, value: Tensor) -> Tensor:
        """Return the channels, of a value of the original, that are compared."""
        if self.channels is None:
            return value
        return value.index_select(1, torch.tensor(self.channels, device=value.device))


def check_matches(changed: Net, original: Net, matches: Sequence[Match]) -> None:
    """Raise RequestError, naming the nodes, where a value is missing or shapes differ."""
    for match in matches:
        for net, name, which in ((changed, match.value, "changed"), (original, match.original, "original")):
            if name not in net.readers:
                raise RequestError(f"the {which} net has no node '{name}' to be matched")
        mine, its = changed[match.value], original[match.original]
        size = its.shape[1] if len(its.shape) > 1 else 0
        chosen = range(size) if match.channels is None else match.channels
        if outside := set(chosen) - set(range(size)):
            raise RequestError(f"'{match.original}' has {size} channels; {min(outside)} is none of them")
        if (len(chosen), *its.shape[2:]) != mine.shape[1:] or {mine.dtype, its.dtype} != {"float32"}:
            raise RequestError(
                f"'{match.value}' gives {mine.dtype} {list(mine.shape)} and cannot be matched with {len(chosen)} "
                f"channels of '{match.original}', {its.dtype} {list(its.shape)}"
            )


def paired(student: Net, teacher: Net, matches: Sequence[Match]) -> tuple[nn.Module, nn.Module]:
    """Return both nets as modules that give, behind their outputs, the values to be matched: what `fit` takes.

    The student's module has the weights of `student.to_module()`, under the same names, so `student.trained` takes
    it back. Raises RequestError where a value is missing, or shapes or the numbers of outputs differ.
    """
    check_matches(student, teacher, matches)
    if len(student.outputs) != len(teacher.outputs):
        raise RequestError(f"the student has {len(student.outputs)} outputs and its teacher {len(teacher.outputs)}")
    tapped = replace(student, outputs=(*student.outputs, *(match.value for match in matches)))
    source = replace(teacher, outputs=(*teacher.outputs, *(match.original for match in matches)))
    return tapped.to_module(), _Chosen(source.to_module(), len(teacher.outputs), matches)


class _Chosen(nn.Module):
    """A module's outputs and values, of each value only the channels that are compared."""

    def __init__(self, module: nn.Module, count: int, matches: Sequence[Match]) -> None:
        super().__init__()
        self.module, self.count, self.matches = module, count, tuple(matches)

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        outputs, values = outputs_of(self.module, inputs, self.count)
        return *outputs, *(match.of(value) for match, value in zip(self.matches, values, strict=True))

    def extra_repr(self) -> str:
        return "\n".join(map(str, self.matches))


def loss_of(
    model: nn.Module, batch: Batch, schedule: Schedule, *, task: Task, teacher: nn.Module | None = None
) -> Tensor:
    """Return the mean loss of one batch. Gradients reach `model` alone.

    Raises RequestError where a model gives fewer outputs than the task has, and where `model` gives values to be
    matched and the teacher does not give as many.
    """
    inputs, targets = batch
    outputs, values = outputs_of(model, inputs, task.outputs)
    hard = task.loss(outputs, targets, label_smoothing=0.0 if teacher else schedule.label_smoothing).mean()
    if not values and (teacher is None or not schedule.teacher_share):
        return hard
    told, wanted = _followed(teacher, inputs, task.outputs)
    if len(values) != len(wanted):
        raise RequestError(
            f"the model gives {len(values)} values to be matched, the teacher {len(wanted)}; make both with `paired`"
        )
    loss = hard
    if schedule.teacher_share:
        soft = task.distance(outputs, told, schedule.temperature)
        loss = (1 - schedule.teacher_share) * hard + schedule.teacher_share * soft
    if values:
        far = torch.stack([relative_error(mine, its) for mine, its in zip(values, wanted, strict=True)])
        loss = loss + schedule.feature_weight * far.mean()
    return loss


def relative_error(made: Tensor, wanted: Tensor) -> Tensor:
    """Return |made - wanted|^2 / |wanted|^2."""
    return (made - wanted).square().mean() / wanted.square().mean().clamp_min(LEAST)


def outputs_of(model: nn.Module, inputs: Inputs, count: int) -> tuple[Outputs, tuple[Tensor, ...]]:
    """Return a model's `count` outputs, and the values to be matched that it gives behind them."""
    every = returned(model, inputs)
    if len(every) < count:
        raise RequestError(f"the model gives {len(every)} outputs, and its task has {count}")
    return every[:count], every[count:]


@torch.no_grad()
def _followed(teacher: nn.Module | None, inputs: Inputs, count: int) -> tuple[Outputs, tuple[Tensor, ...]]:
    if teacher is None:
        raise RequestError("the model gives values to be matched, but there is no teacher; make both with `paired`")
    return outputs_of(teacher, inputs, count)
