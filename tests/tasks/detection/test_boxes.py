import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from slimwright.tasks.detection.boxes import CANDIDATES, MOST, MOST_OVERLAP, best, corners, overlaps, suppressed


def random_boxes(count: int, seed: int, side: float = 40.0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    low = torch.rand(count, 2, generator=generator) * side
    return torch.cat([low, low + 1 + torch.rand(count, 2, generator=generator) * 20], 1)


def in_a_loop(rows: Tensor) -> list[int]:
    """Greedy suppression as it is written in every textbook."""
    shared, kinds = overlaps(rows[:, :4], rows[:, :4]).tolist(), rows[:, 5].tolist()
    kept: list[int] = []
    for i in range(len(rows)):
        if all(shared[i][k] <= MOST_OVERLAP for k in kept if kinds[k] == kinds[i]):
            kept.append(i)
    return kept


@given(st.integers(0, 120), st.integers(1, 3), st.integers(0, 1000))
def test_suppression_is_that_of_the_greedy_loop(count: int, classes: int, seed: int) -> None:
    scores = torch.linspace(1, 0.1, count)[:, None]
    kinds = torch.randint(classes, (count, 1), generator=torch.Generator().manual_seed(seed)).float()
    rows = torch.cat([random_boxes(count, seed), scores, kinds], 1)
    assert torch.equal(suppressed(rows), rows[in_a_loop(rows)])


def test_a_chain_of_covered_boxes_is_undone_link_by_link() -> None:
    """Each box covers the next alone: the second goes, so the third stays, though the second covered it."""
    left = torch.arange(5.0) * 2
    rows = torch.stack([left, left * 0, left + 10, left * 0 + 10, 1 - left / 100, left * 0], 1)
    assert suppressed(rows, 0.6)[:, 0].tolist() == [0, 4, 8]


def test_the_overlap_of_two_boxes_by_hand() -> None:
    one = torch.tensor([[0.0, 0, 4, 4], [5, 5, 5, 9]])
    other = torch.tensor([[2.0, 0, 6, 4], [10, 10, 12, 12]])
    assert torch.allclose(overlaps(one, other), torch.tensor([[8 / 24, 0], [0, 0]]))
    assert corners(torch.tensor([5.0, 6, 4, 2])).tolist() == [3, 5, 7, 7]


def test_a_place_may_show_two_classes_and_numbers_that_are_none_show_nothing() -> None:
    boxes = random_boxes(4, 0, 400)
    boxes[2, 0] = torch.nan
    scores = torch.tensor([[0.9, 0.8], [0.0005, torch.nan], [1.0, 1.0], [0.0, 0.3]])
    rows = best(boxes, scores)
    assert torch.allclose(rows[:, 4], torch.tensor([0.9, 0.8, 0.3])) and rows[:, 5].tolist() == [0, 1, 1]
    assert torch.equal(rows[:, :4], boxes[[0, 0, 3]])


def test_there_are_at_most_a_hundred_detections() -> None:
    boxes = random_boxes(3 * CANDIDATES, 0, 9000)
    scores = torch.rand(len(boxes), 2)
    rows = best(boxes, scores)
    assert rows.shape == (MOST, 6) and torch.equal(rows[:, 4], rows[:, 4].sort(descending=True).values)
    assert float(rows[0, 4]) == float(scores.max())
    assert best(boxes[:0], scores[:0]).shape == (0, 6)
