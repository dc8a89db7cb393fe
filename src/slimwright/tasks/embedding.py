"""Embedding: one output [N, D]; images of one identity lie near each other by the cosine of their embeddings.

The metric is the true accept rate (TAR) at a false accept rate (FAR) of 1 %: the share of pairs of one identity that
lie nearer than all but 1 % of the pairs of two (as IJB-A reports it, Klare et al. 2015, CVPR), here over all pairs of a
part. Recall@1 is the share of images whose nearest other image shows the same identity (Jegou et al. 2011, IEEE TPAMI
33(1)).

Labels do not train an embedding here. The loss is the distance of an embedding y, whose deviation is s, to the
original's, t:

    1 - cos(y, t) + 1/2 mean((y - t)^2) / s^2

As 1 - cos(y, t) = 1/2 |y/|y| - t/|t||^2, its Gauss-Newton matrix is estimated by random projections of y and of y/|y|.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from slimwright.data import Dataset, Targets, labels_of, tensors_of
from slimwright.errors import DataError
from slimwright.tasks.imitation import Imitation, imitated, imitating
from slimwright.tasks.task import Forward, Metric, Outputs, seeds_of, shapes_said

FALSE_ACCEPTS = 0.01  # of the pairs of two identities
GOLDEN = (5**0.5 - 1) / 2  # irrational: it changes every bit of a seed
NEVER = -2.0  # below every cosine
ROWS = 1024  # images that are compared with all others at once
Measure = Literal["embedding", "recall"]
MEASURES = {"embedding": Metric("TAR at FAR 1 %"), "recall": Metric("recall@1")}


@dataclass(frozen=True)
class Embedding:
    """Targets are identities [N] and the original's embeddings [N, D]; `name` says which metric counts."""

    imitation: Imitation
    name: Measure = "embedding"
    outputs: int = 1

    @property
    def metric(self) -> Metric:
        """TAR at a FAR of 1 %, or recall@1."""
        return MEASURES[self.name]

    @property
    def classes(self) -> tuple[str, ...]:
        """Evidence is kept as one: identities of other images are not those of these."""
        return ("all",)

    def check(self, shapes: Sequence[Sequence[int]]) -> None:
        """Raise DataError unless there is one output [1, D]."""
        if len(shapes) != 1 or len(shapes[0]) != 2 or shapes[0][1] < 2:
            raise DataError(
                f"the model returns {shapes_said(shapes)} for an image; an embedding is one output [1, D], D above 1"
            )

    def data(self, data: Dataset, original: Forward) -> Dataset:
        """Return the data set with the original's embeddings beside the identities."""
        return imitated(data, original, beside=True)

    def class_of(self, targets: Targets) -> Tensor:
        """Return zeros [N]."""
        return torch.zeros_like(_identities(targets))

    def loss(self, outputs: Outputs, targets: Targets, *, label_smoothing: float = 0.0) -> Tensor:
        """Return the distance [N] to the original's embedding."""
        wanted = (_followed(targets).to(outputs[0]),)
        return self.imitation.loss(outputs, wanted) + _turned(outputs, wanted)

    def drawn_loss(self, outputs: Outputs, numbers: Tensor) -> Tensor:
        """Return the summed random projection of the embeddings, as they are and with length 1."""
        seeds = seeds_of(numbers * GOLDEN)  # not those that project the embeddings as they are
        drawn = [torch.randn(outputs[0].shape[1], generator=seed, device="cpu") for seed in seeds]
        on_sphere = (torch.stack(drawn).to(outputs[0]) * F.normalize(outputs[0])).sum()
        return self.imitation.drawn_loss(outputs, numbers) + on_sphere

    def distance(self, outputs: Outputs, wanted: Outputs, temperature: float) -> Tensor:
        """Return the mean distance to a teacher's embeddings; a temperature has no meaning here."""
        return self.imitation.distance(outputs, wanted, temperature) + _turned(outputs, wanted).mean()

    def score(self, outputs: Outputs, targets: Targets) -> float:
        """Return the metric in percent, over all pairs. Raises DataError where no two images show one identity, or two.

        An embedding that is not a number is near no other one.
        """
        identities = _identities(targets).cpu()
        near = _near if self.name == "recall" else _accepted
        return 100 * near(outputs[0].detach().cpu(), identities)

    def agreement(self, found: Outputs, expected: Outputs) -> float:
        """Return the share of images whose embedding lies nearest, among all that are expected, to its own.

        Then embeddings that the original stored can be looked up by these. Ties count as agreement.
        """
        mine, its = (F.normalize(side[0].detach().cpu().double()) for side in (found, expected))
        agreeing = 0.0
        for rows, own in zip(mine.split(ROWS), its.split(ROWS), strict=True):
            agreeing += float(((rows * own).sum(1) >= (rows @ its.T).amax(1) - 1e-9).sum())
        return agreeing / len(mine)


