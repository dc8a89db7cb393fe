"""Imitation: give what the original gave. It needs no labels, and takes any number of outputs of any shape.

For each output y with deviation s over the calibration images, and t of the original, the loss of an image is

    1/2 mean((y - t)^2) / s^2

which is the negative log-likelihood of a Gaussian around y, per element. The Fisher information of its outputs is
estimated by projecting the error at random: the gradient of z . y / (s sqrt(elements)), z normal, has the expected
square of the Jacobian (Martens 2020, arXiv 1412.1193, sec. 6).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from slimwright.data import Batch, Dataset, Part, Targets, tensors_of
from slimwright.errors import DataError
from slimwright.tasks.task import Forward, Metric, Outputs

LEAST_DEVIATION = 1e-6
"""Of an output's root mean square: an output that varies less is as good as constant, and is measured by its size."""


@dataclass(frozen=True)
class Imitation:
    """Outputs shall be those of the original; `deviations` are how much each of them varies."""

    deviations: tuple[float, ...]
    name: str = "imitation"

    @property
    def metric(self) -> Metric:
        """The distance to what the original gave."""
        return Metric("relative error", higher_is_better=False)

    @property
    def classes(self) -> tuple[str, ...]:
        """Evidence is kept as one."""
        return ("all",)

    @property
    def outputs(self) -> int:
        """Number of outputs of the network."""
        return len(self.deviations)

    def check(self, shapes: Sequence[Sequence[int]]) -> None:
        """Raise DataError where the net has another number of outputs than the original."""
        if len(shapes) != self.outputs:
            raise DataError(f"the model returns {len(shapes)} outputs, the original {self.outputs}")

    def data(self, data: Dataset, original: Forward) -> Dataset:
        """Return the data set with the original's outputs as targets."""
        return Imitated(data, original)

    def class_of(self, targets: Targets) -> Tensor:
        """Return zeros [N]."""
        return torch.zeros(len(tensors_of(targets)[0]), dtype=torch.int64)

    def loss(self, outputs: Outputs, targets: Targets, *, label_smoothing: float = 0.0) -> Tensor:
        """Return half the squared relative error [N], the mean over outputs."""
        return 0.5 * self._squares(outputs, tensors_of(targets)).mean(0)

    def drawn_loss(self, outputs: Outputs, numbers: Tensor) -> Tensor:
        """Return the summed random projection of the outputs."""
        drawn = [torch.Generator().manual_seed(int(number * 2**53)) for number in numbers.tolist()]
        total = outputs[0].new_zeros(())
        for output, deviation in zip(outputs, self.deviations, strict=True):
            shape, elements = output.shape[1:], max(output[0].numel(), 1)
            direction = torch.stack([torch.randn(shape, generator=each) for each in drawn]).to(output)
            total = total + (direction * output).sum() / (deviation * (elements * self.outputs) ** 0.5)
        return total

    def distance(self, outputs: Outputs, wanted: Outputs, temperature: float) -> Tensor:
        """Return the mean loss against a teacher's outputs."""
        return 0.5 * self._squares(outputs, wanted).mean()

    def score(self, outputs: Outputs, targets: Targets) -> float:
        """Return the root mean square of the relative error, in percent."""
        return 100 * float(self._squares(outputs, tensors_of(targets)).double().mean().sqrt())

    def agreement(self, found: Outputs, expected: Outputs) -> float:
        """Return the share of images on which outputs that look like scores have the same largest; 1 without any."""
        scores = [
            (mine.argmax(1) == its.argmax(1)).float().mean()
            for mine, its in zip(found, expected, strict=True)
            if its.ndim == 2 and its.shape[1] > 1
        ]
        return min((float(share) for share in scores), default=1.0)

    def _squares(self, outputs: Outputs, wanted: Outputs) -> Tensor:
        """Mean squared error over squared deviation: [outputs, N]."""
        return torch.stack(
            [
                ((mine - its.to(mine)).square().flatten(1).mean(1)) / deviation**2
                for mine, its, deviation in zip(outputs, wanted, self.deviations, strict=True)
            ]
        )


@dataclass(frozen=True)
class Imitated:
    """A data set whose targets are what the original gives."""

    inner: Dataset
    original: Forward

    @property
    def name(self) -> str:
        """How reports call it."""
        return self.inner.name

    @property
    def labels(self) -> tuple[str, ...]:
        """None: images have no classes here."""
        return ()

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """[C, H, W] of every image."""
        return self.inner.image_shape

    @property
    def preprocessing(self) -> Mapping[str, object]:
        """What was done to raw images."""
        return self.inner.preprocessing

    def size(self, part: Part) -> int:
        """Number of images in a part."""
        return self.inner.size(part)

    def batches(self, part: Part, batch_size: int, *, seed: int | None = None) -> Iterator[Batch]:
        """Yield a part once, with the original's outputs as targets."""
        for inputs, _ in self.inner.batches(part, batch_size, seed=seed):
            yield inputs, self.original(inputs)


def imitating(data: Dataset, original: Forward) -> Imitation:
    """Return the task of imitating a network, with its outputs' deviations over the calibration part.

    Raises DataError where the original's outputs are not finite.
    """
    totals: list[Tensor] = []
    for inputs, _ in data.batches("calibration", 64):
        sums = torch.stack([_moments(output) for output in original(inputs)])
        totals.append(sums)
    if not totals:
        raise DataError(f"data set '{data.name}' has no calibration images; every part needs at least one")
    counts, first, second = torch.stack(totals).sum(0).unbind(1)
    if not bool(torch.isfinite(second).all()):
        raise DataError("the original's outputs for some images are NaN or infinite; check the images and the weights")
    square = second / counts
    variance = (square - (first / counts).square()).clamp_min(0)
    deviation = torch.where(variance > LEAST_DEVIATION**2 * square, variance, square).sqrt()
    return Imitation(tuple(float(d) or 1.0 for d in deviation))


def _moments(output: Tensor) -> Tensor:
    """Count, sum and sum of squares [3] of an output, in float64."""
    values = output.detach().cpu().double()
    return torch.stack([torch.tensor(float(values.numel()), dtype=torch.float64), values.sum(), values.square().sum()])
