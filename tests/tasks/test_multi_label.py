import pytest
import torch
from exact_fisher import assert_near, expected_hessian, mean_outer
from sklearn.metrics import average_precision_score
from torch import Tensor

from slimwright.data import Targets
from slimwright.errors import DataError
from slimwright.tasks import MultiLabel, Outputs, Task

TASK: Task = MultiLabel(("sky", "sea"))
SCORES = torch.tensor([[3.0, -1.0], [0.5, 2.0], [-2.0, 1.0]])
SHOWN = torch.tensor([[1, 0], [0, 1], [1, 1]])


def test_the_loss_of_an_image_is_the_sum_of_binary_cross_entropies() -> None:
    p, y = SCORES.sigmoid(), SHOWN.float()
    torch.testing.assert_close(TASK.loss((SCORES,), SHOWN), -(y * p.log() + (1 - y) * (1 - p).log()).sum(1))
    y = 0.8 * y + 0.1
    smoothed = -(y * p.log() + (1 - y) * (1 - p).log()).sum(1)
    torch.testing.assert_close(TASK.loss((SCORES,), SHOWN.bool(), label_smoothing=0.2), smoothed)


def test_the_metric_is_the_mean_average_precision_by_hand() -> None:
    """Sky: ranked 1, 0, 1: (1 + 2/3) / 2. Sea: ranked 1, 1, 0: 1."""
    assert TASK.score((SCORES,), SHOWN) == pytest.approx(100 * ((1 + 2 / 3) / 2 + 1) / 2)
    assert TASK.metric.name == "mean average precision" and TASK.metric.higher_is_better


def test_the_metric_is_that_of_scikit_learn_over_the_classes_that_occur() -> None:
    generator = torch.Generator().manual_seed(2)
    scores, shown = torch.randn(60, 5, generator=generator), torch.rand(60, 5, generator=generator) < 0.3
    shown[:, 3] = False
    task = MultiLabel(tuple("abcde"))
    there = [0, 1, 2, 4]
    by_sklearn = average_precision_score(shown[:, there].numpy(), scores[:, there].numpy(), average="macro")
    assert task.score((scores,), shown) == pytest.approx(100 * by_sklearn)
    alone = shown & (torch.arange(5) == 2)
    by_sklearn = average_precision_score(alone[:, 2].numpy(), scores[:, 2].numpy())
    assert task.score((scores,), alone.long()) == pytest.approx(100 * by_sklearn)


def test_scores_that_are_no_numbers_are_the_lowest() -> None:
    broken = SCORES.clone()
    broken[0, 0] = float("nan")  # sky is now ranked 0, 1, 1
    assert TASK.score((broken,), SHOWN) == pytest.approx(100 * ((1 / 2 + 2 / 3) / 2 + 1) / 2)
    assert TASK.score((torch.full((3, 2), float("inf")),), SHOWN) == pytest.approx(100 * 2 / 3)  # all alike


def test_a_part_that_shows_no_class_has_no_score() -> None:
    with pytest.raises(DataError, match="no class is shown in any of 3 images"):
        TASK.score((SCORES,), torch.zeros(3, 2))


def test_the_distance_is_the_divergence_of_each_class() -> None:
    teacher = torch.tensor([[1.0, -1.0], [300.0, 0.0], [0.5, -300.0]])  # sure ones, too
    p, q = (teacher.double() / 2).sigmoid(), (SCORES.double() / 2).sigmoid()
    by_hand = torch.special.entr(p) + torch.special.entr(1 - p)
    by_hand = -(by_hand + torch.xlogy(p, q) + torch.xlogy(1 - p, 1 - q))
    found = TASK.distance((SCORES,), (teacher,), 2.0)
    assert float(found) == pytest.approx(4 * float(by_hand.sum(1).mean()), rel=1e-5)
    assert abs(float(TASK.distance((SCORES,), (SCORES,), 2.0))) < 1e-6


def test_squared_gradients_of_drawn_labels_are_the_fisher_information() -> None:
    """Of a net of 6 weights, by 4,000 draws an image; within 3 % of the norm."""
    generator = torch.Generator().manual_seed(0)
    weights = torch.randn(6, dtype=torch.float64, generator=generator)
    images = torch.randn(3, 3, dtype=torch.float64, generator=generator)

    def net(w: Tensor, x: Tensor) -> Outputs:
        return (torch.tanh(x) @ w.reshape(3, 2),)

    def curvature(outputs: Outputs) -> Tensor:
        p = outputs[0][0].sigmoid()
        return torch.diag(p * (1 - p))

    found = mean_outer(TASK, net, weights, images, 4_000)
    assert_near(found, expected_hessian(net, weights, images, curvature), within=0.03)


def test_the_drawn_loss_does_not_depend_on_how_a_batch_is_cut() -> None:
    numbers = torch.rand(3, dtype=torch.float64)
    parts = [TASK.drawn_loss((SCORES[i : i + 1],), numbers[i : i + 1]) for i in range(3)]
    torch.testing.assert_close(TASK.drawn_loss((SCORES,), numbers), torch.stack(parts).sum())


def test_nets_agree_on_labels() -> None:
    assert TASK.agreement((SCORES,), (SCORES * 2,)) == 1.0
    assert TASK.agreement((SCORES,), (SCORES - 0.75,)) == pytest.approx(5 / 6)


def test_evidence_is_kept_as_one() -> None:
    assert TASK.class_of(SHOWN).tolist() == [0, 0, 0] and len(TASK.classes) == 1


@pytest.mark.parametrize("targets", [torch.zeros(3), torch.zeros(3, 3), torch.zeros(3, 0), (SHOWN, SHOWN)])
def test_targets_that_are_no_flags_of_the_classes_are_told(targets: Targets) -> None:
    with pytest.raises(DataError, match="each image needs a 0 or 1 for each of 2 classes, and the data set gives"):
        TASK.loss((SCORES,), targets)


def test_outputs_that_are_no_scores_of_the_classes_are_told() -> None:
    TASK.check([(1, 2)])
    with pytest.raises(DataError, match=r"returns \[1, 3\] for an image, and the data has 2 classes"):
        TASK.check([(1, 3)])
