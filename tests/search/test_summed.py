from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slimwright.search.summed import Summed, Variation

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


CHANGES = st.dictionaries(st.sampled_from("xyz"), st.integers(0, 5), min_size=1, max_size=2)


@given(st.lists(st.tuples(COUNTS, st.lists(CHANGES)), max_size=8))
def test_a_variation_has_the_sum_of_the_choice_that_it_is(
    asked: list[tuple[dict[str, int], list[dict[str, int]]]],
) -> None:
    summed = Summed(term, READS)
    for base, every in asked:
        for changes in every:
            varied = Variation(base, changes)
            assert varied == {**base, **changes}
            assert summed(varied) == pytest.approx(sum(term(name, varied) for name in READS), rel=1e-12)
        assert summed(base) == sum(term(name, base) for name in READS)


def test_what_a_variation_changes_is_computed_once_until_something_beside_it_is_another() -> None:
    computed: list[str] = []

    def told(name: str, counts: Mapping[str, int]) -> float:
        computed.append(name)
        return term(name, counts)

    summed, base = Summed(told, READS), {"x": 1, "y": 1, "z": 1}
    for varied, again in (
        (Variation(base, {"y": 2}), "abcdb"),
        (Variation(base, {"y": 2}), ""),
        (Variation(base, {"y": 3}), "b"),
        (Variation({**base, "z": 2}, {"y": 3}), "c"),  # which y does not meet
        (Variation({**base, "z": 2, "x": 2}, {"y": 3}), "abb"),
    ):
        computed.clear()
        summed(varied)
        assert "".join(computed) == again


def test_variations_of_whole_numbers_stay_exact() -> None:
    big = 2**60 + 1
    summed = Summed(lambda name, counts: big + counts["x"], {"a": ["x"], "b": ["x"]})
    assert summed(Variation({"x": 0}, {"x": 3})) == 2 * big + 6
