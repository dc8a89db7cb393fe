"""Detection: boxes with a class and a score. Targets [N, M, 5] are class, x1, y1, x2, y2; rows with class -1 are none.

Coordinates are pixels of the picture as the network sees it. The metric is COCO's. How a head learns from boxes is its
own business, so the loss is the distance to the original's outputs, as in imitation; where the outputs are CenterNet's,
whose loss needs nothing but its maps, it is that.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from slimwright.data import Dataset, Targets, no_images, tensors_of
from slimwright.errors import DataError
from slimwright.tasks.detection.boxes import MOST, overlaps
from slimwright.tasks.detection.centernet import CenterNet
from slimwright.tasks.detection.forms import Decode, EndToEnd, Form, form_of_own
from slimwright.tasks.detection.guessing import form_of
from slimwright.tasks.detection.precision import ALL, HALF, mean_average_precision
from slimwright.tasks.imitation import Imitation, imitated, imitating
from slimwright.tasks.task import Forward, Metric, Outputs

LOOKED_AT = 8  # calibration images, on which the form of the outputs is told
SURE, LIKELY = 0.25, 0.125  # scores: of detections that must be found again, and of those that count as found
SAME = 0.5  # intersection over union of one object's boxes


@dataclass(frozen=True, repr=False)
class Detection:
    """Boxes of some classes; `decode` is the form of the outputs, or a function from outputs to detections.

    The function returns for each image rows [D, 6] of x1, y1, x2, y2, score and class. `deviations` are how much each
    part of the form varies.
    """

    labels: tuple[str, ...]
    decode: Form | Decode
    outputs: int = 1
    deviations: tuple[float, ...] = ()
    half: bool = False  # an overlap of one half is enough

    @property
    def name(self) -> str:
        """How the task is named."""
        return "detection-50" if self.half else "detection"

    @property
    def metric(self) -> Metric:
        """The mean average precision."""
        return Metric("mAP@.5" if self.half else "mAP@[.5:.95]")

    @property
    def classes(self) -> tuple[str, ...]:
        """Evidence is kept as one: an image has no single class."""
        return ("all",)

    @property
    def form(self) -> Form:
        """How outputs say which boxes there are."""
        return form_of_own(self.decode)

    @property
    def said(self) -> str:
        """As what the outputs are read."""
        return f"read as: {self.form.said}"

    def __repr__(self) -> str:
        """All that shapes results; a function by its name, so that another process can go on with a job."""
        return f"Detection({self.labels}, {self.form!r}, {self.outputs}, {self.deviations}, half={self.half})"

    def check(self, shapes: Sequence[Sequence[int]]) -> None:
        """Raise DataError where the net has another number of outputs."""
        if len(shapes) != self.outputs:
            raise DataError(
                f"the model returns {len(shapes)} outputs, and this detection decodes {self.outputs}; a function of "
                f"your own says so: Detection(labels, decode=my_decode, outputs={len(shapes)})"
            )

    def data(self, data: Dataset, original: Forward) -> Dataset:
        """Return the data set with the original's outputs behind its boxes, where the loss needs them."""
        return data if isinstance(self.form, CenterNet) else imitated(data, original, beside=True)

    def class_of(self, targets: Targets) -> Tensor:
        """Return zeros [N]."""
        boxes = boxes_of(targets)
        return boxes.new_zeros(len(boxes), dtype=torch.int64)

    def loss(self, outputs: Outputs, targets: Targets, *, label_smoothing: float = 0.0) -> Tensor:
        """Return CenterNet's loss [N], or half the squared relative error, the mean over parts."""
        if isinstance(self.form, CenterNet):
            return self.form.loss(outputs, boxes_of(targets))
        seen = tuple(output.to(outputs[0].device) for output in tensors_of(targets)[1:])
        if len(seen) != len(outputs):
            raise DataError(
                "the targets hold no outputs of the original; give what `task.data(data, original)` returns"
            )
        made, wanted = self.form.parts(outputs, seen), self.form.parts(seen, seen)
        return self._imitating(made).loss(made, wanted)

    def drawn_loss(self, outputs: Outputs, numbers: Tensor) -> Tensor:
        """Return the summed random projection of the parts."""
        made = self.form.parts(outputs, outputs)
        return self._imitating(made).drawn_loss(made, numbers)

    def distance(self, outputs: Outputs, wanted: Outputs, temperature: float) -> Tensor:
        """Return the mean distance of the parts to a teacher's; a temperature has no meaning here."""
        made = self.form.parts(outputs, wanted)
        return self._imitating(made).distance(made, self.form.parts(wanted, wanted), temperature)

    def score(self, outputs: Outputs, targets: Targets) -> float:
        """Return the mean average precision in percent. Raises DataError where there are no boxes."""
        found, wanted = self.form.decode(outputs), boxes_of(targets).detach().cpu()
        return mean_average_precision(found, wanted, classes=len(self.labels), overlaps=HALF if self.half else ALL)

    def condensed(self, outputs: Outputs) -> tuple["Detection", Outputs]:
        """Return the detections as outputs [N, 100, 6] of a network that chose them, and the task that reads those."""
        rows = torch.zeros(len(outputs[0]), MOST, 6)
        for image, found in zip(rows, self.form.decode(outputs), strict=True):
            image[: len(found)] = found[:MOST]
        return replace(self, decode=EndToEnd((1.0, 1.0)), outputs=1, deviations=()), (rows,)

    def agreement(self, found: Outputs, expected: Outputs) -> float:
        """Return the share of either side's sure detections that the other has; 1 where there are none."""
        mine, its = self.form.decode(found), self.form.decode(expected)
        again = [part for pair in zip(mine, its, strict=True) for part in (_again(*pair), _again(*reversed(pair)))]
        every = torch.cat(again) if again else torch.zeros(0)
        return float(every.double().mean()) if len(every) else 1.0

    def _imitating(self, parts: Outputs) -> Imitation:
        return Imitation(self.deviations or (1.0,) * len(parts))


def detecting(
    data: Dataset, original: Forward, *, decode: Form | Decode | None = None, half: bool = False
) -> Detection:
    """Return the task of detecting the classes of `data`; without `decode` some calibration images tell the form.

    Raises DataError where there are no calibration images, or the outputs are of no known form.
    """
    first = next(data.batches("calibration", LOOKED_AT), None)
    if first is None:
        raise no_images(data.name, "calibration")
    outputs = original(first[0])
    form = form_of_own(decode) if decode else form_of(outputs, len(data.labels), data.image_shape)
    spread = imitating(data, lambda inputs: _own_parts(form, original(inputs)))
    return Detection(data.labels, form, len(outputs), spread.deviations, half)


def boxes_of(targets: Targets) -> Tensor:
    """Return the boxes [N, M, 5]. Raises DataError for any other targets."""
    boxes = tensors_of(targets)[0]
    if boxes.ndim != 3 or boxes.shape[2] != 5:
        raise DataError(
            f"boxes are [N, M, 5], each class, x1, y1, x2, y2, and the data set gives {list(boxes.shape)}; rows with "
            "class -1 fill up those of images with fewer"
        )
    return boxes


def _own_parts(form: Form, outputs: Outputs) -> Outputs:
    return form.parts(outputs, outputs)


def _again(mine: Tensor, its: Tensor) -> Tensor:
    """Whether each of my sure detections is one of its, by class and place."""
    sure, other = mine[mine[:, 4] > SURE], its[its[:, 4] > LIKELY]
    alike = sure[:, None, 5] == other[None, :, 5]
    return ((overlaps(sure[:, :4], other[:, :4]) >= SAME) & alike).any(1)
