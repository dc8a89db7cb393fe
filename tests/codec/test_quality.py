import torch

from slimwright.codec.quality import ms_ssim
from small_pictures import drawn


def test_a_picture_is_like_itself() -> None:
    assert abs(ms_ssim(drawn(200, 220), drawn(200, 220)) - 1) < 1e-9


def test_noise_and_blur_are_unlike_by_as_much_as_they_are_strong() -> None:
    picture = drawn(200, 220)
    noise = torch.randn(picture.shape, generator=torch.Generator().manual_seed(0))
    found = [ms_ssim(picture + strength * noise, picture) for strength in (2, 8, 30)]
    assert 1 > found[0] > found[1] > found[2] > 0
    assert ms_ssim(torch.nn.functional.avg_pool2d(picture.float()[None], 5, 1, 2)[0], picture) < 0.999


def test_a_small_picture_has_fewer_scales() -> None:
    assert 0 < ms_ssim(drawn(12, 30), drawn(12, 30, seed=1)) < 1
