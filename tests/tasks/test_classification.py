import pytest
import torch
from exact_fisher import assert_near, expected_hessian, mean_outer
from sklearn.metrics import top_k_accuracy_score
from torch import Tensor
from torch.nn import functional as F

from slimwright.errors import DataError
from slimwright.tasks import Classification, Outputs, Task

TASK: Task = Classification(("a", "b", "c"))
SCORES = torch.tensor([[2.0, 0.0, -1.0], [0.0, 1.0, 0.5], [0.0, 0.0, 3.0], [1.0, 4.0, 2.0]])
LABELS = torch.tensor([0, 2, 2, 1])


def test_the_loss_of_an_image_is_its_cross_entropy() -> None:
    by_hand = -SCORES.softmax(1)[torch.arange(4), LABELS].log()
    torch.testing.assert_close(TASK.loss((SCORES,), LABELS), by_hand)
    smoothed = 0.7 * by_hand - 0.3 * SCORES.log_softmax(1).mean(1)
    torch.testing.assert_close(TASK.loss((SCORES,), LABELS, label_smoothing=0.3), smoothed)


def test_the_metric_is_the_share_that_is_right_in_percent() -> None:
    assert TASK.score((SCORES,), LABELS) == 75.0 and TASK.metric.shown(75.0) == "75.00 %"
    assert TASK.metric.name == "accuracy" and TASK.metric.drop(75.0, 70.0) == 5.0
    assert TASK.score((SCORES.double(),), LABELS.to(torch.uint8)) == 75.0


def test_of_equal_scores_the_first_is_the_class_that_is_named() -> None:
    assert TASK.score((torch.zeros(3, 3),), torch.tensor([0, 1, 2])) == pytest.approx(100 / 3)


def test_top_five_accuracy_is_that_of_scikit_learn() -> None:
    scores = torch.randn(200, 12, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(200) % 12
    task = Classification(tuple("abcdefghijkl"), top=5)
    by_sklearn = top_k_accuracy_score(labels.numpy(), scores.numpy(), k=5, labels=range(12))
    assert task.score((scores,), labels) == pytest.approx(100 * by_sklearn)
    assert task.metric.name == "top-5 accuracy" and task.name == TASK.name
    assert torch.equal(task.loss((scores,), labels), Classification(task.classes).loss((scores,), labels))


def test_the_distance_is_the_divergence_at_a_temperature() -> None:
    student, teacher = SCORES, SCORES.flip(0)
    p, q = (teacher / 2).softmax(1), (student / 2).softmax(1)
    torch.testing.assert_close(TASK.distance((student,), (teacher,), 2.0), 4 * (p * (p / q).log()).sum(1).mean())
    assert abs(float(TASK.distance((student,), (student,), 2.0))) < 1e-6


def test_labels_are_drawn_as_likely_as_the_scores_say() -> None:
    """The share of each label within 0.01 of its probability, for 20,000 numbers: four standard errors."""
    scores = torch.log(torch.tensor([[0.5, 0.2, 0.3]])).expand(20_000, 3).clone().requires_grad_()
    numbers = torch.rand(20_000, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    TASK.drawn_loss((scores,), numbers).backward()
    assert scores.grad is not None
    drawn = (scores.detach().softmax(1) - scores.grad).mean(0)  # the gradient is p - y
    torch.testing.assert_close(drawn, torch.tensor([0.5, 0.2, 0.3]), atol=0.01, rtol=0)


@pytest.mark.parametrize("number", [0.0, 1 - 2**-53])
def test_any_number_draws_a_label(number: float) -> None:
    scores = torch.tensor([[30.0, -30.0, 29.0]], requires_grad=True)
    TASK.drawn_loss((scores,), torch.tensor([number], dtype=torch.float64)).backward()
    assert scores.grad is not None and scores.grad[0].tolist() == pytest.approx(
        (scores[0].softmax(0) - F.one_hot(torch.tensor(0 if number == 0 else 2), 3)).tolist(), abs=1e-6
    )


def test_squared_gradients_of_drawn_labels_are_the_fisher_information() -> None:
    """Of a net of 9 weights, by 4,000 draws an image; within 3 % of the norm."""
    generator = torch.Generator().manual_seed(0)
    weights = torch.randn(9, dtype=torch.float64, generator=generator)
    images = torch.randn(3, 3, dtype=torch.float64, generator=generator)

    def net(w: Tensor, x: Tensor) -> Outputs:
        return (torch.tanh(x) @ w.reshape(3, 3),)

    def curvature(outputs: Outputs) -> Tensor:
        p = outputs[0][0].softmax(0)
        return torch.diag(p) - torch.outer(p, p)

    assert_near(
        mean_outer(TASK, net, weights, images, 4_000), expected_hessian(net, weights, images, curvature), within=0.03
    )


def test_the_drawn_loss_does_not_depend_on_how_a_batch_is_cut() -> None:
    numbers = torch.rand(4, dtype=torch.float64)
    parts = [TASK.drawn_loss((SCORES[i : i + 1],), numbers[i : i + 1]) for i in range(4)]
    torch.testing.assert_close(TASK.drawn_loss((SCORES,), numbers), torch.stack(parts).sum())


def test_nets_agree_where_they_name_the_same_class() -> None:
    other = SCORES.clone()
    other[0] = torch.tensor([0.0, 5.0, 0.0])
    assert TASK.agreement((SCORES,), (SCORES * 3 + 1,)) == 1.0
    assert TASK.agreement((SCORES,), (other,)) == 0.75


def test_images_are_kept_apart_by_their_labels() -> None:
    assert TASK.class_of(LABELS).tolist() == LABELS.tolist() and TASK.classes == ("a", "b", "c") and TASK.outputs == 1
    with pytest.raises(DataError, match="the images have no labels"):
        TASK.class_of(torch.zeros(4, 0))
    with pytest.raises(DataError, match=r"the data set gives torch.float32 \[N, 3\]"):
        TASK.loss((SCORES,), torch.zeros(4, 3))


@pytest.mark.parametrize(
    ("shapes", "said"),
    [
        ([(1, 4)], r"returns \[1, 4\] for an image, and the data has 3 classes; a classifier returns \[1, 3\]"),
        ([(1, 3), (1, 3)], r"returns \[1, 3\] and \[1, 3\] for an image"),
        ([(1, 3, 7, 7)], "choose the task 'imitation'"),
        ([], "choose the task 'imitation'"),
    ],
)
def test_outputs_that_are_no_scores_of_the_classes_are_told(shapes: list[tuple[int, ...]], said: str) -> None:
    TASK.check([(1, 3)])
    with pytest.raises(DataError, match=said):
        TASK.check(shapes)


def test_a_top_that_holds_every_class_is_told() -> None:
    Classification(tuple("abcdef"), top=5).check([(1, 6)])
    with pytest.raises(DataError, match="of 5 classes the right one is always among 5; choose"):
        Classification(tuple("abcde"), top=5).check([(1, 5)])
