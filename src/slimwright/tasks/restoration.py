"""Restoration: one output [N, C, H, W], a picture with levels from 0 to 1, or a map such as one of depths.

An original that restores pictures and whose outputs reach far beyond 1 gives levels up to 255: they are divided by 255.
The loss is the squared error of the levels as they are, in units of the targets' deviation (`gaussian.py`); for the
metric they are clamped to 0 to 1.

- PSNR, in dB: 10 log10(1 / mean squared error) of an image, the mean over images. One without error has 100 dB.
- SSIM, in percent: Wang et al. 2004, with the Gaussian window of deviation 1.5, by scikit-image; the mean over images.
- MAE, in percent of the range from 0 to 1. Here an output of another size is resized to the target bilinearly.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from slimwright.data import Dataset, Targets, tensors_of
from slimwright.errors import DataError, check_extra
from slimwright.tasks.gaussian import LEAST_DEVIATION, projected, squares
from slimwright.tasks.task import Forward, Metric, Outputs, seeds_of, shapes_said

By = Literal["PSNR", "SSIM", "MAE"]
METRICS: dict[By, Metric] = {
    "PSNR": Metric("PSNR", "dB", "dB"),
    "SSIM": Metric("SSIM"),
    "MAE": Metric("mean absolute error", higher_is_better=False),
}
LEAST_ERROR = 1e-10  # of a mean square: 100 dB
BEYOND = 2.0  # levels that reach so far are not from 0 to 1
WINDOW = 11  # pixels of a side; scikit-image's for a deviation of 1.5
ALIKE = 0.2  # of the targets' deviation: levels nearer than that mean the same


@dataclass(frozen=True)
class Restoration:
    """Outputs shall be target pictures of this `shape` [C, H, W], whose levels vary by `deviation`."""

    shape: tuple[int, ...]
    deviation: float
    by: By = "PSNR"
    white: float = 1.0  # what an output of 1 is called
    outputs: int = 1
    name: str = "restoration"

    @property
    def metric(self) -> Metric:
        """What is counted."""
        return METRICS[self.by]

    @property
    def classes(self) -> tuple[str, ...]:
        """Evidence is kept as one."""
        return ("all",)

    def check(self, shapes: Sequence[Sequence[int]]) -> None:
        """Raise DataError unless there is one output of the targets' shape; of a map, of any height and width."""
        found = tuple(shapes[0][1:]) if len(shapes) == 1 else ()
        maps = (self.shape[:1], () if self.shape[0] == 1 else self.shape[:1])  # channels, or none where there is one
        if found != self.shape and not (self._may_resize and len(found) > 1 and found[:-2] in maps):
            raise DataError(
                f"the model returns {shapes_said(shapes)}, and targets are {[1, *self.shape]}; give targets "
                "of that size, or choose the task 'imitation'"
            )

    def data(self, data: Dataset, original: Forward) -> Dataset:
        """Return the data set: its pictures are the targets."""
        return data

    def class_of(self, targets: Targets) -> Tensor:
        """Return zeros [N]."""
        wanted = _pictures(targets)
        return wanted.new_zeros(len(wanted), dtype=torch.int64)

    def loss(self, outputs: Outputs, targets: Targets, *, label_smoothing: float = 0.0) -> Tensor:
        """Return half the squared error [N] in units of the deviation."""
        wanted = _pictures(targets).to(outputs[0].device)
        return 0.5 * squares(self._made(outputs, wanted), wanted, self.deviation)

    def drawn_loss(self, outputs: Outputs, numbers: Tensor) -> Tensor:
        """Return the summed random projection of the output."""
        return projected(outputs[0], self.deviation * self.white, seeds_of(numbers))

    def distance(self, outputs: Outputs, wanted: Outputs, temperature: float) -> Tensor:
        """Return the mean loss against a teacher's output; a temperature has no meaning here."""
        return 0.5 * squares(outputs[0], wanted[0], self.deviation * self.white).mean()

    def score(self, outputs: Outputs, targets: Targets) -> float:
        """Return the metric; the worst that there is where an output is not a number."""
        found, wanted = outputs[0].detach(), _pictures(targets)
        each = [
            self._score(self._made((mine,), its.to(mine.device)), its)
            for mine, its in zip(found.split(1), wanted.split(1), strict=True)
        ]
        return sum(each) / len(each)

    def agreement(self, found: Outputs, expected: Outputs) -> float:
        """Return the share of levels that differ by little beside the targets' deviation."""
        near = ALIKE * self.deviation * self.white
        pairs = zip(found[0], expected[0], strict=True)
        same = [((mine.float() - its.float()).abs() <= near).double().mean() for mine, its in pairs]
        return float(torch.stack(same).mean())

    @property
    def _may_resize(self) -> bool:
        """A coarser picture would be another one; a coarser map is usual."""
        return self.by == "MAE"

    def _made(self, outputs: Outputs, wanted: Tensor) -> Tensor:
        """Levels, 1 for white, of the targets' size."""
        made = outputs[0].float() / self.white
        made = made[:, None] if made.ndim == 3 else made
        if made.shape[2:] == wanted.shape[2:] or not self._may_resize:
            return made
        return F.interpolate(made, wanted.shape[2:], mode="bilinear", align_corners=False)

    def _score(self, made: Tensor, wanted: Tensor) -> float:
        """The metric of one image [1, C, H, W]."""
        if not bool(torch.isfinite(made).all()):
            return 0.0 if self.metric.higher_is_better else math.inf
        made, wanted = made.cpu().double().clamp(0, 1), wanted.cpu().double()
        if self.by == "SSIM":
            return 100 * _ssim(made[0], wanted[0])
        if self.by == "MAE":
            return 100 * float((made - wanted).abs().mean())
        return -10 * math.log10(max(float((made - wanted).square().mean()), LEAST_ERROR))


