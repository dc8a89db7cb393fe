import math

import pytest
import torch
from exact_fisher import assert_near, expected_hessian, mean_outer
from torch import Tensor

from slimwright.data import ArrayData, Targets, images_of, split
from slimwright.errors import DataError
from slimwright.tasks import Outputs, Regression, Task, task_for
from slimwright.tasks.regression import regressing

TASK: Task = Regression((2.0, 0.5))
MADE = torch.tensor([[1.0, 2.0], [3.0, -1.0], [0.0, 0.0]])
WANTED = torch.tensor([[2.0, 2.0], [3.0, 1.0], [-2.0, 0.5]])


def data(scale: float = 1.0, names: tuple[str, ...] = ()) -> ArrayData:
    generator = torch.Generator().manual_seed(0)
    numbers = scale * torch.randn(60, 2, generator=generator) * torch.tensor([3.0, 1.0]) + 40
    found = ArrayData("numbers", (), split(torch.rand(60, 1, 4, 4), numbers, seed=0))
    object.__setattr__(found, "labels", names)  # a table's columns
    return found


def original(inputs: object) -> Outputs:
    return (images_of(inputs).flatten(1)[:, :2],)  # type: ignore[arg-type]


def test_the_loss_is_half_the_mean_squared_error_in_deviations() -> None:
    by_hand = 0.5 * ((MADE - WANTED) / torch.tensor([2.0, 0.5])).square().mean(1)
    torch.testing.assert_close(TASK.loss((MADE,), WANTED), by_hand)
    torch.testing.assert_close(TASK.loss((MADE.reshape(3, 2, 1, 1),), WANTED), by_hand)
    assert float(TASK.distance((MADE,), (WANTED,), 3.0)) == pytest.approx(float(by_hand.mean()))


def test_the_metric_is_the_mean_absolute_error_in_the_numbers_unit() -> None:
    assert TASK.score((MADE,), WANTED) == pytest.approx((1 + 0 + 0 + 2 + 2 + 0.5) / 6)
    assert TASK.score((MADE * math.nan,), WANTED) == math.inf
    several = Regression((2.0, 0.5), unit="")
    assert several.score((MADE,), WANTED) == pytest.approx((0.5 + 0 + 0 + 4 + 1 + 1) / 6)
    assert several.metric.unit == "deviations"


@pytest.mark.parametrize(
    ("names", "unit"),
    [
        ((), "units"),
        (("a", "b"), "units"),
        (("age [years]", "since (years)"), "years"),
        (("age [years]", "weight (kg)"), ""),
        (("age [years]", "weight"), ""),
    ],
)
def test_the_unit_is_what_the_columns_say(names: tuple[str, ...], unit: str) -> None:
    task = regressing(data(names=names), original)
    assert isinstance(task, Regression) and task.unit == unit


@pytest.mark.parametrize(("scale", "shown"), [(1.0, "12.35 units"), (1e3, "12 units"), (1e-3, "12.34568 units")])
def test_decimals_follow_how_much_the_numbers_vary(scale: float, shown: str) -> None:
    task = regressing(data(scale), original)
    assert task.metric.shown(12.345678) == shown and not task.metric.higher_is_better


def test_deviations_are_those_of_the_calibration_part() -> None:
    wanted = data().parts["calibration"][1]
    assert isinstance(wanted, Tensor)
    task = task_for(data(), [(1, 2)], original, "regression")
    assert isinstance(task, Regression)
    assert task.deviations == pytest.approx(tuple(wanted.std(0, unbiased=False).tolist()), rel=1e-5)
    constant = ArrayData("c", (), split(torch.rand(60, 1, 4, 4), torch.full((60, 1), 7.0), seed=0))
    assert regressing(constant, original) == Regression((1.0,))


def test_random_projections_give_the_curvature_of_the_loss() -> None:
    """Of a net of 6 weights, by 1,500 draws an image; within 6 % of the norm."""
    generator = torch.Generator().manual_seed(0)
    weights = torch.randn(6, dtype=torch.float64, generator=generator)
    images = torch.randn(3, 3, dtype=torch.float64, generator=generator)

    def net(w: Tensor, x: Tensor) -> Outputs:
        return (torch.tanh(x) @ w.reshape(3, 2),)

    def curvature(outputs: Outputs) -> Tensor:
        return torch.diag(torch.tensor([1 / 4, 4], dtype=torch.float64)) / 2

    found = mean_outer(TASK, net, weights, images, 1_500)
    assert_near(found, expected_hessian(net, weights, images, curvature), within=0.06)


def test_nets_agree_on_numbers_that_are_near() -> None:
    assert TASK.agreement((MADE + 0.09,), (MADE,)) == 1
    assert TASK.agreement((MADE + torch.tensor([0.3, 0.3]),), (MADE,)) == 0.5


@pytest.mark.parametrize("targets", [torch.zeros(3, dtype=torch.int64), torch.zeros(3, 2, 2), (WANTED, WANTED)])
def test_targets_that_are_no_numbers_are_told(targets: Targets) -> None:
    with pytest.raises(DataError, match="each image needs K numbers"):
        TASK.loss((MADE,), targets)


def test_outputs_that_are_other_numbers_are_told() -> None:
    for shape in ((1, 2), (1, 2, 1, 1)):
        TASK.check([shape])
    with pytest.raises(DataError, match=r"returns \[1, 3\], and the data has 2 numbers"):
        TASK.check([(1, 3)])
