"""Planning by measurement: the predictions here are wrong on purpose."""

from collections.abc import Mapping

import pytest

from slimwright.search import MOST, Plan, Problem, plan_by_measuring

SIZES = {"a": [64, 48, 32, 16], "b": [64, 48, 32, 16]}


def milliseconds(counts: Mapping[str, int]) -> float:
    return (counts["a"] + counts["b"]) / 128


def asked() -> Problem:
    damage = {"a": lambda n: (64 - n) * 1.0, "b": lambda n: (64 - n) * 3.0}
    return Problem(SIZES, damage, lambda counts: {"latency_ms": milliseconds(counts)})


@pytest.mark.parametrize("wrong", [1.0, 1.2, 0.8])
def test_what_the_prediction_gets_wrong_is_corrected_by_measuring(wrong: float) -> None:
    measured: list[Plan] = []

    def measure(plan: Plan) -> Mapping[str, float]:
        measured.append(plan)
        return {"latency_ms": wrong * milliseconds(plan.counts)}

    found = plan_by_measuring(asked(), {"latency_ms": 0.75}, measure)
    assert found is not None
    assert found.fits
    assert found.measured["latency_ms"] <= MOST * 0.75
    fitting = [plan.damage for plan in measured if wrong * milliseconds(plan.counts) <= MOST * 0.75]
    assert found.plan.damage == min(fitting)


def test_the_cheaper_group_is_cut_first() -> None:
    found = plan_by_measuring(asked(), {"latency_ms": 0.75}, lambda p: {"latency_ms": milliseconds(p.counts)})
    assert found is not None
    assert found.plan.counts == {"a": 16, "b": 64} or found.plan.counts["a"] < found.plan.counts["b"]


def test_a_limit_that_nothing_meets_gives_the_nearest_plan_and_says_so() -> None:
    found = plan_by_measuring(asked(), {"latency_ms": 0.1}, lambda p: {"latency_ms": milliseconds(p.counts)})
    assert found is not None
    assert not found.fits
    assert found.plan.counts == {"a": 16, "b": 16}


def test_nothing_is_planned_where_nothing_has_to_be_cut() -> None:
    def measure(plan: Plan) -> Mapping[str, float]:
        raise AssertionError(f"measured {plan} for nothing")

    assert plan_by_measuring(asked(), {"latency_ms": 1.5}, measure) is None
