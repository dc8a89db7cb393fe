import torch

from slimwright.codec.wavelet import FRACTION_BITS, MULTIPLE, Bands, analysed, analysed_floats, synthesised


def noise(*shape: int) -> torch.Tensor:
    return torch.randint(0, 256, shape, generator=torch.Generator().manual_seed(0))


def test_the_synthesis_takes_back_the_analysis() -> None:
    picture = noise(2, 3, 2 * MULTIPLE, MULTIPLE).double()
    assert torch.allclose(synthesised(analysed_floats(picture)), picture, atol=1e-6)


def test_whole_numbers_are_the_floats_rounded() -> None:
    picture = noise(1, 3, MULTIPLE, 2 * MULTIPLE)
    whole, floats = analysed(picture << FRACTION_BITS), analysed_floats(picture.double())
    for one, other in zip((whole.low, *whole.high), (floats.low, *floats.high), strict=True):
        assert torch.allclose(one.double() / (1 << FRACTION_BITS), other, rtol=1e-4, atol=0.5)


def test_an_error_of_a_coefficient_is_about_as_large_in_the_picture() -> None:
    blank = analysed_floats(torch.zeros(1, 1, 4 * MULTIPLE, 4 * MULTIPLE))
    for level, band in enumerate(blank.high[:4]):  # further bands lie at the border
        for orient in range(3):
            high = [torch.zeros_like(one) for one in blank.high]
            high[level][0, orient, 0, band.shape[-2] // 2, band.shape[-1] // 2] = 1.0
            assert 0.95 < float(synthesised(Bands(blank.low, tuple(high))).norm()) < 1.1
