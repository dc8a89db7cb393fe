"""Text by connectionist temporal classification: one output [N, T, K] of scores or probabilities for each frame.

Character k of the alphabet has number k + 1; number 0 is the blank. What a line reads is the likeliest number of each
frame, repeats taken once, then blanks left out. The loss is -log p(text) (Graves et al. 2006, ICML, sec. 3 and 4).
Fisher information and the distance to a teacher take each frame as a classification of its own: the sum over frames
of KL(teacher || student), and of the cross-entropy against a number that is drawn from the frame's own scores.

Networks often end in a softmax. Outputs of which each frame is above zero and adds up to 1 are probabilities.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from slimwright.data import Dataset, Targets, tensors_of
from slimwright.data.lines import PAD
from slimwright.errors import DataError
from slimwright.tasks.categorical import LEAST, class_dims
from slimwright.tasks.task import Forward, Metric, Outputs, classes_drawn, seeds_of, shapes_said

BLANK = 0
Measure = Literal["ctc", "character-error"]
MEASURES = {
    "ctc": Metric("lines read exactly"),
    "character-error": Metric("character error rate", higher_is_better=False),
}


@dataclass(frozen=True)
class Ctc:
    """Targets are numbers of characters [N, L], padded with -1; `name` says which metric counts."""

    alphabet: tuple[str, ...]
    name: Measure = "ctc"
    outputs: int = 1

    @property
    def metric(self) -> Metric:
        """The share of lines that are read exactly, or the edits for each character of the truth."""
        return MEASURES[self.name]

    @property
    def classes(self) -> tuple[str, ...]:
        """Evidence is kept as one: a line has no single class."""
        return ("all",)

    def check(self, shapes: Sequence[Sequence[int]]) -> None:
        """Raise DataError unless there is one output with a score for the blank and each character of the alphabet."""
        wanted = len(self.alphabet) + 1
        if len(shapes) != 1 or len(shapes[0]) != 3 or shapes[0][0] != 1 or shapes[0][2] != wanted:
            raise DataError(
                f"the model returns {shapes_said(shapes)} for an image, and the alphabet has {len(self.alphabet)} "
                f"characters; a reader returns [1, T, {wanted}], the blank first. A model of PaddleOCR's scores a "
                "space at the end, which its own list does not have: add it to alphabet.txt as a last line with one "
                "space"
            )

    def data(self, data: Dataset, original: Forward) -> Dataset:
        """Return the data set: its texts are the targets."""
        return data

    def class_of(self, targets: Targets) -> Tensor:
        """Return zeros [N]."""
        codes = self._codes(targets)
        return codes.new_zeros(len(codes))

    def loss(self, outputs: Outputs, targets: Targets, *, label_smoothing: float = 0.0) -> Tensor:
        """Return -log p(text) [N]; 0 for a text that needs more frames than there are."""
        logs, codes = _logs(outputs[0]), self._codes(targets).to(outputs[0].device)
        frames = torch.full((len(codes),), logs.shape[1], dtype=torch.int64)
        lengths = (codes != PAD).sum(1).cpu()
        return F.ctc_loss(
            logs.transpose(0, 1), codes.clamp_min(BLANK), frames, lengths, BLANK, reduction="none", zero_infinity=True
        )

    def drawn_loss(self, outputs: Outputs, numbers: Tensor) -> Tensor:
        """Return the summed cross-entropy of each frame against a number drawn from its scores."""
        logs = _logs(outputs[0])
        drawn = classes_drawn(logs.detach().cpu().double().exp(), 2, seeds_of(numbers))  # [N, T]
        return F.nll_loss(logs.flatten(0, 1), drawn.flatten().to(logs.device), reduction="sum")

    def distance(self, outputs: Outputs, wanted: Outputs, temperature: float) -> Tensor:
        """Return T^2 KL(teacher || student) at a temperature, summed over frames."""
        student, teacher = (F.log_softmax(_logs(side[0]) / temperature, dim=2) for side in (outputs, wanted))
        return F.kl_div(student, teacher, reduction="batchmean", log_target=True) * temperature**2

    def score(self, outputs: Outputs, targets: Targets) -> float:
        """Return the metric in percent. Raises DataError where every text is empty, for the rate of errors."""
        texts, found = [[c for c in row if c != PAD] for row in self._codes(targets).tolist()], read(outputs)
        if self.name == "ctc":
            return 100 * sum(mine == its for mine, its in zip(found, texts, strict=True)) / len(texts)
        from rapidfuzz.distance import Levenshtein

        characters = sum(map(len, texts))
        if not characters:
            raise DataError(f"all of {len(texts)} texts are empty; a rate of errors needs characters")
        edits = sum(Levenshtein.distance(mine, its) for mine, its in zip(found, texts, strict=True))
        return 100 * edits / characters

    def agreement(self, found: Outputs, expected: Outputs) -> float:
        """Return the share of lines that both read alike."""
        lines = list(zip(read(found), read(expected), strict=True))
        return sum(mine == its for mine, its in lines) / len(lines)

    def _codes(self, targets: Targets) -> Tensor:
        """The targets [N, L]. Raises DataError for any others."""
        codes, *others = tensors_of(targets)
        if others or codes.ndim != 2 or codes.is_floating_point() or not _in_alphabet(codes, len(self.alphabet)):
            said = " and ".join(f"{each.dtype} {list(each.shape)}" for each in tensors_of(targets))
            raise DataError(
                f"each image needs the numbers of its characters, 1 to {len(self.alphabet)}, padded with {PAD}, and "
                f"the data set gives {said}"
            )
        return codes.long()


def read(outputs: Outputs) -> list[list[int]]:
    """Return the numbers of the characters that each line reads."""
    best = outputs[0].detach().argmax(2).cpu()  # [N, T]
    first = torch.ones_like(best, dtype=torch.bool)
    first[:, 1:] = best[:, 1:] != best[:, :-1]
    return [row[kept].tolist() for row, kept in zip(best, first & (best != BLANK), strict=True)]


def _logs(output: Tensor) -> Tensor:
    """The logarithms of the probabilities [N, T, K] of an output."""
    if 2 in class_dims(output):
        return F.log_softmax(output.clamp_min(LEAST).log(), dim=2)
    return F.log_softmax(output, dim=2)


def _in_alphabet(codes: Tensor, characters: int) -> bool:
    padded = codes == PAD
    at_the_end = bool((padded[:, 1:] >= padded[:, :-1]).all())
    return at_the_end and bool((padded | ((codes > BLANK) & (codes <= characters))).all())