def embedding_of(data: Dataset, original: Forward, name: Measure = "embedding") -> Embedding:
    """Return the task, with the deviation of the original's embeddings over some of the calibration part."""
    return Embedding(imitating(data, original), name)


def _identities(targets: Targets) -> Tensor:
    return labels_of(tensors_of(targets)[0])


def _followed(targets: Targets) -> Tensor:
    """The original's embeddings [N, D]. Raises DataError where there are none."""
    _, *others = tensors_of(targets)
    if len(others) != 1:
        raise DataError("this needs the original's embeddings beside the identities; take the data from `task.data`")
    return others[0]


def _turned(outputs: Outputs, wanted: Outputs) -> Tensor:
    """1 - cos [N]."""
    return 1 - F.cosine_similarity(outputs[0], wanted[0].to(outputs[0]))


def _cosines(embeddings: Tensor, identities: Tensor) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """For some rows at a time: their numbers [R], cosines with all [R, N], and whether both show one identity [R, N].

    A cosine that is not a number is `NEVER`: a device that asks whether it is above a threshold hears no.
    """
    unit = F.normalize(embeddings.float())
    for rows in torch.arange(len(unit)).split(ROWS):
        same = identities[rows, None] == identities
        yield rows, torch.nan_to_num(unit[rows] @ unit.T, nan=NEVER), same


def _accepted(embeddings: Tensor, identities: Tensor) -> float:
    """The share of pairs of one identity that lie nearer than all but 1 % of the pairs of two."""
    count, sizes = len(identities), identities.unique(return_counts=True)[1]
    pairs = count * (count - 1) // 2
    genuine = int((sizes * (sizes - 1) // 2).sum())
    if not 0 < genuine < pairs:
        raise DataError(
            f"of {count} images {len(sizes)} identities are shown, so there are {genuine} pairs of one identity and "
            f"{pairs - genuine} of two; both are needed: add images, or deal them anew with another seed"
        )
    most = int(FALSE_ACCEPTS * (pairs - genuine))
    accepted, nearest = [], torch.zeros(0)
    for rows, cosines, same in _cosines(embeddings, identities):
        after = torch.arange(count) > rows[:, None]  # each pair once
        accepted.append(cosines[after & same])
        others = torch.cat([nearest, cosines[after & ~same]])
        nearest = others.topk(min(most + 1, len(others))).values
    return float((torch.cat(accepted) > nearest[-1]).double().mean())


def _near(embeddings: Tensor, identities: Tensor) -> float:
    """The share of images whose nearest other one shows the same identity, of those that have such another one."""
    right, counted = 0, 0
    for rows, cosines, same in _cosines(embeddings, identities):
        place = torch.arange(len(rows)), rows
        cosines[place], others = -torch.inf, same.sum(1) > 1
        nearest, which = cosines.max(1)
        right += int((same[place[0], which] & others & (nearest > NEVER)).sum())
        counted += int(others.sum())
    if not counted:
        raise DataError(f"no two of {len(identities)} images show one identity; recall needs such images: add some")
    return right / counted
