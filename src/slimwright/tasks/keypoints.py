"""Keypoints: where K points of an image are, as heat maps or as coordinates.

- Heat maps [N, K, h, w]: the largest cell, moved a quarter of a cell towards its larger neighbour in each direction,
  times the input's size over the map's (Newell et al. 2016, arXiv 1603.06937, sec. 3.1; Xiao et al. 2018, arXiv
  1804.06208, and their code). The loss is the squared error to Gaussians of 2 cells' deviation and height 1 around the
  marked points.
- Coordinates [N, 2K] or [N, K, 2], x before y: shares of the input's width and height where the original's outputs for
  calibration images lie within -0.5 to 1.5, else pixels. The loss is the squared error of the marked points.

Either is in units of the targets' deviation (`gaussian.py`). The metric is the percentage of correct keypoints,
PCK@0.1 (Yang and Ramanan 2013, Articulated human detection with flexible mixtures of parts, sec. 6): a marked point is
correct if it is found within 0.1 of the longer side of the box around the image's marked points. Where those are fewer
than two, or lie on one spot, the longer side of the image counts.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from slimwright.data import Dataset, Targets, tensors_of
from slimwright.errors import DataError
from slimwright.tasks.gaussian import projected, squares
from slimwright.tasks.task import Forward, Metric, Outputs, seeds_of, shapes_said

NEAR = 0.1  # of the box
SIGMA = 2.0  # cells
QUARTER = 0.25
LEAST_SHARE, MOST_SHARE = -0.5, 1.5  # coordinates that are shares of the input's size
LEAST_BOX = 1e-3  # pixels


@dataclass(frozen=True)
class Keypoints:
    """Outputs shall say where `points` points are in an image of `height` x `width` pixels.

    `deviation` is that of coordinates, in the outputs' unit, where outputs are coordinates. Targets are [N, K, 3]: x, y
    in pixels, and 1 where a point is marked.
    """

    points: int
    height: int
    width: int
    shares: bool = False  # coordinates of the input's size, not pixels
    deviation: float = 1.0
    outputs: int = 1
    name: str = "keypoints"

    @property
    def metric(self) -> Metric:
        """The share of points that are found."""
        return Metric(f"PCK@{NEAR:g}")

    @property
    def classes(self) -> tuple[str, ...]:
        """Evidence is kept as one."""
        return ("all",)

    def check(self, shapes: Sequence[Sequence[int]]) -> None:
        """Raise DataError unless there is one output of heat maps or coordinates for each point."""
        count = self.points
        found = tuple(shapes[0][1:]) if len(shapes) == 1 else ()
        if not (found in ((2 * count,), (count, 2)) or (len(found) == 3 and found[0] == count)):
            raise DataError(
                f"the model returns {shapes_said(shapes)}, and the data has {count} points; a net for them "
                f"returns heat maps [1, {count}, H, W] or coordinates [1, {2 * count}]. For a net of any other kind, "
                "choose the task 'imitation'"
            )

    def data(self, data: Dataset, original: Forward) -> Dataset:
        """Return the data set: its points are the targets."""
        return data

    def class_of(self, targets: Targets) -> Tensor:
        """Return zeros [N]."""
        marked = _marked(targets)
        return marked.new_zeros(len(marked), dtype=torch.int64)

    def loss(self, outputs: Outputs, targets: Targets, *, label_smoothing: float = 0.0) -> Tensor:
        """Return half the squared error [N], over the marked points, in units of the deviation."""
        made, marked = outputs[0], _marked(targets).to(outputs[0].device)
        seen = marked[..., 2] > 0  # [N, K]
        if made.ndim == 4:
            wanted, deviation = self._maps(marked, made), _deviation_of_maps(made)
            each = (made - wanted).square().mean((2, 3)) / deviation**2  # [N, K]
        else:
            wanted = marked[..., :2] / self._unit(marked)
            each = (self._pairs(made) - wanted).square().mean(2) / self.deviation**2
        return 0.5 * (each * seen).sum(1) / seen.sum(1).clamp_min(1)

    def drawn_loss(self, outputs: Outputs, numbers: Tensor) -> Tensor:
        """Return the summed random projection of the output."""
        return projected(outputs[0], self._deviation(outputs[0]), seeds_of(numbers))

    def distance(self, outputs: Outputs, wanted: Outputs, temperature: float) -> Tensor:
        """Return the mean loss against a teacher's output; a temperature has no meaning here."""
        return 0.5 * squares(outputs[0], wanted[0], self._deviation(wanted[0])).mean()

    def score(self, outputs: Outputs, targets: Targets) -> float:
        """Return the share of marked points that are found, in percent. Raises DataError where none is marked."""
        marked = _marked(targets).double().cpu()
        seen = marked[..., 2] > 0
        if not bool(seen.any()):
            raise DataError(f"no point is marked in any of {len(marked)} images; the metric needs at least one")
        near = self._near(self._places(outputs[0]), marked[..., :2], seen)
        return 100 * float(near[seen].double().mean())

    def agreement(self, found: Outputs, expected: Outputs) -> float:
        """Return the share of points that are within the metric's distance of one another."""
        places = self._places(expected[0])
        near = self._near(self._places(found[0]), places, torch.ones(places.shape[:2], dtype=torch.bool))
        return float(near.double().mean())

    def _deviation(self, output: Tensor) -> float:
        return _deviation_of_maps(output) if output.ndim == 4 else self.deviation

    def _near(self, found: Tensor, wanted: Tensor, seen: Tensor) -> Tensor:
        """Whether points [N, K, 2] are within `NEAR` of the box of the `seen` ones [N, K]."""
        low = wanted.masked_fill(~seen[..., None], math.inf).amin(1)
        high = wanted.masked_fill(~seen[..., None], -math.inf).amax(1)
        side = (high - low).amax(1)  # [N]
        side = torch.where(side > LEAST_BOX, side, torch.full_like(side, max(self.height, self.width)))
        far: Tensor = torch.linalg.vector_norm(found - wanted, dim=2)
        return far <= NEAR * side[:, None]

    def _places(self, output: Tensor) -> Tensor:
        """Points [N, K, 2] in pixels of the input, float64 on the processor."""
        made = output.detach().cpu().double()
        if made.ndim < 4:
            return self._pairs(made) * self._unit(made)
        cell = made.new_tensor([self.width / made.shape[3], self.height / made.shape[2]])
        return peaks(made) * cell

    def _pairs(self, made: Tensor) -> Tensor:
        return made.reshape(len(made), self.points, 2)

    def _unit(self, like: Tensor) -> Tensor:
        """Pixels [2] of an output of 1."""
        return like.new_tensor([self.width, self.height] if self.shares else [1, 1])

    def _maps(self, marked: Tensor, made: Tensor) -> Tensor:
        """Gaussians [N, K, h, w] of height 1 around marked points [N, K, 3]."""
        height, width = made.shape[2:]
        places = marked[..., :2] * marked.new_tensor([width / self.width, height / self.height])  # cells
        across = torch.arange(width, device=made.device) - places[..., :1]  # [N, K, w]
        down = torch.arange(height, device=made.device) - places[..., 1:]
        squared = down.square()[..., :, None] + across.square()[..., None, :]
        return torch.exp(-squared / (2 * SIGMA**2))


