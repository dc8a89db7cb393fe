"""CenterNet: the centre of each object is a peak of its class's map, where its size and the centre's offset are read.

    heat map [N, K, h, w]    size [N, 2, h, w]    offset [N, 2, h, w]    width before height, in cells of the maps

The loss is the focal loss of the heat map, whose targets are Gaussians around the centres, plus L1 of size and offset
at the centres, over the number of objects. Source: Zhou et al. 2019 (arXiv 1904.07850), sec. 3 and 4. The Gaussians are
those of TTFNet, as wide and high as the box: Liu et al. 2020 (arXiv 1909.00700), sec. 3.2.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from slimwright.tasks.detection.boxes import LEAST_SCORE, MOST
from slimwright.tasks.task import Outputs

SIZE_WEIGHT = 0.1  # lambda_size, sec. 3
FOCUS, FADE = 2, 4  # alpha and beta of the focal loss
SPREAD = 0.54 / 6  # of a Gaussian's deviation, of the box's side
LEAST_SPREAD = 0.2  # cells
LEAST_WEIGHT = 1e-3


@dataclass(frozen=True)
class CenterNet:
    """The three maps, in this order; `cell` is the width and height of a cell in pixels."""

    classes: int
    cell: tuple[float, float]
    logits: bool  # the heat map is not yet a probability

    @property
    def said(self) -> str:
        """What people call it."""
        return f"CenterNet, {self.classes} classes, cells of {self.cell[0]:g}x{self.cell[1]:g} pixels"

    def decode(self, outputs: Outputs) -> Sequence[Tensor]:
        """Return each image's detections [D, 6]: the peaks of the maps, which no neighbour is higher than."""
        heat, size, offset = (output.detach().float().cpu() for output in (self._heat(outputs), *outputs[1:]))
        heat = heat.nan_to_num(0.0)
        _, classes, height, width = heat.shape
        peaks = torch.where(F.max_pool2d(heat, 3, 1, 1) == heat, heat, 0)
        scores, places = peaks.flatten(1).topk(min(MOST, classes * height * width))  # [N, D]
        kinds, cells = places // (height * width), places % (height * width)
        at = torch.stack([cells % width, cells // width], -1)  # [N, D, 2]
        around = torch.stack([_picked(size, cells), _picked(offset, cells)])
        centre, half = at + around[1], around[0] / 2
        boxes = torch.cat([centre - half, centre + half], -1) * heat.new_tensor([*self.cell, *self.cell])
        rows = torch.cat([boxes, scores[..., None], kinds[..., None].float()], -1)
        return [one[(one[:, 4] > LEAST_SCORE) & torch.isfinite(one).all(1)] for one in rows]

    def parts(self, outputs: Outputs, seen: Outputs) -> tuple[Tensor, ...]:
        """Return the three maps, size and offset weighed by the heat of the cell."""
        weight = self._heat(seen).detach().amax(1, keepdim=True).clamp_min(LEAST_WEIGHT).sqrt()
        return self._heat(outputs), outputs[1] * weight, outputs[2] * weight

    def loss(self, outputs: Outputs, boxes: Tensor) -> Tensor:
        """Return the loss [N] against boxes [N, M, 5]: class, x1, y1, x2, y2 in pixels; class -1 is none."""
        heat, size, offset = outputs
        wanted = _Wanted.of(boxes.to(heat), self.cell, heat.shape)
        focal = self._focal(heat, wanted.heat).sum((1, 2, 3))
        errors = [
            (_picked(found, wanted.cells) - aim).abs().sum(2) * wanted.there
            for found, aim in ((size, wanted.size), (offset, wanted.offset))
        ]
        far = SIZE_WEIGHT * errors[0].sum(1) + errors[1].sum(1)
        return (focal + far) / wanted.there.sum(1).clamp_min(1)

    def _focal(self, heat: Tensor, wanted: Tensor) -> Tensor:
        if self.logits:
            likely, log_yes, log_no = heat.sigmoid(), F.logsigmoid(heat), F.logsigmoid(-heat)
        else:
            likely = heat.clamp(1e-4, 1 - 1e-4)  # as in the authors' code
            log_yes, log_no = likely.log(), (-likely).log1p()
        centre = wanted == 1
        return -torch.where(
            centre, (1 - likely) ** FOCUS * log_yes, (1 - wanted) ** FADE * likely**FOCUS * log_no
        )  # [N, K, h, w]

    def _heat(self, outputs: Outputs) -> Tensor:
        return outputs[0].sigmoid() if self.logits else outputs[0]


@dataclass(frozen=True)
class _Wanted:
    """What the maps should hold, of M boxes an image."""

    heat: Tensor  # [N, K, h, w], 1 at centres
    cells: Tensor  # [N, M], the number of the cell of each centre
    size: Tensor  # [N, M, 2], in cells
    offset: Tensor  # [N, M, 2], of the centre in its cell
    there: Tensor  # [N, M], 1 where there is a box

    @classmethod
    def of(cls, boxes: Tensor, cell: tuple[float, float], shape: Sequence[int]) -> "_Wanted":
        count, classes, height, width = shape
        there = boxes[..., 0] >= 0
        unit, last = boxes.new_tensor(cell), boxes.new_tensor([width - 1, height - 1])
        low, high = boxes[..., 1:3] / unit, boxes[..., 3:5] / unit
        size, centre = (high - low).clamp_min(0), (low + high) / 2
        at = torch.minimum(centre.floor().clamp_min(0), last)  # [N, M, 2]
        spread = (size * SPREAD).clamp_min(LEAST_SPREAD)
        x, y = torch.arange(width).to(boxes), torch.arange(height).to(boxes)
        heat = boxes.new_zeros(count, classes, height, width)
        images = torch.arange(count, device=boxes.device)
        for place in range(boxes.shape[1]):  # one box of each image at a time, as all maps of all would fill memory
            across = ((x - at[:, place, 0, None]) / spread[:, place, 0, None]).square()  # [N, w]
            down = ((y - at[:, place, 1, None]) / spread[:, place, 1, None]).square()  # [N, h]
            blob = torch.exp(-(down[:, :, None] + across[:, None, :]) / 2) * there[:, place, None, None]
            kinds = boxes[:, place, 0].long().clamp_min(0)
            heat[images, kinds] = torch.maximum(heat[images, kinds], blob)
        cells = (at[..., 1] * width + at[..., 0]).long()
        return cls(heat, cells, size, centre - at, there.to(boxes))


def _picked(maps: Tensor, cells: Tensor) -> Tensor:
    """The values [N, D, 2] of maps [N, 2, h, w] in some cells [N, D]."""
    return maps.flatten(2).gather(2, cells[:, None, :].expand(-1, 2, -1)).mT
