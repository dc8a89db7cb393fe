"""Segmentation: one output [N, K, H', W'] of scores, of which the largest names the class of a pixel.

One channel [N, 1, H', W'] is the logit of the foreground. An original whose outputs are shares from 0 to 1 that add up
to 1, or one channel of them, ends in a softmax or a sigmoid, and its logarithms are taken as the scores. Scores of
another size than the mask's are resized to it bilinearly (half-pixel centres), as is usual.

The loss of an image is the mean cross-entropy of the pixels that count. A class is drawn for each position; the
gradient of the summed cross-entropies, divided by the root of their number, gives the Fisher information of that mean
(Martens 2020, arXiv 1412.1193, sec. 5), since what is drawn at one position says nothing of another.

The metric is the mean intersection over union of Everingham et al. 2010 (PASCAL VOC, sec. 4.3): true positives over all
that are of the class or are called so, of each class summed over all images; the mean over the classes that occur.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from slimwright.data import Dataset, Targets, tensors_of
from slimwright.data.masks import UNCOUNTED
from slimwright.errors import DataError
from slimwright.tasks.task import Forward, Metric, Outputs, drawn_classes, seeds_of, shapes_said

AT_ONCE = 16_000_000  # scores that are resized at once
NEAR_ONE = 1e-3  # of the sum of shares


@dataclass(frozen=True)
class Segmentation:
    """A class for each pixel; `labels` are their names, if they have any. Targets are [N, H, W], -1: not counted."""

    labels: tuple[str, ...]
    shares: bool = False  # outputs lie between 0 and 1
    outputs: int = 1
    name: str = "segmentation"

    @property
    def metric(self) -> Metric:
        """The mean intersection over union."""
        return Metric("mIoU")

    @property
    def classes(self) -> tuple[str, ...]:
        """Evidence is kept as one: an image has no single class."""
        return ("all",)

    def check(self, shapes: Sequence[Sequence[int]]) -> None:
        """Raise DataError unless there is one output with a score for each class and position."""
        classes, returned = len(self.labels), shapes_said(shapes)
        if len(shapes) != 1 or len(shapes[0]) != 4:
            raise DataError(
                f"the model returns {returned}, and a net that segments returns [1, K, H, W]; for a net of "
                "any other kind, choose the task 'imitation'"
            )
        if classes and max(shapes[0][1], 2) != classes:
            raise DataError(
                f"the model returns {returned}, and the data has {classes} classes; a net for them returns "
                f"[1, {classes}, H, W]{' or [1, 1, H, W]' if classes == 2 else ''}"
            )

    def data(self, data: Dataset, original: Forward) -> Dataset:
        """Return the data set: its masks are the targets."""
        return data

    def class_of(self, targets: Targets) -> Tensor:
        """Return zeros [N]."""
        masks = _masks(targets)
        return masks.new_zeros(len(masks), dtype=torch.int64)

    def loss(self, outputs: Outputs, targets: Targets, *, label_smoothing: float = 0.0) -> Tensor:
        """Return the mean cross-entropy [N] of the pixels that count; 0 where none does."""
        masks = _masks(targets).to(outputs[0].device)
        scores = _resized(self._scores(outputs), masks)
        _check_classes(masks, scores.shape[1])
        each = F.cross_entropy(scores, masks, reduction="none", ignore_index=UNCOUNTED, label_smoothing=label_smoothing)
        return each.sum((1, 2)) / (masks != UNCOUNTED).sum((1, 2)).clamp_min(1)

    def drawn_loss(self, outputs: Outputs, numbers: Tensor) -> Tensor:
        """Return the summed cross-entropy against classes drawn from the scores, over the root of their number."""
        scores = self._scores(outputs)
        drawn = torch.stack([_drawn(one, seed) for one, seed in zip(scores, seeds_of(numbers), strict=True)])
        return F.cross_entropy(scores, drawn, reduction="sum") / math.sqrt(drawn[0].numel())

    def distance(self, outputs: Outputs, wanted: Outputs, temperature: float) -> Tensor:
        """Return T^2 KL(teacher || student) of the scores at a temperature, the mean over positions."""
        student, teacher = (F.log_softmax(self._scores(of) / temperature, 1) for of in (outputs, wanted))
        return F.kl_div(student, teacher, reduction="none", log_target=True).sum(1).mean() * temperature**2

    def score(self, outputs: Outputs, targets: Targets) -> float:
        """Return the mean intersection over union in percent. Raises DataError where no pixel counts."""
        masks, classes = _masks(targets), max(outputs[0].shape[1], 2)
        _check_classes(masks, classes)
        counts = torch.zeros(classes, classes, dtype=torch.int64)
        for scores, some in _few(outputs[0].detach(), masks):
            named = _resized(self._scores((scores,)), some).argmax(1).cpu()
            some = some.cpu()
            pairs = (classes * some + named)[some != UNCOUNTED]
            counts += torch.bincount(pairs, minlength=classes**2).reshape(classes, classes)  # [truth, named]
        if not int(counts.sum()):
            raise DataError(f"no pixel of {len(masks)} masks counts; the metric needs at least one")
        hit, either = counts.diag(), counts.sum(0) + counts.sum(1) - counts.diag()
        return 100 * float((hit / either)[either > 0].double().mean())

    def agreement(self, found: Outputs, expected: Outputs) -> float:
        """Return the share of positions at which both name the same class."""
        same = [
            (self._scores((mine,)).argmax(1) == self._scores((its,)).argmax(1)).double().mean((1, 2))
            for mine, its in _few(found[0], expected[0])
        ]
        return float(torch.cat(same).mean())

    def _scores(self, outputs: Outputs) -> Tensor:
        """Scores [N, K, H', W'] whose softmax is the probability of each class."""
        scores = outputs[0]
        if scores.shape[1] > 1:
            return scores.clamp_min(torch.finfo(scores.dtype).tiny).log() if self.shares else scores
        logit = scores.logit(eps=1e-7) if self.shares else scores
        return torch.cat([torch.zeros_like(logit), logit], 1)


def segmenting(data: Dataset, original: Forward) -> Segmentation:
    """Return the task of segmenting, for outputs as the original gives them for some calibration images."""
    inputs, _ = next(data.batches("calibration", 4))
    scores = original(inputs)[0].detach()
    if scores.ndim != 4:
        return Segmentation(data.labels)
    within = float(scores.min()) >= 0 and float(scores.max()) <= 1
    whole = scores.shape[1] == 1 or bool(((scores.sum(1) - 1).abs() < NEAR_ONE).all())
    return Segmentation(data.labels, within and whole)


def _masks(targets: Targets) -> Tensor:
    """The targets [N, H, W] int64. Raises DataError for any others."""
    masks, *others = tensors_of(targets)
    if others or masks.ndim != 3 or masks.is_floating_point():
        raise DataError(
            f"each image needs a mask [H, W] of whole numbers, the classes of its pixels, and the data set gives "
            f"{shapes_said([each.shape for each in tensors_of(targets)])}"
        )
    return masks.long()


def _check_classes(masks: Tensor, classes: int) -> None:
    if masks.numel() and not UNCOUNTED <= int(masks.min()) <= int(masks.max()) < classes:
        raise DataError(
            f"masks hold {int(masks.min())} to {int(masks.max())}, and the model scores {classes} classes; classes are "
            f"numbers from 0 on, and {UNCOUNTED} marks pixels that do not count"
        )


def _resized(scores: Tensor, masks: Tensor) -> Tensor:
    """Scores [N, K, H, W] of the masks' size."""
    if scores.shape[2:] == masks.shape[1:]:
        return scores
    return F.interpolate(scores, masks.shape[1:], mode="bilinear", align_corners=False)


def _few(one: Tensor, other: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """A few images of both at a time, so that what is made of them fits into memory."""
    each = max(one[0].numel(), one.shape[1] * other[0].numel(), 1)
    size = max(AT_ONCE // each, 1)
    return zip(one.split(size), other.split(size), strict=True)


def _drawn(scores: Tensor, seed: torch.Generator) -> Tensor:
    """Classes [H, W] drawn from scores [K, H, W]."""
    uniform = torch.rand(scores.shape[1:], dtype=torch.float64, generator=seed, device="cpu")
    return drawn_classes(scores.detach().cpu().double().softmax(0), uniform, 0).to(scores.device)
