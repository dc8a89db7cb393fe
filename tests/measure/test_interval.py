"""What a difference is worth: intervals that hold what they promise, and differences that the images cannot show."""

import math
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from slimwright.data import Targets
from slimwright.measure import drop_interval, least_drop
from slimwright.tasks import Classification, Detection, Embedding, Imitation, Metric, MultiLabel, Outputs, Scored
from slimwright.tasks.detection import EndToEnd
from slimwright.units import within

TASK = Classification(("no", "yes"))


def scores(right: Sequence[bool]) -> Outputs:
    """Scores of images that all show the first class, some of them named rightly."""
    first = torch.tensor([1.0 if each else 0.0 for each in right])
    return (torch.stack([first, 1 - first], 1),)


def labels(count: int) -> Tensor:
    return torch.zeros(count, dtype=torch.int64)


def test_the_interval_of_a_paired_difference_is_that_of_agresti_and_min() -> None:
    """Of 100 images 9 were lost and 3 gained: by hand from the paper's formula, n + 2, b + 1/2, c + 1/2."""
    before = scores([True] * 9 + [False] * 3 + [True] * 88)
    after = scores([False] * 9 + [True] * 3 + [True] * 88)
    found = drop_interval(TASK, before, after, labels(100))
    lost, gained, count = 9.5, 3.5, 102
    middle = (lost - gained) / count
    width = 1.96 * math.sqrt(lost + gained - (lost - gained) ** 2 / count) / count
    assert found.method == "paired" and found.images == 100 and found.drop == pytest.approx(6.0)
    assert (found.low, found.high) == pytest.approx((100 * (middle - width), 100 * (middle + width)))
    assert not found.shows


def test_images_that_all_come_out_the_same_do_not_show_that_nothing_changed() -> None:
    one = scores([True] * 58 + [False] * 2)
    found = drop_interval(TASK, one, one, labels(60))
    assert found.drop == 0 and not found.shows
    assert found.high == -found.low == pytest.approx(196 / 62)


@pytest.mark.parametrize(("lost", "shows"), [(1, False), (30, True)])
def test_only_a_difference_that_the_images_show_is_one(lost: int, shows: bool) -> None:
    before, after = scores([True] * 200), scores([False] * lost + [True] * (200 - lost))
    assert drop_interval(TASK, before, after, labels(200)).shows is shows
    assert drop_interval(TASK, after, before, labels(200)).shows is shows


def test_the_interval_holds_the_truth_as_often_as_it_promises() -> None:
    """Networks that lose 4 points on average, on 80 images, 40 times: 95 of 100, within what chance allows."""
    generator, held = torch.Generator().manual_seed(0), 0
    for _ in range(40):
        draws = torch.rand(80, generator=generator)
        before = scores((draws > 0.03).tolist())  # 3 % gained
        after = scores(((draws < 0.03) | (draws > 0.10)).tolist())  # 7 % lost
        found = drop_interval(TASK, before, after, labels(80))
        held += found.low <= 4.0 <= found.high
    assert held >= 36


def test_a_metric_that_is_no_mean_over_images_is_resampled_by_a_fixed_seed() -> None:
    generator = torch.Generator().manual_seed(0)
    wanted = torch.randn(80, 5, generator=generator)
    near, far = (wanted + size * torch.randn(80, 5, generator=generator) for size in (0.1, 0.3))
    task = Imitation((1.0,))
    found = drop_interval(task, (near,), (far,), (wanted,))
    assert found.method == "bootstrap" and found == drop_interval(task, (near,), (far,), (wanted,))
    assert found.shows and 0 < found.low < found.drop < found.high < 2 * found.drop  # the error rose by 20 %
    assert not drop_interval(task, (near,), (near,), (wanted,)).shows


class Median:
    """A metric of the whole that is no number for a single image."""

    metric = Metric("median")

    def score(self, outputs: Outputs, targets: Targets) -> float:
        return float(outputs[0].median()) if len(outputs[0]) > 1 else math.nan


