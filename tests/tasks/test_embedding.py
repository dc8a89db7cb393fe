import numpy as np
import pytest
import torch
from exact_fisher import assert_near, expected_hessian, mean_outer
from sklearn.metrics import roc_curve
from torch import Tensor
from torch.nn import functional as F

from slimwright.data import ArrayData, images_of, split, tensors_of, whole
from slimwright.errors import DataError
from slimwright.tasks import Embedding, Imitation, Outputs, Task, task_for

TASK: Task = Embedding(Imitation((2.0,)))
RECALL: Task = Embedding(Imitation((2.0,)), "recall")


def people(count: int = 90, spread: float = 0.4) -> tuple[Tensor, Tensor]:
    """Embeddings around a centre for each of six identities, and the identities."""
    generator = torch.Generator().manual_seed(0)
    who = torch.arange(count) % 6
    return torch.randn(6, 8, generator=generator)[who] + spread * torch.randn(count, 8, generator=generator), who


@pytest.mark.parametrize("spread", [0.2, 0.6, 1.5])
def test_the_metric_is_the_true_accept_rate_of_scikit_learns_curve(spread: float) -> None:
    found, who = people(spread=spread)
    unit = F.normalize(found.double())
    rows, columns = np.triu_indices(len(who), 1)
    same = (who[rows] == who[columns]).numpy()
    false, true, _ = roc_curve(same, (unit @ unit.T)[rows, columns].numpy(), drop_intermediate=False)
    assert TASK.score((found,), (who, found)) == pytest.approx(100 * true[false <= 0.01].max(), abs=0.1)


def test_many_images_are_compared_some_at_a_time_with_the_same_result(monkeypatch: pytest.MonkeyPatch) -> None:
    found, who = people()
    at_once = [task.score((found,), (who, found)) for task in (TASK, RECALL)] + [TASK.agreement((found,), (found,))]
    monkeypatch.setattr("slimwright.tasks.embedding.ROWS", 7)
    in_rows = [task.score((found,), (who, found)) for task in (TASK, RECALL)] + [TASK.agreement((found,), (found,))]
    assert in_rows == at_once


def test_recall_by_hand() -> None:
    """On a line of directions 0, 1, 2 and 40 degrees: who is nearest to each is plain."""
    angles = torch.tensor([0.0, 1.0, 3.0, 40.0]).deg2rad()
    found = torch.stack([angles.cos(), angles.sin()], 1) * torch.tensor([[1.0], [5.0], [0.1], [2.0]])
    who = torch.tensor([0, 0, 1, 1])
    assert RECALL.score((found,), (who, found)) == 75.0  # the third is nearest to one of the first two
    alone = torch.tensor([0, 0, 1, 2])
    assert RECALL.score((found,), (alone, found)) == 100.0  # of two that can be found


def test_embeddings_that_are_no_numbers_are_wrong() -> None:
    found, who = people(spread=0.01)
    assert TASK.score((found,), (who, found)) == RECALL.score((found,), (who, found)) == 100.0
    broken = found.clone()
    broken[0] = float("nan")
    assert RECALL.score((broken,), (who, found)) == pytest.approx(100 * 89 / 90)
    assert TASK.score((broken,), (who, found)) == pytest.approx(100 * (1 - 14 / (6 * 15 * 14 / 2)))
    broken[:] = float("nan")
    assert RECALL.score((broken,), (who, found)) == TASK.score((broken,), (who, found)) == 0.0


@pytest.mark.parametrize("who", [torch.zeros(4), torch.arange(4)])
def test_images_of_one_identity_and_of_four_give_no_rate(who: Tensor) -> None:
    with pytest.raises(DataError, match=r"of 4 images \d identities are shown, so there are"):
        TASK.score((torch.randn(4, 3),), (who.long(), torch.randn(4, 3)))
    assert len(RECALL.classes) == 1


def test_the_loss_is_the_turn_and_the_distance_by_hand() -> None:
    found, wanted = torch.tensor([[3.0, 0.0], [1.0, 1.0]]), torch.tensor([[0.0, 1.0], [3.0, 3.0]])
    by_hand = [1 + 0.5 * 5 / 4, 0 + 0.5 * 4 / 4]
    targets = torch.tensor([0, 1]), wanted
    assert TASK.loss((found,), targets).tolist() == pytest.approx(by_hand)
    assert float(TASK.distance((found,), (wanted,), 4.0)) == pytest.approx(sum(by_hand) / 2)
    assert TASK.class_of(targets).tolist() == [0, 0]
    with pytest.raises(DataError, match=r"take the data from `task\.data`"):
        TASK.loss((found,), targets[0])


def test_squared_gradients_of_the_drawn_loss_are_the_curvature() -> None:
    """Of a net of 6 weights, by 4,000 draws an image; within 5 % of the norm. At the original's own embedding."""
    generator = torch.Generator().manual_seed(0)
    weights = torch.randn(6, dtype=torch.float64, generator=generator)
    images = torch.randn(3, 2, dtype=torch.float64, generator=generator)

    def net(w: Tensor, x: Tensor) -> Outputs:
        return (torch.tanh(x) @ w.reshape(2, 3),)

    def curvature(outputs: Outputs) -> Tensor:
        y = outputs[0][0]
        on_sphere = torch.func.jacrev(lambda v: v / v.norm())(y)
        found: Tensor = on_sphere.T @ on_sphere + torch.eye(3, dtype=torch.float64) / (3 * 2.0**2)
        return found

    found = mean_outer(TASK, net, weights, images, 4_000)
    assert_near(found, expected_hessian(net, weights, images, curvature), within=0.05)


def test_embeddings_agree_where_they_find_the_originals() -> None:
    found, _ = people(20)
    assert TASK.agreement((3 * found,), (found,)) == 1.0
    swapped = found.clone()
    swapped[[0, 1]] = found[[1, 0]]
    assert TASK.agreement((swapped,), (found,)) == 0.9
    assert TASK.agreement((found,), (found[:1].expand(20, -1),)) == 1.0  # the original cannot tell them apart


def test_labelled_data_takes_the_task_by_its_name() -> None:
    images, who = torch.randn(60, 1, 4, 4, generator=torch.Generator().manual_seed(0)), torch.arange(60) % 6
    data = ArrayData("people", tuple("abcdef"), split(images, who, seed=0))

    def original(inputs: object) -> Outputs:
        return (images_of(inputs).flatten(1)[:, :5],)  # type: ignore[arg-type]

    task = task_for(data, [(1, 5)], original, "recall")
    taught = task.data(data, original)
    labels, wanted = tensors_of(whole(taught, "test")[1])
    assert labels.shape == (12,) and wanted.shape == (12, 5) and taught.labels == data.labels
    with pytest.raises(DataError, match=r"returns \[1, 5, 2, 2\] for an image; an embedding is one output"):
        task_for(data, [(1, 5, 2, 2)], original, "embedding")
