import pytest
import torch
from encoded import CLASSES, ENCODED, SIDE, placed, truth
from torch import Tensor

from slimwright.errors import DataError
from slimwright.tasks import Detection, Outputs, form_of
from slimwright.tasks.detection.precision import mean_average_precision

IMAGE = (3, SIDE, SIDE)


@pytest.mark.parametrize("name", ENCODED)
def test_each_form_is_told_and_its_boxes_are_those_that_were_put_in(name: str) -> None:
    encode, said = ENCODED[name]
    boxes = truth()
    form = form_of(encode(boxes), CLASSES, IMAGE)
    assert form.said == said
    found = form.decode(encode(boxes))
    assert mean_average_precision(found, boxes, classes=CLASSES) == pytest.approx(100, abs=1e-3)
    sure = [rows[rows[:, 4] > 0.25] for rows in found]
    for rows, its in zip(sure, boxes, strict=True):
        wanted = its[its[:, 0] >= 0]
        assert torch.allclose(rows[:, :4], wanted[:, 1:], atol=1e-3) and torch.equal(rows[:, 5], wanted[:, 0])


@pytest.mark.parametrize("name", ENCODED)
def test_parts_are_one_tensor_a_unit_and_boxes_of_nothing_hardly_count(name: str) -> None:
    outputs = ENCODED[name][0](truth())
    form = form_of(outputs, CLASSES, IMAGE)
    parts = form.parts(outputs, outputs)
    assert len(parts) == (3 if len(outputs) == 3 else 2) and all(len(part) == 6 for part in parts)
    places = max(parts, key=lambda part: part[0].numel() if part.ndim == 3 and part.shape[2] == 4 else 0)
    if places.shape[1:] == (40, 4):
        largest = places[:-1].norm(dim=2)  # [N, A]
        assert float(largest[:, [3, 10, 17]].min()) > 3 * float(largest[:, 20:].max()), name


def test_shapes_without_a_form_are_told_with_the_way_out() -> None:
    with pytest.raises(DataError, match=r"outputs \[N, 12, 9\] are of no form .* 3 classes.*--task module:callable"):
        form_of((torch.rand(2, 12, 9),), CLASSES, IMAGE)


def test_raw_maps_of_anchors_are_told_from_others() -> None:
    raw = tuple(torch.randn(2, 24, side, side) for side in (8, 4, 2))
    with pytest.raises(DataError, match=r"\[N, 24, 8, 8\] and .* raw maps of a YOLO with anchors"):
        form_of(raw, CLASSES, IMAGE)


def test_another_number_of_classes_is_told() -> None:
    with pytest.raises(DataError, match="a YOLO of 3 classes gives 7 or 8 numbers a place"):
        form_of((torch.rand(2, 84, 300),), CLASSES, IMAGE)


def test_scores_that_are_no_shares_are_not_taken_for_scores() -> None:
    (outputs,) = ENCODED["anchor-free"][0](truth())
    with pytest.raises(DataError, match="of no form"):
        form_of((torch.cat([outputs[:, :4], outputs[:, 4:].logit()], 1),), CLASSES, IMAGE)


def my_decode(outputs: Outputs) -> list[Tensor]:
    """Scores behind boxes, in one long row."""
    return [torch.cat([row[:4], row[4:5], row[5:]]).reshape(1, 6) for row in outputs[0]]


def test_a_function_of_ones_own_decodes_any_output() -> None:
    boxes = truth()[:, :1]
    task = Detection(("a", "b", "c"), decode=my_decode)
    outputs = (torch.cat([boxes[:, 0, 1:], torch.full((6, 1), 0.9), boxes[:, 0, :1]], 1),)
    assert task.score(outputs, boxes) == pytest.approx(100)
    assert task.agreement(outputs, outputs) == 1
    assert "my_decode" in task.said and "0x" not in repr(task)
    assert float(task.loss(outputs, (boxes, *outputs)).sum()) == 0
    task.check([(1, 6)])
    with pytest.raises(DataError, match=r"returns 2 outputs.*outputs=2"):
        task.check([(1, 6), (1, 6)])


def test_ties_of_places_are_no_duplicates() -> None:
    corners, scores = placed(truth())
    doubled = torch.cat([corners, corners], 1), torch.cat([scores, scores], 1)
    form = form_of(doubled, CLASSES, IMAGE)
    assert all(int((rows[:, 4] > 0.25).sum()) <= 3 for rows in form.decode(doubled))
