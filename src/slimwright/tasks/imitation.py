"""Imitation: give what the original gave. It needs no labels, and takes any number of outputs of any shape.

An output is the mean of a Gaussian (`gaussian.py`) around what the original gave, its deviation that of the output over
the calibration images; of several outputs the loss is the mean. Outputs that are whole numbers count in the loss and
the metric, and have no gradient. Outputs that are probabilities for all of those images are taken as such
(`categorical.py`): an error of 0.01 counts for more at 0.01 than at 0.5. The metric is that of the Gaussians for all.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from slimwright.data import Batch, Dataset, Part, Targets, count_of, no_images, taken, tensors_of
from slimwright.errors import DataError
from slimwright.tasks.categorical import class_dims, divergence, drawn_entropy
from slimwright.tasks.gaussian import LEAST_DEVIATION, projected, squares
from slimwright.tasks.task import Forward, Metric, Outputs, seeds_of

HELD_BYTES = 1e8  # of a part's outputs, which are not computed again
DEVIATION_IMAGES = 64  # at least, if there are as many: the original runs on these whenever a job starts


@dataclass(frozen=True)
class Imitation:
    """Outputs shall be those of the original; `deviations` are how much each of them varies.

    `dims` are the dimensions along which outputs are probabilities, 0 for one that is not; without any, none is.
    """

    deviations: tuple[float, ...]
    name: str = "imitation"
    dims: tuple[int, ...] = ()

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
            raise DataError(
                f"the model returns {len(shapes)} outputs, and the original that it shall imitate {self.outputs}"
            )

    def data(self, data: Dataset, original: Forward) -> Dataset:
        """Return the data set with the original's outputs as targets; one that has them already stays."""
        return imitated(data, original)

    def class_of(self, targets: Targets) -> Tensor:
        """Return zeros [N]."""
        first = tensors_of(targets)[0]
        return first.new_zeros(len(first), dtype=torch.int64)

    def loss(self, outputs: Outputs, targets: Targets, *, label_smoothing: float = 0.0) -> Tensor:
        """Return half the squared relative error or the divergence [N], the mean over outputs."""
        return self._losses(outputs, tensors_of(targets)).mean(0)

    def drawn_loss(self, outputs: Outputs, numbers: Tensor) -> Tensor:
        """Return the summed random projection of the outputs; of probabilities, the loss of classes that are drawn."""
        seeds = seeds_of(numbers)
        total = torch.zeros((), device=outputs[0].device)
        for output, deviation, dim in zip(outputs, self.deviations, self._dims, strict=True):
            if dim:
                total = total + drawn_entropy(output, dim, seeds) / math.sqrt(self.outputs)
            elif output.is_floating_point():
                total = total + projected(output, deviation * math.sqrt(self.outputs), seeds)
        return total

    def distance(self, outputs: Outputs, wanted: Outputs, temperature: float) -> Tensor:
        """Return the mean loss against a teacher's outputs; a temperature has no meaning here."""
        return self._losses(outputs, wanted).mean()

    def score(self, outputs: Outputs, targets: Targets) -> float:
        """Return the root mean square of the relative error, in percent; infinite where an output is not a number."""
        error = 100 * float(self._squares(outputs, tensors_of(targets)).detach().double().mean().sqrt())
        return math.inf if math.isnan(error) else error

    def agreement(self, found: Outputs, expected: Outputs) -> float:
        """Return the share of images on which outputs that look like scores have the same largest; 1 without any.

        Of several such outputs it is the least share.
        """
        shares = [
            float((mine.argmax(1) == its.argmax(1)).double().mean())
            for mine, its in zip(found, expected, strict=True)
            if its.ndim == 2 and its.shape[1] > 1
        ]
        return min(shares, default=1.0)

    @property
    def _dims(self) -> tuple[int, ...]:
        return self.dims or (0,) * self.outputs

    def _losses(self, outputs: Outputs, wanted: Outputs) -> Tensor:
        """The loss of each output: [outputs, N]."""
        each = zip(outputs, wanted, self.deviations, self._dims, strict=True)
        return torch.stack(
            [divergence(mine, its, dim) if dim else 0.5 * squares(mine, its, size) for mine, its, size, dim in each]
        )

    def _squares(self, outputs: Outputs, wanted: Outputs) -> Tensor:
        """The mean squared error over the squared deviation: [outputs, N]."""
        return torch.stack(
            [squares(mine, its, size) for mine, its, size in zip(outputs, wanted, self.deviations, strict=True)]
        )