def restoring(data: Dataset, original: Forward, by: By = "PSNR") -> Restoration:
    """Return the task of restoring pictures, with the deviation of calibration targets and the range of outputs."""
    shape: tuple[int, ...] = ()
    moments, white = torch.zeros(3, dtype=torch.float64), 1.0
    for number, (inputs, targets) in enumerate(data.batches("calibration", 16)):
        wanted = _pictures(targets)
        values = wanted.double()
        moments += torch.stack([torch.tensor(float(values.numel())), values.sum(), values.square().sum()])
        if number == 0:
            shape = tuple(wanted.shape[1:])
            bright = by != "MAE" and float(original(inputs)[0].detach().max()) > BEYOND >= float(values.max())
            white = 255.0 if bright else 1.0
    count, total, square = moments.tolist()
    deviation = math.sqrt(max(square / count - (total / count) ** 2, 0.0))
    name = "depth" if by == "MAE" else "restoration"
    return Restoration(shape, max(deviation, LEAST_DEVIATION), by, white, name=name)


def _pictures(targets: Targets) -> Tensor:
    """The targets [N, C, H, W]. Raises DataError for any others."""
    wanted, *others = tensors_of(targets)
    if others or wanted.ndim != 4 or not wanted.is_floating_point():
        said = shapes_said([each.shape for each in tensors_of(targets)])
        raise DataError(f"each image needs a picture [C, H, W] with levels from 0 to 1, and the data set gives {said}")
    return wanted


def _ssim(made: Tensor, wanted: Tensor) -> float:
    """The structural similarity of two pictures [C, H, W]. Raises DataError where they are smaller than the window."""
    check_extra("data", "structural similarity needs", "skimage")
    from skimage.metrics import structural_similarity  # it takes half a second to import

    if min(made.shape[1:]) < WINDOW:
        raise DataError(f"SSIM needs pictures of at least {WINDOW}x{WINDOW}; use PSNR (the task 'restoration')")
    return float(
        structural_similarity(
            made.numpy(),
            wanted.numpy(),
            data_range=1.0,
            channel_axis=0,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
        )
    )
