from itertools import groupby, product

import pytest
import torch
from exact_fisher import assert_near, expected_hessian, mean_outer
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from slimwright.data import Targets
from slimwright.errors import DataError
from slimwright.tasks import Ctc, Outputs, Task

TASK: Task = Ctc(("a", "b"))
ERRORS: Task = Ctc(("a", "b"), "character-error")
TEXTS = (torch.tensor([[1, 2], [1, -1], [-1, -1]]),)  # "ab", "a", ""


def spoken(rows: list[list[int]], classes: int = 3) -> Tensor:
    """Scores [N, T, K] whose likeliest numbers are `rows`."""
    return 5 * torch.nn.functional.one_hot(torch.tensor(rows), classes).float()


def read_by_hand(path: tuple[int, ...]) -> list[int]:
    return [number for number, _ in groupby(path) if number]


def test_the_loss_is_the_sum_over_all_ways_to_say_the_text() -> None:
    scores = torch.randn(3, 4, 3, generator=torch.Generator().manual_seed(1))
    p = scores.double().softmax(2)
    for place, text in enumerate(([1, 2], [1], [])):
        ways = [path for path in product(range(3), repeat=4) if read_by_hand(path) == text]
        likely = sum(torch.stack([p[place, t, c] for t, c in enumerate(path)]).prod() for path in ways)
        assert float(TASK.loss((scores,), TEXTS)[place]) == pytest.approx(-float(torch.tensor(float(likely)).log()))


def test_probabilities_mean_what_their_scores_mean() -> None:
    scores = torch.randn(3, 4, 3, generator=torch.Generator().manual_seed(2))
    p = scores.softmax(2)
    torch.testing.assert_close(TASK.loss((p,), TEXTS), TASK.loss((scores,), TEXTS))
    teacher = torch.randn(3, 4, 3)
    by_hand = (teacher.softmax(2) * (teacher.log_softmax(2) - scores.log_softmax(2))).sum((1, 2)).mean()
    for mine, its in ((scores, teacher), (p, teacher), (p, teacher.softmax(2))):
        torch.testing.assert_close(TASK.distance((mine,), (its,), 1.0), by_hand)


def test_a_text_that_is_longer_than_the_frames_has_no_loss() -> None:
    scores = torch.randn(1, 2, 3, requires_grad=True)
    TASK.loss((scores,), (torch.tensor([[1, 1]]),)).sum().backward()  # "aa" needs a blank in between
    assert scores.grad is not None and not scores.grad.any()


def test_the_metrics_by_hand() -> None:
    found = (spoken([[1, 1, 0, 2], [1, 0, 1, 1], [0, 0, 0, 0]]),)  # "ab", "aa", ""
    assert TASK.score(found, TEXTS) == pytest.approx(200 / 3)
    assert ERRORS.score(found, TEXTS) == pytest.approx(100 * 1 / 3) and not ERRORS.metric.higher_is_better
    with pytest.raises(DataError, match="all of 3 texts are empty"):
        ERRORS.score(found, (torch.full((3, 2), -1),))


@given(st.lists(st.lists(st.integers(0, 2), min_size=5, max_size=5), min_size=1, max_size=6))
def test_lines_are_read_as_by_hand(rows: list[list[int]]) -> None:
    said = [read_by_hand(tuple(row)) for row in rows]
    codes = torch.full((len(rows), 5), -1)
    for place, row in enumerate(said):
        codes[place, : len(row)] = torch.tensor(row, dtype=torch.int64)
    assert TASK.score((spoken(rows),), (codes,)) == 100.0
    assert TASK.agreement((spoken(rows),), (spoken(rows).softmax(2),)) == 1.0


def test_squared_gradients_of_drawn_frames_are_the_fisher_information() -> None:
    """Of a net of 6 weights, two frames, by 4,000 draws an image; within 4 % of the norm."""
    generator = torch.Generator().manual_seed(0)
    weights = torch.randn(6, dtype=torch.float64, generator=generator)
    images = torch.randn(3, 2, 2, dtype=torch.float64, generator=generator)

    def net(w: Tensor, x: Tensor) -> Outputs:
        return (torch.tanh(x) @ w.reshape(2, 3),)  # [N, 2, 3]

    def curvature(outputs: Outputs) -> Tensor:
        found: Tensor = torch.block_diag(*[torch.diag(p) - torch.outer(p, p) for p in outputs[0][0].softmax(1)])
        return found

    found = mean_outer(TASK, net, weights, images, 4_000)
    assert_near(found, expected_hessian(net, weights, images, curvature), within=0.04)


def test_the_drawn_loss_does_not_depend_on_how_a_batch_is_cut() -> None:
    scores, numbers = torch.randn(3, 4, 3), torch.rand(3, dtype=torch.float64)
    parts = [TASK.drawn_loss((scores[i : i + 1],), numbers[i : i + 1]) for i in range(3)]
    torch.testing.assert_close(TASK.drawn_loss((scores,), numbers), torch.stack(parts).sum())


@pytest.mark.parametrize(
    "targets", [torch.tensor([[3]]), torch.tensor([[-1, 1]]), torch.zeros(1, 1), torch.zeros(1, dtype=torch.int64)]
)
def test_targets_that_are_no_texts_are_told(targets: Targets) -> None:
    with pytest.raises(DataError, match="each image needs the numbers of its characters, 1 to 2, padded with -1"):
        TASK.class_of(targets)


def test_outputs_that_do_not_fit_the_alphabet_are_told() -> None:
    TASK.check([(1, 7, 3)])
    with pytest.raises(DataError, match=r"returns \[1, 7, 4\].*has 2 characters.*\[1, T, 3\].*with one space"):
        TASK.check([(1, 7, 4)])