@dataclass(frozen=True)
class Imitated:
    """A data set whose targets are what the original gives, behind those that it has if they are `beside`."""

    inner: Dataset
    original: Forward
    beside: bool = False
    kept: dict[Part, Outputs] = field(default_factory=dict, repr=False, compare=False)  # of parts in order, if small

    @property
    def name(self) -> str:
        """How reports call it."""
        return self.inner.name

    @property
    def labels(self) -> tuple[str, ...]:
        """None, unless the data set's own targets stay: outputs have no classes."""
        return self.inner.labels if self.beside else ()

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """[C, H, W] of every image; of several inputs, of the first that is images."""
        return self.inner.image_shape

    @property
    def preprocessing(self) -> Mapping[str, object]:
        """What was done to raw images."""
        return self.inner.preprocessing

    def size(self, part: Part) -> int:
        """Number of images in a part."""
        return self.inner.size(part)

    def batches(self, part: Part, batch_size: int, *, seed: int | None = None) -> Iterator[Batch]:
        """Yield a part once, with the original's outputs as targets, on the processor.

        In order, those of a part are computed once, unless they take too much memory to be kept.
        """
        known = self.kept.get(part) if seed is None else None
        made: list[Outputs] = []
        done = held = 0
        for inputs, targets in self.inner.batches(part, batch_size, seed=seed):
            count, own = count_of(inputs), tensors_of(targets) if self.beside else ()
            if known is not None:
                yield inputs, own + tuple(output[done : done + count] for output in known)
            else:
                outputs = tuple(output.detach().cpu() for output in self.original(inputs))
                held += sum(output.nbytes for output in outputs)
                if seed is None and held <= HELD_BYTES:
                    made.append(outputs)
                yield inputs, own + outputs
            done += count
        if made and held <= HELD_BYTES:
            self.kept[part] = tuple(torch.cat(parts) for parts in zip(*made, strict=True))


def imitated(data: Dataset, original: Forward, *, beside: bool = False) -> Dataset:
    """Return a data set with what `original` gives as targets; one that has them already stays."""
    return data if isinstance(data, Imitated) else Imitated(data, original, beside)


def untaught(data: Dataset, original: Forward) -> Dataset:
    """Return a data set without targets that only say what `original` gives."""
    return data.inner if isinstance(data, Imitated) and data.original == original else data


def known_outputs(data: Dataset, targets: Targets, original: Forward, count: int) -> Outputs | None:
    """Return the last `count` targets of `data`, where those are what `original` gave; else None."""
    return tensors_of(targets)[-count:] if isinstance(data, Imitated) and data.original == original else None


def imitating(data: Dataset, original: Forward) -> Imitation:
    """Return the task of imitating a network, with its outputs' deviations over some of the calibration part.

    Raises DataError where there are no calibration images, or the original's outputs for them are not finite.
    """
    every = max(data.size("calibration") // DEVIATION_IMAGES, 1)
    totals: list[Tensor] = []  # each [outputs, 3]
    known: list[list[set[int]]] = []  # of each batch and output
    start = 0
    for inputs, _ in data.batches("calibration", 64):
        some = slice(-start % every, None, every)
        start += count_of(inputs)
        if count_of(chosen := taken(inputs, some)):
            outputs = original(chosen)
            totals.append(torch.stack([_moments(output) for output in outputs]))
            known.append([class_dims(output) for output in outputs])
    if not totals:
        raise no_images(data.name, "calibration")
    counts, first, second = torch.stack(totals).sum(0).unbind(1)
    if not bool(torch.isfinite(second).all()):
        raise DataError("the original's outputs for some images are NaN or infinite; check the images and the weights")
    counts = counts.clamp_min(1)
    square = second / counts
    variance = square - (first / counts).square()
    # An output that is as good as constant is measured by its size.
    deviation = torch.where(variance > LEAST_DEVIATION**2 * square, variance, square).sqrt()
    dims = tuple(max(set.intersection(*found), default=0) for found in zip(*known, strict=True))
    return Imitation(tuple(float(d) or 1.0 for d in deviation), dims=dims if any(dims) else ())


def _moments(output: Tensor) -> Tensor:
    """Count, sum and sum of squares [3] of an output, in float64."""
    values = output.detach().cpu().double()
    return torch.stack([torch.tensor(float(values.numel()), dtype=torch.float64), values.sum(), values.square().sum()])
