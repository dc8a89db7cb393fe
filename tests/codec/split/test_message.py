import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from slimwright.codec.split.features import (
    MOST_NUMBER,
    Tables,
    Values,
    packed,
    restored,
    rounded,
    scales_of,
    tables_of,
)
from slimwright.codec.split.message import HEADER_BYTES, message, received
from slimwright.errors import CodecError

ID, OTHER = b"\1\2\3\4", b"\1\2\3\5"
FAR = 2**40
COMPONENTS, PLACES = 6, 9
SEEN = np.random.default_rng(0).laplace(size=(50, COMPONENTS, PLACES)).astype(np.float32) * 8
SEEN *= np.exp2(-np.arange(COMPONENTS, dtype=np.float32))[None, :, None]
TABLES = (tables_of(SEEN), tables_of(SEEN[:, :2, :1] * 3))
USUAL: Values = (SEEN[0], SEEN[0, :2, :1] * 3)
numbers = st.floats(-(2.0**100), 2.0**100, width=32)


def shaped(tables: Tables) -> st.SearchStrategy[np.ndarray]:
    return arrays.arrays(np.float32, (tables.components, tables.places), elements=numbers)


@given(st.tuples(*map(shaped, TABLES)), st.integers(HEADER_BYTES, 200))
def test_no_values_make_a_message_above_the_cap(values: Values, most: int) -> None:
    made = message(values, TABLES, ID, most)
    assert len(made) <= most
    assert [one.shape for one in received(made, TABLES, ID, most)] == [one.shape for one in values]


def test_what_fits_comes_back_within_a_step() -> None:
    made = message(USUAL, TABLES, ID, FAR)
    for value, found in zip(USUAL, received(made, TABLES, ID, FAR), strict=True):
        assert np.array_equal(found, restored(rounded(value, 0), 0))
        assert float(np.abs(found - value).max()) <= 0.6


def test_a_coarser_scale_is_taken_where_the_first_is_too_large_and_no_coarser_one_than_need_be() -> None:
    sizes = [HEADER_BYTES + len(packed(USUAL, TABLES, scale)) for scale in range(scales_of(TABLES) + 1)]
    for most in range(min(sizes), max(sizes)):
        made = message(USUAL, TABLES, ID, most)
        assert made[1] == next(scale for scale, size in enumerate(sizes) if size <= most)


def test_the_last_resort_sends_no_components() -> None:
    made = message(USUAL, TABLES, ID, HEADER_BYTES)
    assert len(made) == HEADER_BYTES
    assert not any(one.any() for one in received(made, TABLES, ID, HEADER_BYTES))


def test_what_calibration_images_show_is_cheaper_than_what_they_do_not() -> None:
    turned = tuple(one[::-1].copy() for one in USUAL)
    assert len(message(USUAL, TABLES, ID, FAR)) < len(message(turned, TABLES, ID, FAR))


def test_a_cap_below_the_header_is_refused() -> None:
    with pytest.raises(CodecError, match="--max-bytes"):
        message(USUAL, TABLES, ID, HEADER_BYTES - 1)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_no_number_is_refused(value: float) -> None:
    spoilt = USUAL[0].copy()
    spoilt[2, 3] = value
    with pytest.raises(CodecError, match="no numbers"):
        message((spoilt, USUAL[1]), TABLES, ID, FAR)


def test_numbers_that_are_too_large_are_clipped() -> None:
    assert rounded(np.array([1e30, -1e30, 0.59, 0.61, -0.61], np.float32), 0).tolist() == [
        MOST_NUMBER,
        -MOST_NUMBER,
        0,
        1,
        -1,
    ]


def test_every_changed_bit_and_every_cut_is_seen() -> None:
    made = message(USUAL, TABLES, ID, FAR)
    for place in range(8 * len(made)):
        changed = bytearray(made)
        changed[place // 8] ^= 1 << place % 8
        with pytest.raises(CodecError):
            received(bytes(changed), TABLES, ID, FAR)
    for end in range(len(made)):
        with pytest.raises(CodecError):
            received(made[:end], TABLES, ID, FAR)


def test_a_message_of_another_split_or_above_the_cap_is_refused() -> None:
    made = message(USUAL, TABLES, ID, FAR)
    with pytest.raises(CodecError, match="another split"):
        received(made, TABLES, OTHER, FAR)
    with pytest.raises(CodecError, match="has at most"):
        received(made, TABLES, ID, len(made) - 1)


def test_tables_end_where_all_calibration_images_come_to_zero() -> None:
    assert not rounded(SEEN, len(TABLES[0].odds) - 1).any()
    assert rounded(SEEN, len(TABLES[0].odds) - 2).any()
