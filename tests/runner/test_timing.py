"""How runs are ordered, and which of their times count."""

from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slimwright.runner.timing import TURN, evictor, interleaved, undisturbed


def test_sides_run_in_turns_and_equally_often() -> None:
    ran: list[str] = []
    taken = interleaved({"a": lambda: ran.append("a"), "b": lambda: ran.append("b")}, runs=2 * TURN, warm_up=1)
    a, b = ["a"] * (TURN + 1), ["b"] * (TURN + 1)
    assert ran[2:] == [*a, *b, *b, *a]
    assert taken["a"].runs == taken["b"].runs == 2 * TURN
    assert taken["a"].p10_ms <= taken["a"].median_ms <= taken["a"].p90_ms


def test_no_side_always_follows_the_same_neighbour() -> None:
    ran: list[str] = []
    sides = {name: lambda name=name: ran.append(name) for name in "abc"}
    interleaved(sides, runs=3 * TURN, warm_up=0)
    assert "".join(ran[:: TURN + 1]) == "abcbcacab"


def test_what_a_side_takes_right_behind_another_is_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    last, clock = "", 0.0

    def run(name: str) -> None:
        nonlocal last, clock
        clock += 1.0 if last == name else 20.0
        last = name

    monkeypatch.setattr("slimwright.runner.timing.time.perf_counter", lambda: clock)
    taken = interleaved({name: partial(run, name) for name in "ab"}, runs=2 * TURN, warm_up=0)
    assert {(side.p10_ms, side.p90_ms) for side in taken.values()} == {(1000.0, 1000.0)}


def test_what_is_read_between_runs_is_as_large_as_asked() -> None:
    assert evictor(1 << 20)() == (1 << 20) / 64
    assert evictor(0)() == 0


def test_rounds_go_on_for_the_least_time_even_where_none_are_asked_for() -> None:
    assert interleaved({"a": lambda: None}, runs=0, least_s=0.1)["a"].runs > 10


def test_the_undisturbed_time_is_the_mean_of_the_fastest_quarter() -> None:
    assert undisturbed([9.0, 1.0, 3.0, 100.0, 5.0, 7.0, 8.0, 2.0]) == 1.5
    assert undisturbed([9.0, 1.0, 3.0, 2.0, 5.0]) == 1.5  # a quarter of five, rounded up
    assert undisturbed([4.0]) == 4.0


@given(st.lists(st.floats(0.001, 1e3), min_size=1, max_size=50), st.lists(st.floats(1e4, 1e6), max_size=10))
def test_slow_runs_beside_the_others_change_little(times: list[float], slow: list[float]) -> None:
    assert min(times) * (1 - 1e-9) <= undisturbed(times) <= max(times) * (1 + 1e-9)
    if 3 * len(times) >= len(slow):  # fewer than three quarters of all
        assert undisturbed([*times, *slow]) <= max(times) * (1 + 1e-9)
    assert undisturbed(times[::-1]) == pytest.approx(undisturbed(times))
