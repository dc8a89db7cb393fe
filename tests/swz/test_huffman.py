"""The sparse storage of Deep Compression, against counts by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from slimwright.errors import ModelError
from slimwright.swz.huffman import codes_of, decoded, encoded, lengths_of, smallest, sparse


def test_a_gap_over_the_bound_takes_a_filler() -> None:  # Figure 2 of the paper: gaps of 3 bits, span exceeds 8
    numbers = np.zeros(16, np.int32)
    numbers[[1, 4, 15]] = 34, 9, 17
    made = sparse(numbers, 3)
    assert made.numbers.tolist() == [34, 9, 0, 17]
    assert made.gaps.tolist() == [1, 2, 7, 2]
    assert (np.cumsum(made.gaps + 1) - 1).tolist() == [1, 4, 12, 15]


def test_lengths_of_a_code_by_hand() -> None:  # 45, 13, 12, 16, 9, 5: Cormen et al., Introduction to Algorithms, 16.3
    lengths = lengths_of(np.array([45, 13, 12, 16, 9, 5]))
    assert lengths.tolist() == [1, 3, 3, 3, 4, 4]
    assert [f"{code:0{n}b}" for code, n in zip(codes_of(lengths), lengths, strict=True)] == [
        "0", "100", "101", "110", "1110", "1111",
    ]  # fmt: skip


def test_a_lone_symbol_has_one_bit_and_a_missing_one_none() -> None:
    assert lengths_of(np.array([0, 7, 0])).tolist() == [0, 1, 0]
    assert lengths_of(np.array([4, 0, 4])).tolist() == [1, 0, 1]


def test_codes_are_no_longer_than_their_table_can_say() -> None:
    fibonacci = [1, 1]
    while len(fibonacci) < 30:
        fibonacci.append(fibonacci[-1] + fibonacci[-2])
    lengths = lengths_of(np.array(fibonacci))
    assert lengths.max() == 15 and sum(2.0**-n for n in lengths.tolist()) <= 1


def test_the_size_is_the_papers_sum() -> None:
    """Kept numbers times (code bits + gap bits): four codes and gaps evenly spread take 2 + 2 bits each."""
    numbers = np.zeros(4000, np.int32)
    places = np.cumsum(np.tile([1, 2, 3, 4], 400)) - 1
    numbers[places] = np.repeat([-2, -1, 1, 2], 400)
    assert 1600 * (2 + 2) / 8 <= len(encoded(smallest(numbers))) <= 1600 * (2 + 2) / 8 + 16


@given(st.lists(st.sampled_from((0, 0, 0, 0, 1, -1, 5, -300, 2**21)), max_size=400), st.integers(0, 600))
def test_numbers_come_back(numbers: list[int], zeros: int) -> None:
    given_ = np.array([*numbers, *[0] * zeros, *numbers], np.int32)
    assert (decoded(encoded(smallest(given_)), len(given_)) == given_).all()


def test_lengths_that_no_code_has_are_refused() -> None:
    with pytest.raises(ModelError, match="Huffman"):
        codes_of(np.array([1, 1, 1], np.uint8))
