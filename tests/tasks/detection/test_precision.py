import pytest
import torch
from torch import Tensor

from slimwright.errors import DataError
from slimwright.tasks.detection.precision import ALL, HALF, mean_average_precision

TRUTH = torch.tensor([[[0.0, 10, 10, 30, 30], [1, 40, 40, 60, 50]], [[0, 5, 5, 15, 25], [-1, 0, 0, 0, 0]]])


def found(*images: list[list[float]]) -> list[Tensor]:
    return [torch.tensor(rows).reshape(-1, 6) for rows in images]


PERFECT = found([[10, 10, 30, 30, 0.9, 0], [40, 40, 60, 50, 0.8, 1]], [[5, 5, 15, 25, 0.7, 0]])


def test_boxes_that_are_all_right_have_a_precision_of_100(capsys: pytest.CaptureFixture[str]) -> None:
    assert mean_average_precision(PERFECT, TRUTH, classes=2) == pytest.approx(100)
    assert capsys.readouterr().out == ""


def test_half_of_the_objects_of_a_class_count_by_the_points_of_recall_that_they_reach() -> None:
    """Of 101 points of recall 0, 0.01, ..., 1 one of two objects reaches 51, with precision 1; the other class is 0."""
    some = found([[10, 10, 30, 30, 0.9, 0]], [])
    assert mean_average_precision(some, TRUTH, classes=2) == pytest.approx(100 * (51 / 101 + 0) / 2)


def test_a_wrong_box_before_the_right_one_halves_the_precision() -> None:
    one = TRUTH[1:]
    rows = found([[50, 50, 60, 60, 0.9, 0], [5, 5, 15, 25, 0.7, 0]])
    assert mean_average_precision(rows, one, classes=2) == pytest.approx(50)
    behind = found([[50, 50, 60, 60, 0.6, 0], [5, 5, 15, 25, 0.7, 0]])
    assert mean_average_precision(behind, one, classes=2) == pytest.approx(100)


def test_a_box_counts_at_the_overlaps_that_it_reaches() -> None:
    shifted = found([[10, 10, 30, 36, 0.9, 0], [40, 40, 60, 50, 0.8, 1]], [])  # 400 of 520 pixels: 0.77
    one = TRUTH[:, :, :].clone()[:1]
    assert mean_average_precision(shifted[:1], one, classes=2) == pytest.approx((60 + 100) / 2)  # 0.5, ..., 0.75
    assert mean_average_precision(shifted[:1], one, classes=2, overlaps=HALF) == pytest.approx(100)
    assert len(ALL) == 10 and ALL[0] == 0.5 and ALL[-1] == pytest.approx(0.95)


def test_the_wrong_class_is_wrong_and_no_detections_are_worth_nothing() -> None:
    wrong = [torch.cat([rows[:, :5], 1 - rows[:, 5:]], 1) for rows in PERFECT]
    assert mean_average_precision(wrong, TRUTH, classes=2) == 0
    assert mean_average_precision(found([], []), TRUTH, classes=2) == 0


def test_classes_that_do_not_occur_do_not_count() -> None:
    assert mean_average_precision(PERFECT, TRUTH, classes=90) == pytest.approx(100)


def test_without_any_box_there_is_no_precision() -> None:
    with pytest.raises(DataError, match="no box is in any of 2 images"):
        mean_average_precision(PERFECT, torch.full((2, 1, 5), -1.0), classes=2)
