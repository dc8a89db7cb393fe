"""The planner on lifetimes of every kind: sound always, near the bound, quick, and the same each time."""

import itertools
import random
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slimwright.graph.arena import Buffer, live_bytes, place

REACH = {"chain": (1,), "residual": (1, 1, 1, 2, 3, 4), "dense": (1, 1, 5, 10, 20, 40)}  # steps until the last read


def lifetimes(kind: str, count: int, seed: int) -> list[Buffer]:
    """Buffers with the sizes and lifetimes of a network of this kind."""
    draw = random.Random(seed)
    return [
        Buffer(
            str(i), draw.choice((1, 2, 3, 4, 6, 8, 12, 16)) * 49 * 4 ** draw.randrange(4), i, min(count - 1, i + far)
        )
        for i, far in ((i, draw.choice(REACH[kind])) for i in range(count))
    ]


def assert_apart(buffers: Sequence[Buffer], offsets: dict[str, int]) -> None:
    for one, other in itertools.combinations(buffers, 2):
        if one.first <= other.last and other.first <= one.last:
            low, high = sorted((one, other), key=lambda b: offsets[b.name])
            assert offsets[low.name] + low.bytes <= offsets[high.name], (one, other)


def height(buffers: Sequence[Buffer], offsets: dict[str, int]) -> int:
    return max(offsets[b.name] + b.bytes for b in buffers)


@given(
    st.lists(
        st.tuples(st.integers(1, 100), st.integers(0, 12), st.integers(0, 12)).map(lambda t: (t[0], *sorted(t[1:]))),
        min_size=1,
        max_size=14,
    )
)
def test_live_buffers_never_overlap_and_no_plan_goes_below_what_is_live(made: list[tuple[int, int, int]]) -> None:
    buffers = [Buffer(str(i), *each) for i, each in enumerate(made)]
    offsets = place(buffers)
    assert offsets.keys() == {b.name for b in buffers}
    assert min(offsets.values()) == 0
    assert_apart(buffers, offsets)
    assert height(buffers, offsets) >= max(live_bytes(buffers, 13))


@pytest.mark.parametrize("kind", REACH)
@pytest.mark.parametrize("count", [10, 60, 150])
def test_an_arena_takes_at_most_a_tenth_more_than_what_is_live(kind: str, count: int) -> None:
    for seed in range(5):
        buffers = lifetimes(kind, count, seed)
        offsets = place(buffers)
        assert_apart(buffers, offsets)
        assert height(buffers, offsets) <= 1.1 * max(live_bytes(buffers, count))


def test_largest_first_is_not_enough_and_another_order_is_found() -> None:
    # Largest first puts a at 0, b (which meets a) at 4 and c at 0; then d, which meets b and c, lands at 8: 11 in all.
    buffers = [Buffer("a", 4, 0, 1), Buffer("b", 4, 1, 2), Buffer("c", 4, 3, 3), Buffer("d", 3, 2, 3)]
    assert max(live_bytes(buffers, 4)) == 8
    assert height(buffers, place(buffers)) == 8


def test_a_plan_is_the_same_each_time() -> None:
    buffers = lifetimes("dense", 60, 1)
    assert place(buffers) == place(list(buffers))


def test_live_bytes_are_those_of_each_step() -> None:
    assert live_bytes([Buffer("a", 5, 0, 1), Buffer("b", 3, 1, 3)], 5) == (5, 8, 3, 3, 0)
    assert place([]) == {}
