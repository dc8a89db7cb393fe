import numpy as np
import pytest

from slimwright.codec.symbols import LEAST_SCALE, MOST_ODDS, SCALE_UNIT, coded, indices_for
from slimwright.errors import ModelError
from slimwright.swz.entropy import Decoder, Encoder


def written(numbers: np.ndarray, odds: np.ndarray, scale: np.ndarray) -> bytes:
    coder = Encoder()
    coded(coder, odds, scale, numbers)
    return coder.finished()


def test_numbers_come_back_whatever_was_expected() -> None:
    chance = np.random.default_rng(0)
    numbers = np.rint(chance.laplace(0, 3, 20_000)).astype(np.int32)
    numbers[:6] = (2**20, -(2**20), 5000, -1, 0, 1)
    odds, scale = chance.integers(0, 161, len(numbers)), chance.integers(0, 53, len(numbers))
    data = written(numbers, odds, scale)
    assert np.array_equal(coded(Decoder(data), odds, scale, None), numbers)


@pytest.mark.parametrize("mean", [0.5, 2.0, 16.0, 200.0])
def test_numbers_take_hardly_more_than_their_entropy(mean: float) -> None:
    chance, count = np.random.default_rng(1), 50_000
    theta = np.exp(-1 / mean)
    sizes = chance.geometric(1 - theta, count) * (chance.random(count) < 0.5)
    numbers = (sizes * chance.choice((-1, 1), count)).astype(np.int32)
    scale = np.full(count, round(SCALE_UNIT * np.log2(mean)) - LEAST_SCALE)
    bits = 8 * len(written(numbers, np.full(count, MOST_ODDS), scale))
    some = sizes[sizes > 0]
    entropy = count + len(some) - np.log2((1 - theta) * theta ** (some - 1.0)).sum()
    assert entropy * 0.999 < bits < entropy * 1.012


def test_indices_suit_the_numbers() -> None:
    numbers = np.random.default_rng(2).integers(-9, 10, 4000).astype(np.int32)
    odds, scale = indices_for(numbers)
    data = written(numbers, np.full(4000, odds), np.full(4000, scale))
    assert len(data) * 8 < 4000 * 4.7  # log2(19) is 4.25


def test_strange_bytes_are_numbers_or_an_error() -> None:
    chance = np.random.default_rng(3)
    for _ in range(200):
        try:
            found = coded(Decoder(chance.bytes(40)), np.zeros(60, np.int64), np.full(60, 52), None)
        except ModelError:
            continue
        assert found.shape == (60,)
