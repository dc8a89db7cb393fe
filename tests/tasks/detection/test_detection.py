import pytest
import torch
from encoded import ENCODED, SIDE, anchor_free, maps, truth
from torch import Tensor

from slimwright.data import PARTS, ArrayData, Inputs, images_of
from slimwright.errors import DataError
from slimwright.tasks import NAMED, Detection, Imitated, Outputs, task_for
from slimwright.tasks.detection import CenterNet

LABELS = ("a", "b", "c")
BOXES = truth(12)
IMAGES = torch.arange(12.0)[:, None, None, None].expand(12, 3, SIDE, SIDE).contiguous()


class Boxed(ArrayData):
    """Images that are their own numbers, with boxes."""

    task = "detection"


def data() -> Boxed:
    return Boxed("boxes", LABELS, dict.fromkeys(PARTS, (IMAGES, BOXES)))


def detector(inputs: Inputs) -> Outputs:
    return anchor_free(BOXES[images_of(inputs)[:, 0, 0, 0].long()])


def centernet(inputs: Inputs) -> Outputs:
    return maps(BOXES[images_of(inputs)[:, 0, 0, 0].long()])


@pytest.fixture(scope="module")
def task() -> Detection:
    found = task_for(data(), [(1, 7, 40)], detector)
    assert isinstance(found, Detection)
    return found


def test_boxes_call_for_detection_and_the_reading_is_said(task: Detection) -> None:
    assert task.said == "read as: YOLO anchor-free, 3 classes, in pixels"
    assert (task.name, task.metric.name, task.metric.unit) == ("detection", "mAP@[.5:.95]", "%")
    half = task_for(data(), [(1, 7, 40)], detector, "detection-50")
    assert (half.name, half.metric.name) == ("detection-50", "mAP@.5") and {task.name, half.name} <= set(NAMED)


def test_data_without_boxes_are_refused() -> None:
    labelled = ArrayData("things", LABELS, {part: (IMAGES, torch.arange(12) % 3) for part in PARTS})
    with pytest.raises(DataError, match=r"'detection' needs targets .* has a label for each image"):
        task_for(labelled, [(1, 7, 40)], detector, "detection")


def test_targets_are_boxes_and_what_the_original_gave(task: Detection) -> None:
    taught = task.data(data(), detector)
    assert isinstance(taught, Imitated) and taught.labels == LABELS
    images, targets = next(taught.batches("test", 5))
    assert isinstance(targets, tuple) and torch.equal(targets[0], BOXES[:5])
    assert torch.equal(targets[1], detector(images)[0])
    assert task.score(detector(images), targets) == pytest.approx(100)
    assert task.class_of(targets).tolist() == [0] * 5


def test_the_loss_is_none_for_the_original_and_counts_scores_and_boxes_alike(task: Detection) -> None:
    (made,) = detector(IMAGES)
    targets = BOXES, made
    assert float(task.loss((made,), targets).abs().max()) == 0
    noise = torch.Generator().manual_seed(0)
    boxes, scores = made.clone(), made.clone()
    boxes[:, :4] += 4 * torch.randn(12, 4, 40, generator=noise)  # a fifteenth of the picture
    scores[:, 4:] += 0.05 * torch.randn(12, 3, 40, generator=noise)
    losses = [float(task.loss((changed,), targets).mean()) for changed in (boxes, scores)]
    assert 0.1 < losses[0] / losses[1] < 10, "neither drowns the other, though boxes are pixels and scores shares"


def test_a_loss_needs_what_the_original_gave(task: Detection) -> None:
    with pytest.raises(DataError, match="the targets hold no outputs of the original"):
        task.loss(detector(IMAGES), BOXES)


def test_drawn_losses_of_an_image_depend_on_its_own_outputs_and_number(task: Detection) -> None:
    numbers = torch.linspace(0.05, 0.95, 12, dtype=torch.float64)
    (made,) = detector(IMAGES)
    together = made.clone().requires_grad_()
    task.drawn_loss((together,), numbers).backward()
    alone = made[4:5].clone().requires_grad_()
    task.drawn_loss((alone,), numbers[4:5]).backward()
    assert together.grad is not None and alone.grad is not None
    assert torch.allclose(together.grad[4:5], alone.grad, rtol=1e-5, atol=1e-9) and float(alone.grad.abs().sum()) > 0


def test_agreement_counts_sure_detections_of_both_sides(task: Detection) -> None:
    one, other = anchor_free(BOXES), anchor_free(BOXES)
    assert task.agreement(one, other) == 1
    count = int((BOXES[..., 0] >= 0).sum())
    lost = other[0].clone()
    lost[0, 4:, 3] = 1e-4  # one detection is gone: the other side's have all their partners
    assert task.agreement((lost,), one) == pytest.approx((2 * count - 2) / (2 * count - 1))
    moved = other[0].clone()
    moved[0, 0, 3] += 30
    assert task.agreement((moved,), one) == pytest.approx((2 * count - 2) / (2 * count))
    nothing = torch.full_like(one[0], 1e-4)
    assert task.agreement((nothing,), (nothing,)) == 1


