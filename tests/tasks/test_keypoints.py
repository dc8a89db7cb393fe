import pytest
import torch
from exact_fisher import assert_near, expected_hessian, mean_outer
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from slimwright.data import ArrayData, Targets, split
from slimwright.errors import DataError
from slimwright.tasks import Keypoints, Outputs, Task, task_for
from slimwright.tasks.keypoints import SIGMA, locating, peaks

MARKED = torch.tensor(
    [
        [[10.0, 10, 1], [30, 10, 1], [0, 0, 0]],  # a box of 20: within 2
        [[5.0, 5, 1], [5, 45, 1], [25, 20, 1]],  # of 40: within 4
    ]
)
FOUND = torch.tensor([[[11.0, 11], [32.5, 10], [50, 50]], [[5, 8], [5, 45], [25, 24.5]]])


def gaussians(places: Tensor, height: int, width: int) -> Tensor:
    """Maps [N, K, h, w] of points [N, K, 2] in cells."""
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    squared = (columns - places[..., :1, None]).square() + (rows - places[..., 1:, None]).square()
    return torch.exp(-squared / (2 * SIGMA**2))


def test_the_metric_is_the_percentage_of_correct_keypoints_by_hand() -> None:
    task: Task = Keypoints(3, 64, 48)
    for output in (FOUND, FOUND.flatten(1)):
        assert task.score((output,), MARKED) == pytest.approx(100 * 3 / 5)  # 1.41, (2.5); 3, 0, (4.5)
    assert task.metric.name == "PCK@0.1" and task.metric.unit == "%"


def test_coordinates_may_be_shares_of_the_input() -> None:
    task = Keypoints(3, 64, 48, shares=True)
    assert task.score((FOUND / torch.tensor([48, 64]),), MARKED) == pytest.approx(60)


def test_a_point_alone_is_measured_by_the_image() -> None:
    alone = torch.tensor([[[10.0, 10, 1]]])
    task = Keypoints(1, 64, 48)
    assert task.score((torch.tensor([[16.0, 10]]),), alone) == 100  # within 6.4
    assert task.score((torch.tensor([[17.0, 10]]),), alone) == 0
    with pytest.raises(DataError, match="no point is marked in any of 1 images"):
        task.score((torch.tensor([[17.0, 10]]),), torch.zeros(1, 1, 3))


@settings(max_examples=60, deadline=None)
@given(st.floats(0, 15), st.floats(0, 11))
def test_a_peak_is_found_to_a_quarter_of_a_cell(x: float, y: float) -> None:
    """A quarter of a cell towards the larger neighbour leaves a quarter; at the border, half a cell."""
    maps = gaussians(torch.tensor([[[x, y]]], dtype=torch.float64), 12, 16)
    found = peaks(maps)[0, 0].tolist()
    for place, where, last in ((found[0], x, 15), (found[1], y, 11)):
        assert abs(place - where) <= (0.5 if where < 0.5 or where > last - 0.5 else 0.251)


def test_heat_maps_are_scaled_to_the_input_and_lose_nothing_where_they_are_right() -> None:
    task = Keypoints(3, 64, 48)
    cells = MARKED[..., :2] / 4
    maps = gaussians(cells, 16, 12)
    assert task.score((maps,), MARKED) == 100
    assert task.loss((maps,), MARKED).tolist() == pytest.approx([0, 0], abs=1e-9)
    hidden = maps.clone()
    hidden[0, 2] = 5.0  # a point that is not marked
    assert task.loss((hidden,), MARKED).tolist() == pytest.approx([0, 0], abs=1e-9)
    assert 0.3 < float(task.loss((torch.zeros_like(maps),), MARKED)[0]) < 1.5  # nothing found: as much as varies


def test_maps_that_are_no_numbers_find_nothing() -> None:
    assert Keypoints(3, 64, 48).score((torch.full((2, 3, 16, 12), float("nan")),), MARKED) == 0


def test_the_loss_of_coordinates_is_over_the_marked_points() -> None:
    task = Keypoints(3, 64, 48, deviation=8.0)
    squared = (FOUND - MARKED[..., :2]).square().mean(2) / 64
    by_hand = [0.5 * squared[0, :2].mean(), 0.5 * squared[1].mean()]
    assert task.loss((FOUND,), MARKED).tolist() == pytest.approx([float(one) for one in by_hand])


def test_the_form_of_the_outputs_is_read_from_the_original() -> None:
    marked = MARKED.repeat(20, 1, 1)
    data = ArrayData("d", (), split(torch.rand(40, 3, 64, 48), marked, seed=0))

    def gives(output: Tensor) -> Keypoints:
        return locating(data, lambda _: (output,))

    pixels, shares, maps = gives(FOUND), gives(FOUND / 64), gives(torch.zeros(2, 3, 16, 12))
    assert (pixels.shares, shares.shares, maps.shares) == (False, True, False)
    assert pixels.points == 3 and (pixels.height, pixels.width) == (64, 48)
    assert pixels.deviation > 5 and shares.deviation < 1
    assert task_for(data, [(1, 6)], lambda _: (FOUND.flatten(1),), "keypoints") == pixels


@pytest.mark.parametrize("maps", [False, True])
def test_random_projections_give_the_curvature_of_the_loss(maps: bool) -> None:
    """Of a net of 2 weights, by 1,500 draws an image; within 6 % of the norm."""
    generator = torch.Generator().manual_seed(0)
    weights = torch.randn(2, dtype=torch.float64, generator=generator)
    images = torch.randn(2, 2, dtype=torch.float64, generator=generator)
    task = Keypoints(1, 64, 64, deviation=3.0)

    def net(w: Tensor, x: Tensor) -> Outputs:
        made = torch.tanh(x * w)
        return (made[:, None, :, None] * torch.ones(6, dtype=torch.float64),) if maps else (made,)

    def curvature(outputs: Outputs) -> Tensor:
        size = outputs[0][0].numel()
        return torch.eye(size, dtype=torch.float64) / (size * task._deviation(outputs[0]) ** 2)

    found = mean_outer(task, net, weights, images, 1_500)
    assert_near(found, expected_hessian(net, weights, images, curvature), within=0.06)


def test_nets_agree_on_points_that_are_near_one_another() -> None:
    task = Keypoints(3, 64, 48)
    assert task.agreement((FOUND,), (FOUND,)) == 1
    moved = FOUND.clone()
    moved[1, 0, 0] += 20
    assert task.agreement((moved,), (FOUND,)) == pytest.approx(5 / 6)


@pytest.mark.parametrize("targets", [torch.zeros(2, 3), torch.zeros(2, 3, 2), (MARKED, MARKED)])
def test_targets_that_are_no_points_are_told(targets: Targets) -> None:
    with pytest.raises(DataError, match=r"each image needs points \[K, 3\]"):
        Keypoints(3, 64, 48).score((FOUND,), targets)


def test_outputs_for_other_points_are_told() -> None:
    task = Keypoints(3, 64, 48)
    for shape in ((1, 3, 16, 12), (1, 6), (1, 3, 2)):
        task.check([shape])
    with pytest.raises(DataError, match=r"returns \[1, 17, 64, 48\], and the data has 3 points"):
        task.check([(1, 17, 64, 48)])