def locating(data: Dataset, original: Forward) -> Keypoints:
    """Return the task of finding points, for outputs as the original gives them for some calibration images."""
    _, height, width = data.image_shape
    found: list[Tensor] = []
    output: Tensor | None = None
    for inputs, targets in data.batches("calibration", 16):
        output = original(inputs)[0].detach() if output is None else output
        marked = _marked(targets)
        found.append(marked[..., :2][marked[..., 2] > 0].double())
        points = marked.shape[1]
    assert output is not None
    if output.ndim == 4:
        return Keypoints(points, height, width)
    shares = float(output.min()) >= LEAST_SHARE and float(output.max()) <= MOST_SHARE
    places = torch.cat(found) / torch.tensor([width, height] if shares else [1, 1])
    deviation = float((places - places.mean(0)).square().mean().sqrt()) if len(places) > 1 else 0.0
    return Keypoints(points, height, width, shares, deviation or 1.0)


def peaks(maps: Tensor) -> Tensor:
    """Return where heat maps [N, K, h, w] are largest, x before y, in cells [N, K, 2]: to a quarter of a cell."""
    height, width = maps.shape[2:]
    flat = torch.nan_to_num(maps, nan=-math.inf).flatten(2).argmax(2)  # [N, K]
    down, across = flat // width, flat % width

    def at(rows: Tensor, columns: Tensor) -> Tensor:
        inside = rows.clamp(0, height - 1) * width + columns.clamp(0, width - 1)
        return maps.flatten(2).gather(2, inside[..., None])[..., 0]

    sideways = (at(down, across + 1) - at(down, across - 1)).sign() * ((across > 0) & (across < width - 1))
    upwards = (at(down + 1, across) - at(down - 1, across)).sign() * ((down > 0) & (down < height - 1))
    return torch.stack([across + QUARTER * sideways, down + QUARTER * upwards], 2)


def _deviation_of_maps(maps: Tensor) -> float:
    """The deviation of a Gaussian's values over its map, if it lies in it as a whole."""
    cells = maps.shape[2] * maps.shape[3]
    mean, square = 2 * math.pi * SIGMA**2 / cells, math.pi * SIGMA**2 / cells
    return math.sqrt(max(square - mean**2, square / 2))


def _marked(targets: Targets) -> Tensor:
    """The targets [N, K, 3]. Raises DataError for any others."""
    marked, *others = tensors_of(targets)
    if others or marked.ndim != 3 or marked.shape[2] != 3:
        raise DataError(
            "each image needs points [K, 3], x and y in pixels and 1 where they are marked, and the data set gives "
            f"{shapes_said([each.shape for each in tensors_of(targets)])}"
        )
    return marked.float()
