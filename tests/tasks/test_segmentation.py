import pytest
import torch
from exact_fisher import assert_near, expected_hessian, mean_outer
from sklearn.metrics import jaccard_score
from torch import Tensor
from torch.nn import functional as F

from slimwright.data import ArrayData, Targets, images_of, split
from slimwright.errors import DataError
from slimwright.tasks import Outputs, Segmentation, Task, task_for
from slimwright.tasks.segmentation import segmenting

TASK: Task = Segmentation(("sky", "sea", "land"))
BINARY: Task = Segmentation(("ground", "figure"))
SCORES = torch.randn(4, 3, 6, 8, generator=torch.Generator().manual_seed(0))
MASKS = torch.randint(-1, 3, (4, 6, 8), generator=torch.Generator().manual_seed(1))


def test_the_loss_is_the_mean_cross_entropy_of_the_pixels_that_count() -> None:
    by_hand = []
    for scores, mask in zip(SCORES, MASKS, strict=True):
        log_p = scores.log_softmax(0)
        each = [-log_p[mask[y, x], y, x] for y in range(6) for x in range(8) if mask[y, x] >= 0]
        by_hand.append(torch.stack(each).mean())
    torch.testing.assert_close(TASK.loss((SCORES,), MASKS), torch.stack(by_hand))


def test_an_image_without_a_pixel_that_counts_has_no_loss() -> None:
    assert TASK.loss((SCORES[:1],), torch.full((1, 6, 8), -1)).tolist() == [0.0]
    with pytest.raises(DataError, match="no pixel of 1 masks counts"):
        TASK.score((SCORES[:1],), torch.full((1, 6, 8), -1))


def test_the_metric_is_the_jaccard_index_of_scikit_learn_over_the_classes_that_occur() -> None:
    counts = MASKS >= 0
    by_sklearn = jaccard_score(MASKS[counts], SCORES.argmax(1)[counts], average="macro")
    assert TASK.score((SCORES,), MASKS) == pytest.approx(100 * by_sklearn)
    never = torch.cat(
        [SCORES, torch.full((4, 1, 6, 8), -9.0)], 1
    )  # a fourth class that nothing is, and nothing is called
    assert Segmentation(()).score((never,), MASKS) == pytest.approx(100 * by_sklearn)


def test_scores_of_a_coarser_grid_are_resized_to_the_mask() -> None:
    fine = torch.randint(-1, 3, (4, 12, 16), generator=torch.Generator().manual_seed(2))
    large = F.interpolate(SCORES, (12, 16), mode="bilinear", align_corners=False)
    assert TASK.score((SCORES,), fine) == TASK.score((large,), fine)
    torch.testing.assert_close(TASK.loss((SCORES,), fine), TASK.loss((large,), fine))


def test_one_channel_is_the_logit_of_the_foreground() -> None:
    logit, masks = SCORES[:, :1], MASKS.clamp_max(1)
    both = torch.cat([torch.zeros_like(logit), logit], 1)
    torch.testing.assert_close(BINARY.loss((logit,), masks), BINARY.loss((both,), masks))
    counts = masks >= 0
    assert BINARY.score((logit,), masks) == pytest.approx(
        100 * jaccard_score(masks[counts], (logit[:, 0] > 0)[counts], average="macro")
    )
    single = F.binary_cross_entropy_with_logits(logit[:, 0], (masks == 1).float(), reduction="none")
    by_hand = (single * counts).sum((1, 2)) / counts.sum((1, 2))
    torch.testing.assert_close(BINARY.loss((logit,), masks), by_hand)


@pytest.mark.parametrize("channels", [1, 3])
def test_an_original_that_ends_in_a_softmax_or_a_sigmoid_is_recognised(channels: int) -> None:
    scores = 3 * SCORES[:, :channels]
    shares = scores.sigmoid() if channels == 1 else scores.softmax(1)
    masks = MASKS.clamp_max(max(channels, 2) - 1)
    data = ArrayData("d", (), split(torch.rand(40, 3, 6, 8), torch.zeros(40, 6, 8, dtype=torch.int64), seed=0))
    plain, found = segmenting(data, lambda _: (scores,)), segmenting(data, lambda _: (shares,))
    assert (plain.shares, found.shares) == (False, True)
    torch.testing.assert_close(found.loss((shares,), masks), plain.loss((scores,), masks), rtol=1e-4, atol=1e-5)
    assert found.score((shares,), masks) == plain.score((scores,), masks)
    assert found.agreement((shares,), (shares,)) == 1


