import pytest
import torch

from slimwright.codec.decoding import decoded
from slimwright.codec.encoding import Aim, Encoded, Options, encoded
from slimwright.codec.parameters import parameters
from slimwright.codec.picturing import psnr_of, source_of
from slimwright.errors import CodecError
from slimwright.progress import silent
from small_pictures import drawn

SHARED = parameters()


def file_of(picture: torch.Tensor, aim: Aim, tile: int = 512, weights: torch.Tensor | None = None) -> Encoded:
    return encoded(source_of(picture, weights), SHARED, aim, Options(tile), silent)


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (65, 130), (128, 64)])
def test_a_picture_of_any_size_comes_back_as_the_encoder_saw_it(size: tuple[int, int]) -> None:
    made = file_of(drawn(*size), Aim(quality=30), tile=64)
    found = decoded(made.data, SHARED, silent)
    assert torch.equal(found.picture, made.picture) and not found.concealed
    for one, other in zip(found.numbers.bands.high, made.numbers.bands.high, strict=True):
        assert torch.equal(one, other)


def test_a_finer_step_is_nearer_and_larger() -> None:
    picture = drawn(128, 128)
    made = [file_of(picture, Aim(quality=quality)) for quality in (16, 32, 48)]
    assert [one.psnr for one in made] == sorted(one.psnr for one in made)
    assert [len(one.data) for one in made] == sorted(len(one.data) for one in made)
    assert made[-1].psnr > 40


def test_most_bytes_are_a_cap_and_are_used() -> None:
    made = file_of(drawn(64, 64), Aim(most_bytes=600))
    assert 600 * 0.93 < len(made.data) <= 600


def test_a_psnr_is_met_and_hardly_exceeded() -> None:
    made = file_of(drawn(64, 64), Aim(psnr=33.0))
    assert 33.0 <= made.psnr < 33.6


@pytest.mark.slow
def test_what_no_step_gives_is_refused() -> None:
    with pytest.raises(CodecError, match="more than the 20 that are asked for"):
        file_of(drawn(64, 64), Aim(most_bytes=20))
    with pytest.raises(CodecError, match="ask for less"):
        file_of(drawn(64, 64), Aim(psnr=90.0))


def test_brighter_places_of_the_weights_are_nearer() -> None:
    picture, weights, aim = drawn(128, 128), torch.full((128, 128), 1 / 64).double(), Aim(quality=34)
    weights[:, :64] = 1.0
    plain, made = file_of(picture, aim), file_of(picture, aim, weights=weights)
    left, right = (slice(None), slice(None), slice(0, 56)), (slice(None), slice(None), slice(72, 128))
    assert len(made.data) < 0.8 * len(plain.data)
    assert psnr_of(made.picture[left], picture[left]) > psnr_of(plain.picture[left], picture[left]) - 0.1
    assert psnr_of(made.picture[right], picture[right]) < psnr_of(plain.picture[right], picture[right]) - 1
