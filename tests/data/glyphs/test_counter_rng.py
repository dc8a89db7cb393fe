import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from slimwright.data.glyphs.counter_rng import GOLDEN, keys, mixed, uniform


def test_the_mixing_is_that_of_splitmix64() -> None:
    """The first outputs from seed 0, which implementations are checked against."""
    state = np.arange(1, 4, dtype=np.uint64) * GOLDEN
    assert [hex(word) for word in mixed(state).tolist()] == [
        "0xe220a8397b1dcdaf",
        "0x6e789e6aa1b965f4",
        "0x6c45d188009454f",
    ]


@given(st.integers(-(2**70), 2**70), st.integers(0, 3), st.integers(0, 10**6))
def test_numbers_depend_on_seed_part_and_image_alone(seed: int, stream: int, number: int) -> None:
    alone = uniform(keys(seed, stream, np.array([number])), 10)
    among = uniform(keys(seed, stream, np.array([number + 5, number, 3])), 10)
    assert np.array_equal(alone[0], among[1]) and not np.array_equal(among[0], among[1])
    assert not np.array_equal(alone, uniform(keys(seed + 1, stream, np.array([number])), 10))
    assert not np.array_equal(alone, uniform(keys(seed, stream + 1, np.array([number])), 10))


def test_numbers_are_spread_evenly_and_are_unrelated() -> None:
    drawn = uniform(keys(1, 0, np.arange(4000)), 50).astype(np.float64)
    assert drawn.min() > 0 and drawn.max() < 1
    assert np.abs(drawn.mean(0) - 0.5).max() < 0.025 and np.abs(drawn.var(0) - 1 / 12).max() < 0.006
    related = np.corrcoef(drawn.T) - np.eye(50)
    assert np.abs(related).max() < 0.08  # 5 standard errors
    assert np.abs(np.corrcoef(drawn[:50]) - np.eye(50)).max() < 0.75


def test_later_words_are_other_numbers() -> None:
    keyed = keys(1, 0, np.arange(8))
    assert np.array_equal(uniform(keyed, 16)[:, 8:], uniform(keyed, 8, first=2))