def test_squared_gradients_of_drawn_classes_are_the_curvature_of_the_mean_over_pixels() -> None:
    """Of a net of 6 weights and 4 positions, by 1,500 draws an image; within 5 % of the norm."""
    generator = torch.Generator().manual_seed(0)
    weights = torch.randn(6, dtype=torch.float64, generator=generator)
    images = torch.randn(2, 2, 2, 2, dtype=torch.float64, generator=generator)

    def net(w: Tensor, x: Tensor) -> Outputs:
        return (F.conv2d(torch.tanh(x), w.reshape(3, 2, 1, 1)),)

    def curvature(outputs: Outputs) -> Tensor:
        """That of the mean over positions: blocks of K x K, laid out as [K, positions]."""
        p = outputs[0][0].softmax(0).flatten(1)  # [3, 4]
        blocks = torch.stack([torch.diag(q) - torch.outer(q, q) for q in p.T])  # [4, 3, 3]
        whole = torch.zeros(3, 4, 3, 4, dtype=torch.float64)
        for place in range(4):
            whole[:, place, :, place] = blocks[place] / 4
        return whole.reshape(12, 12)

    found = mean_outer(TASK, net, weights, images, 1_500)
    assert_near(found, expected_hessian(net, weights, images, curvature), within=0.05)


def test_the_drawn_loss_does_not_depend_on_how_a_batch_is_cut() -> None:
    numbers = torch.rand(4, dtype=torch.float64)
    parts = [TASK.drawn_loss((SCORES[i : i + 1],), numbers[i : i + 1]) for i in range(4)]
    torch.testing.assert_close(TASK.drawn_loss((SCORES,), numbers), torch.stack(parts).sum())


def test_the_distance_is_the_mean_divergence_of_a_pixel() -> None:
    teacher = SCORES.flip(0)
    p, log_q = (teacher / 2).softmax(1), (SCORES / 2).log_softmax(1)
    by_hand = (p * (p.log() - log_q)).sum(1).mean()
    assert float(TASK.distance((SCORES,), (teacher,), 2.0)) == pytest.approx(4 * float(by_hand), rel=1e-5)
    assert abs(float(TASK.distance((SCORES,), (SCORES,), 2.0))) < 1e-6


def test_nets_agree_on_pixels() -> None:
    other = SCORES.clone()
    other[0, :, 0, 0] = torch.tensor([9.0, 0, 0]) if int(SCORES[0, :, 0, 0].argmax()) else torch.tensor([0, 9.0, 0])
    assert TASK.agreement((other,), (SCORES,)) == pytest.approx(1 - 1 / (4 * 6 * 8))


def test_masks_call_for_the_task_where_they_are_named_or_asked_for() -> None:
    data = ArrayData("d", (), split(torch.rand(40, 3, 6, 8), torch.zeros(40, 6, 8, dtype=torch.int64), seed=0))

    def original(inputs: object) -> Outputs:
        return (images_of(inputs) * 4 - 2,)  # type: ignore[arg-type]

    assert task_for(data, [(1, 3, 6, 8)], original, "segmentation").name == "segmentation"
    with pytest.raises(DataError, match=r"has targets \[6, 8\], which no task reads"):
        task_for(data, [(1, 3, 6, 8)], original)


@pytest.mark.parametrize("targets", [torch.zeros(3), torch.zeros(3, 4, 4), (MASKS, MASKS)])
def test_targets_that_are_no_masks_are_told(targets: Targets) -> None:
    with pytest.raises(DataError, match=r"needs a mask \[H, W\] of whole numbers"):
        TASK.loss((SCORES,), targets)


def test_classes_beyond_the_scores_are_told() -> None:
    for call in (TASK.loss, TASK.score):
        with pytest.raises(DataError, match="masks hold -1 to 3, and the model scores 3 classes"):
            call((SCORES,), torch.where(MASKS == 2, 3, MASKS))


def test_outputs_that_are_no_scores_of_pixels_are_told() -> None:
    TASK.check([(1, 3, 2, 2)])
    BINARY.check([(1, 1, 6, 8)])
    Segmentation(()).check([(1, 19, 2, 2)])
    with pytest.raises(DataError, match=r"returns \[1, 3\], and a net that segments returns \[1, K, H, W\]"):
        TASK.check([(1, 3)])
    with pytest.raises(DataError, match=r"the data has 3 classes; a net for them returns \[1, 3, H, W\]"):
        TASK.check([(1, 1, 6, 8)])
