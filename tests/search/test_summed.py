from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slimwright.search.summed import Summed

READS = {"a": ["x"], "b": ["x", "y"], "c": ["z"], "d": []}
COUNTS = st.fixed_dictionaries({item: st.integers(0, 5) for item in "xyz"})


def term(name: str, counts: Mapping[str, int]) -> float:
    return 0.1 + sum(counts[item] / 3 for item in READS[name])


@given(st.lists(COUNTS, min_size=1, max_size=20))
def test_whatever_was_asked_before_the_sum_has_the_same_bits(asked: list[dict[str, int]]) -> None:
    summed = Summed(term, READS)
    for counts in asked:
        assert summed(counts) == sum(term(name, counts) for name in READS)


def test_only_terms_that_read_what_changed_are_computed_again() -> None:
    computed: list[str] = []

    def told(name: str, counts: Mapping[str, int]) -> float:
        computed.append(name)
        return term(name, counts)

    summed = Summed(told, READS)
    for counts, again in (
        ({"x": 1, "y": 1, "z": 1}, "abcd"),
        ({"x": 1, "y": 2, "z": 1}, "b"),
        ({"x": 0, "y": 2, "z": 1}, "ab"),
    ):
        computed.clear()
        summed(counts)
        assert "".join(computed) == again


def test_a_choice_changed_in_place_is_another_choice() -> None:
    summed, counts = Summed(term, READS), {"x": 1, "y": 1, "z": 1}
    before = summed(counts)
    counts["z"] = 4
    assert summed(counts) == pytest.approx(before + 1)


def test_a_choice_that_fails_leaves_nothing_wrong_behind() -> None:
    summed, whole = Summed(term, READS), {"x": 1, "y": 1, "z": 1}
    before = summed(whole)
    with pytest.raises(KeyError):
        summed({"x": 5, "z": 2})
    assert summed(whole) == before


def test_whole_numbers_stay_exact() -> None:
    big = 2**60 + 1
    assert Summed(lambda name, counts: big, {"a": [], "b": []})({}) == 2 * big