def test_a_metric_that_makes_no_sense_for_one_image_is_resampled() -> None:
    values = torch.arange(50.0)
    found = drop_interval(Median(), (values + 30,), (values,), labels(50))  # type: ignore[arg-type]
    assert found.method == "bootstrap" and found.drop == 30 and found.low <= 30 <= found.high


def test_few_images_judge_no_small_drop() -> None:
    right = scores([True, False, True])
    assert least_drop(TASK, right, labels(3), 6) == pytest.approx(24.5)
    assert least_drop(TASK, right, labels(3), 10_000) == pytest.approx(0.0196, rel=1e-3)


def test_of_metrics_that_do_not_count_images_nothing_is_said() -> None:
    values = torch.arange(50.0)
    assert least_drop(Imitation((1.0,)), (values[:, None],), (values[:, None],), 6) is None
    assert least_drop(Median(), (values,), labels(50), 6) is None  # type: ignore[arg-type]


def test_limits_are_told_in_words() -> None:
    gap = "\N{NO-BREAK SPACE}"
    assert within(TASK.metric, -0.4, 1.2, 1360) == "unchanged within what 1,360 images can show"
    assert within(TASK.metric, 0.2, 1.4, 90) == f"95{gap}%: 0.20 to 1.40 points worse"
    assert within(TASK.metric, -1.4, -0.2, 90) == f"95{gap}%: 0.20 to 1.40 points better"


def test_a_metric_over_objects_is_resampled_though_some_images_show_none() -> None:
    """The first images are found by both: there single scores have the whole's as their mean, and later not."""
    boxes = torch.tensor([0.0, 4, 4, 12, 12]).repeat(30, 1, 1)
    boxes[20:25, 0] = torch.tensor([-1.0, 0, 0, 0, 0])
    found = torch.tensor([4.0, 4, 12, 12, 0.9, 0]).repeat(30, 1, 1)
    missed = found.clone()
    missed[9:12, :, 4] = 0
    task = Detection(("a",), EndToEnd((1.0, 1.0)), half=True)
    seen = drop_interval(task, (found,), (missed,), boxes)
    assert seen.method == "bootstrap" and seen.drop > 5
    assert 0 <= seen.low <= seen.drop <= seen.high and math.isfinite(seen.high)


def test_a_metric_that_has_no_score_for_one_image_is_resampled() -> None:
    """Pairs need two images, and average precision a class that occurs."""
    who = torch.arange(24) % 4
    before = torch.randn(4, 6, generator=torch.Generator().manual_seed(0))[who] + 0.1 * torch.randn(24, 6)
    after = before + torch.randn(24, 6)
    found = drop_interval(Embedding(Imitation((1.0,))), (before,), (after,), (who, before))
    assert found.method == "bootstrap" and found.low <= found.drop <= found.high
    shown = torch.eye(24, 2, dtype=torch.int64)  # the last 22 images show nothing
    found = drop_interval(MultiLabel(("a", "b")), (torch.randn(24, 2),), (torch.randn(24, 2),), shown)
    assert found.method == "bootstrap" and math.isfinite(found.low) and math.isfinite(found.high)


def test_a_metric_of_the_users_own_that_fails_on_one_image_is_resampled() -> None:
    """The area under a curve, of which scikit-learn makes an error where all images are of one class."""
    from sklearn.metrics import roc_auc_score

    right = torch.arange(40) % 2
    before = right + 0.7 * torch.randn(40, generator=torch.Generator().manual_seed(0))

    def area(outputs: Outputs, targets: Targets) -> float:
        seen = torch.as_tensor(targets).reshape(-1)
        if len(seen.unique()) < 2:
            raise ValueError("only one class is there")
        return 100 * float(roc_auc_score(seen, outputs[0].reshape(-1)))

    task = Scored(Imitation((1.0,)), area, Metric("area"), "area", None)
    both = right[:, None], before[:, None]  # the data's own targets, then what the original gave
    found = drop_interval(task, (before[:, None],), (before[:, None] + torch.randn(40, 1),), both)
    assert found.method == "bootstrap" and found.low < found.drop < found.high
