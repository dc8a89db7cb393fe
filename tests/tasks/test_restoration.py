import math

import numpy as np
import pytest
import skimage
import torch
from exact_fisher import assert_near, expected_hessian, mean_outer
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from torch import Tensor

from slimwright.data import ArrayData, Targets, images_of, split
from slimwright.errors import DataError
from slimwright.tasks import Outputs, Restoration, Task, task_for
from slimwright.tasks.restoration import restoring

PHOTO = torch.from_numpy(skimage.data.astronaut()[100:148, 200:264].copy()).permute(2, 0, 1)[None].float() / 255
NOISY = (PHOTO + 0.05 * torch.randn(PHOTO.shape, generator=torch.Generator().manual_seed(0))).clamp(0, 1)
TASK: Task = Restoration((3, 48, 64), 0.25)


def data(levels: float = 1.0) -> ArrayData:
    targets = PHOTO * torch.linspace(0.2, levels, 40)[:, None, None, None]
    return ArrayData("photos", (), split(targets, targets, seed=0))


def same(inputs: object) -> Outputs:
    return (images_of(inputs),)  # type: ignore[arg-type]


def test_psnr_is_that_of_scikit_image_the_mean_over_images() -> None:
    worse = (PHOTO + 0.1).clamp(0, 1)
    wanted = [peak_signal_noise_ratio(PHOTO[0].numpy(), each[0].numpy(), data_range=1.0) for each in (NOISY, worse)]
    found = TASK.score((torch.cat([NOISY, worse]),), torch.cat([PHOTO, PHOTO]))
    assert found == pytest.approx(np.mean(wanted), rel=1e-5)
    assert TASK.metric.shown(found).endswith(" dB") and TASK.metric.higher_is_better


def test_a_picture_without_error_has_100_db() -> None:
    assert TASK.score((PHOTO,), PHOTO) == pytest.approx(100)
    assert TASK.score((PHOTO * math.nan,), PHOTO) == 0


def test_ssim_is_that_of_scikit_image_with_a_gaussian_window() -> None:
    task = Restoration((3, 48, 64), 0.25, "SSIM")
    wanted = structural_similarity(
        PHOTO[0].numpy().astype(np.float64), NOISY[0].numpy().astype(np.float64), data_range=1.0, channel_axis=0,
        gaussian_weights=True, sigma=1.5, use_sample_covariance=False,
    )  # fmt: skip
    assert task.score((NOISY,), PHOTO) == pytest.approx(100 * wanted, rel=1e-6)
    assert task.score((PHOTO,), PHOTO) == pytest.approx(100)
    with pytest.raises(DataError, match="at least 11x11"):
        task.score((PHOTO[..., :10],), PHOTO[..., :10])


def test_the_absolute_error_is_a_share_of_the_range() -> None:
    task = Restoration((3, 48, 64), 0.25, "MAE")
    assert task.score((NOISY,), PHOTO) == pytest.approx(100 * float((NOISY - PHOTO).abs().mean()), rel=1e-5)
    assert not task.metric.higher_is_better


def test_a_map_of_another_size_is_resized_and_a_picture_is_not() -> None:
    depth = Restoration((1, 48, 64), 0.25, "MAE")
    coarse = torch.nn.functional.avg_pool2d(PHOTO[:, :1], 2)
    for output in (coarse, coarse[:, 0]):
        depth.check([tuple(output.shape)])
        assert 0 < depth.score((output,), PHOTO[:, :1]) < 10
    with pytest.raises(DataError, match=r"returns \[1, 3, 24, 32\], and targets are \[1, 3, 48, 64\]"):
        TASK.check([(1, 3, 24, 32)])


def test_the_loss_is_half_the_squared_error_in_deviations() -> None:
    by_hand = 0.5 * (NOISY - PHOTO).square().mean() / 0.25**2
    assert TASK.loss((NOISY,), PHOTO).tolist() == pytest.approx([float(by_hand)])
    assert float(TASK.distance((NOISY,), (PHOTO,), 4.0)) == pytest.approx(float(by_hand))


def test_levels_up_to_255_are_told_from_the_originals_outputs() -> None:
    plain, bright = restoring(data(), same), restoring(data(), lambda inputs: (255 * same(inputs)[0],))
    assert (plain.white, bright.white) == (1.0, 255.0) and plain.deviation == bright.deviation
    assert bright.score((255 * NOISY,), PHOTO) == pytest.approx(plain.score((NOISY,), PHOTO), rel=1e-5)
    torch.testing.assert_close(bright.loss((255 * NOISY,), PHOTO), plain.loss((NOISY,), PHOTO))
    assert float(bright.distance((255 * NOISY,), (255 * PHOTO,), 1.0)) == pytest.approx(
        float(plain.distance((NOISY,), (PHOTO,), 1.0))
    )
    assert bright.agreement((255 * NOISY,), (255 * PHOTO,)) == plain.agreement((NOISY,), (PHOTO,)) > 0.5


def test_the_deviation_is_that_of_the_calibration_targets() -> None:
    pictures = data().parts["calibration"][1]
    assert isinstance(pictures, Tensor)
    assert restoring(data(), same).deviation == pytest.approx(float(pictures.std(unbiased=False)), rel=1e-5)
    assert restoring(data(), same).shape == (3, 48, 64)


def test_random_projections_give_the_curvature_of_the_loss() -> None:
    """Of a net of 3 weights, by 1,500 draws an image; within 6 % of the norm."""
    generator = torch.Generator().manual_seed(0)
    weights = torch.randn(3, dtype=torch.float64, generator=generator)
    images = torch.randn(2, 3, 2, 2, dtype=torch.float64, generator=generator)

    def net(w: Tensor, x: Tensor) -> Outputs:
        return (torch.tanh(x * w[:, None, None]),)

    def curvature(outputs: Outputs) -> Tensor:
        return torch.eye(12, dtype=torch.float64) / (12 * 0.25**2)

    task = Restoration((3, 2, 2), 0.25)
    found = mean_outer(task, net, weights, images, 1_500)
    assert_near(found, expected_hessian(net, weights, images, curvature), within=0.06)


def test_one_data_set_serves_three_tasks() -> None:
    shapes = [(1, 3, 48, 64)]
    by = {name: task_for(data(), shapes, same, name).metric.name for name in ("restoration", "ssim", "depth")}
    assert by == {"restoration": "PSNR", "ssim": "SSIM", "depth": "mean absolute error"}
    assert task_for(data(), shapes, same, "regression").name == "depth"


@pytest.mark.parametrize("targets", [torch.zeros(3), torch.zeros(3, 4, 4), torch.zeros(3, 3, 4, 4, dtype=torch.int64)])
def test_targets_that_are_no_pictures_are_told(targets: Targets) -> None:
    with pytest.raises(DataError, match=r"needs a picture \[C, H, W\] with levels from 0 to 1"):
        TASK.loss((PHOTO,), targets)
