"""What training makes small: the error on labels, the distance to a teacher's scores, and to values inside it.

    (1-a) CE(labels) + a T^2 KL(teacher_T || student_T) + w mean_k |s_k - t_k|^2 / |t_k|^2

The first two terms are those of Hinton et al. 2015 (arXiv 1503.02531, sec. 2); with a = 0.7 they are the loss of
Data-Driven Compression (Pahwa et al. 2019, arXiv 1911.12740), whose printed equations pair each term with the other's
targets. s_k and t_k are values at the borders of regions that were changed: a student that gives them, too, learns
where it is wrong, not only that it is (FitNets, Romero et al. 2015, arXiv 1412.6550, with a norm in place of the
regressor: here the channels are the teacher's own).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from slimwright.errors import RequestError
from slimwright.graph.net import Net
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
    """Return both nets as modules that give, behind their scores, the values to be matched: what `fit` takes.

    The student's module has the weights of `student.to_module()`, under the same names, so `student.trained` takes
    it back. Raises RequestError where a value is missing or shapes differ.
    """
    check_matches(student, teacher, matches)
    tapped = replace(student, outputs=(student.outputs[0], *(match.value for match in matches)))
    source = replace(teacher, outputs=(teacher.outputs[0], *(match.original for match in matches)))
    return tapped.to_module(), _Chosen(source.to_module(), matches)


class _Chosen(nn.Module):
    """A module's scores and values, of each value only the channels that are compared."""

    def __init__(self, module: nn.Module, matches: Sequence[Match]) -> None:
        super().__init__()
        self.module, self.matches = module, tuple(matches)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        scores, values = outputs_of(self.module, images)
        return scores, *(match.of(value) for match, value in zip(self.matches, values, strict=True))

    def extra_repr(self) -> str:
        return "\n".join(map(str, self.matches))


def loss_of(model: nn.Module, images: Tensor, labels: Tensor, schedule: Schedule, teacher: nn.Module | None) -> Tensor:
    """Return the mean loss of one batch. Gradients reach `model` alone.

    Raises RequestError where the model gives values to be matched and the teacher does not give as many.
    """
    scores, values = outputs_of(model, images)
    hard = F.cross_entropy(scores, labels, label_smoothing=0 if teacher else schedule.label_smoothing)
    if not values and (teacher is None or not schedule.teacher_share):
        return hard
    told, wanted = _followed(teacher, images)
    if len(values) != len(wanted):
        raise RequestError(
            f"the model gives {len(values)} values to be matched, the teacher {len(wanted)}; make both with `paired`"
        )
    loss = hard
    if schedule.teacher_share:
        student = F.log_softmax(scores / schedule.temperature, dim=1)
        target = F.log_softmax(told / schedule.temperature, dim=1)
        soft = F.kl_div(student, target, reduction="batchmean", log_target=True) * schedule.temperature**2
        loss = (1 - schedule.teacher_share) * hard + schedule.teacher_share * soft
    if values:
        far = torch.stack([relative_error(mine, its) for mine, its in zip(values, wanted, strict=True)])
        loss = loss + schedule.feature_weight * far.mean()
    return loss


def relative_error(made: Tensor, wanted: Tensor) -> Tensor:
    """Return |made - wanted|^2 / |wanted|^2."""
    return (made - wanted).square().mean() / wanted.square().mean().clamp_min(LEAST)


def outputs_of(model: nn.Module, images: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Return a model's scores, and the values it gives behind them."""
    result = model(images)
    return (result, ()) if isinstance(result, Tensor) else (result[0], tuple(result[1:]))


@torch.no_grad()
def _followed(teacher: nn.Module | None, images: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
    if teacher is None:
        raise RequestError("the model gives values to be matched, but there is no teacher; make both with `paired`")
    return outputs_of(teacher, images)