def test_a_score_just_below_the_threshold_still_counts_as_found(task: Detection) -> None:
    one = anchor_free(BOXES)[0]
    above, below = one.clone(), one.clone()
    above[:, 4:] = torch.where(one[:, 4:] > 0.5, 0.2501, one[:, 4:])
    below[:, 4:] = torch.where(one[:, 4:] > 0.5, 0.2499, one[:, 4:])
    assert task.agreement((above,), (below,)) == 1


def test_targets_that_are_no_boxes_are_told(task: Detection) -> None:
    with pytest.raises(DataError, match=r"boxes are \[N, M, 5\].*gives \[12, 4\]"):
        task.score(detector(IMAGES), torch.zeros(12, 4))


def test_outputs_of_centernet_are_trained_by_boxes_alone() -> None:
    task = task_for(data(), [(1, 3, 16, 16), (1, 2, 16, 16), (1, 2, 16, 16)], centernet)
    assert isinstance(task, Detection) and isinstance(task.form, CenterNet)
    own = data()
    assert task.data(own, centernet) is own
    heat, size, offset = centernet(IMAGES)
    right = task.loss((heat, size, offset), BOXES)
    worse = [
        (heat * 0.5, size, offset),
        (heat, size + 1, offset),
        (heat, size, offset - 0.3),
        (heat + 0.1, size, offset),
    ]
    for outputs in worse:
        assert bool((task.loss(outputs, BOXES) > right).all())


@pytest.mark.parametrize("logits", [False, True])
def test_the_loss_of_centernet_by_hand(logits: bool) -> None:
    """One box of class 1 with its centre at (9, 6) pixels: the middle of cell (2, 1), 4 pixels a cell."""
    form = CenterNet(2, (4.0, 4.0), logits)
    box = torch.tensor([[[1.0, 5, 2, 13, 10], [-1, 0, 0, 0, 0]]])
    likely = torch.full((1, 2, 4, 4), 0.2)
    likely[0, 1, 1, 2] = 0.7
    size, offset = torch.full((1, 2, 4, 4), 1.5), torch.full((1, 2, 4, 4), 0.5)
    spread = 2 * 0.54 / 6  # of a box of 2 cells, but no less than 0.2
    assert spread < 0.2
    wanted = torch.zeros(2, 4, 4)
    for y in range(4):
        for x in range(4):
            wanted[1, y, x] = torch.tensor(-((x - 2) ** 2 + (y - 1) ** 2) / (2 * 0.2**2)).exp()
    p = likely[0]
    terms = (1 - wanted) ** 4 * p**2 * (1 - p).log()
    terms[1, 1, 2] = 0.3**2 * torch.tensor(0.7).log()
    expected = -terms.sum() + 0.1 * (0.5 + 0.5) + (abs(0.5 - 0.25) + abs(0.5 - 0.5))
    made: Tensor = form.loss((likely.logit() if logits else likely, size, offset), box)
    assert torch.allclose(made, expected.reshape(1), rtol=1e-4)


@pytest.mark.parametrize("name", ENCODED)
def test_every_form_has_a_loss_that_can_be_differentiated(name: str) -> None:
    def original(inputs: Inputs) -> Outputs:
        return ENCODED[name][0](BOXES[images_of(inputs)[:, 0, 0, 0].long()])

    expected = original(IMAGES)
    task = task_for(data(), [tuple(output[:1].shape) for output in expected], original)
    outputs = tuple(output.clone().requires_grad_() for output in expected)
    _, targets = next(task.data(data(), original).batches("train", 12))
    noisy = tuple(output + 0.01 for output in outputs)
    loss = task.loss(noisy, targets)
    assert loss.shape == (12,) and bool(torch.isfinite(loss).all())
    total = loss.sum() + task.distance(noisy, expected, 4.0) + task.drawn_loss(noisy, torch.rand(12).double())
    total.backward()
    assert all(output.grad is None or bool(torch.isfinite(output.grad).all()) for output in outputs)
    assert sum(float(output.grad.abs().sum()) for output in outputs if output.grad is not None) > 0


def test_detections_can_stand_for_the_outputs_that_they_were_read_from(task: Detection) -> None:
    made = detector(IMAGES)
    again, rows = task.condensed(made)
    assert rows[0].shape == (12, 100, 6) and again.metric == task.metric
    for some in (slice(0, 5), slice(3, 12)):
        scores = [one.score((outputs[0][some],), BOXES[some]) for one, outputs in ((task, made), (again, rows))]
        assert scores[0] == pytest.approx(scores[1])
