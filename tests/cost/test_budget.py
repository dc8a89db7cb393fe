import pytest
from hypothesis import given
from hypothesis import strategies as st

from slimwright.cost import Budget, Cost, bytes_of
from slimwright.errors import BudgetError

ORIGINAL = Cost(macs=1000, params=10, weight_bytes=40, peak_activation_bytes=2000, latency_ms=8.0, size_bytes=4000)


@pytest.mark.parametrize(
    ("name", "limit", "value"),
    [
        ("latency_ms", 3.5, 3.5),
        ("latency_ms", 12, 12.0),
        ("latency_ms", "12ms", 12.0),
        ("latency_ms", "12 ms", 12.0),
        ("latency_ms", "1.5s", 1500.0),
        ("latency_ms", "250us", 0.25),
        ("latency_ms", "0.5x", 4.0),
        ("latency_ms", ".5X", 4.0),
        ("size_bytes", "2MB", 2e6),
        ("size_bytes", "2mb", 2e6),
        ("size_bytes", "1e3", 1000.0),
        ("size_bytes", "0.25x", 1000.0),
        ("peak_activation_bytes", "64kB", 64e3),
        ("macs", "3M", 3e6),
        ("macs", "1.5x", 1500.0),
    ],
)
def test_limits_are_read_in_the_units_people_write(name: str, limit: float | str, value: float) -> None:
    budget = Budget(**{name: limit})  # type: ignore[arg-type]
    assert budget.absolute(ORIGINAL) == {name: pytest.approx(value, rel=1e-12)}
    assert budget.limited() == (name,)


@pytest.mark.parametrize("name", ["latency_ms", "size_bytes", "peak_activation_bytes", "macs"])
@pytest.mark.parametrize(
    "limit",
    [
        "-1",
        "0",
        "0x",
        "abc",
        "",
        "x",
        "5 lightyears",
        "nan",
        "inf",
        "1e999",
        "1,5",
        "5 5",
        "0.5xx",
        -3.0,
        0,
        float("nan"),
        float("inf"),
        True,
    ],
)
def test_what_is_no_limit_is_refused_with_the_fields_name(name: str, limit: float | str) -> None:
    with pytest.raises(BudgetError, match=name):
        Budget(**{name: limit})  # type: ignore[arg-type]


def test_a_unit_of_another_cost_is_refused() -> None:
    with pytest.raises(BudgetError, match="latency_ms"):
        Budget(latency_ms="2MB")
    with pytest.raises(BudgetError, match="size_bytes"):
        Budget(size_bytes="2ms")


def test_a_budget_without_limits_is_refused() -> None:
    with pytest.raises(BudgetError, match="at least one"):
        Budget()


@pytest.mark.parametrize("drop", [-0.1, float("inf"), float("nan")])
def test_a_drop_that_is_not_a_number_from_0_on_is_refused(drop: float) -> None:
    with pytest.raises(BudgetError, match="max_drop"):
        Budget(macs="0.5x", max_drop=drop)


def test_several_limits_hold_together() -> None:
    budget = Budget(latency_ms="0.5x", macs=300, size_bytes="1kB")
    assert budget.absolute(ORIGINAL) == {"latency_ms": 4.0, "macs": 300.0, "size_bytes": 1000.0}


def test_a_share_of_what_was_not_measured_is_refused() -> None:
    unmeasured = Cost(macs=1000, params=10, weight_bytes=40, peak_activation_bytes=2000)
    with pytest.raises(BudgetError, match="latency_ms was not measured"):
        Budget(latency_ms="0.5x").absolute(unmeasured)
    assert Budget(latency_ms=3).absolute(unmeasured) == {"latency_ms": 3.0}


@given(limit=st.one_of(st.text(max_size=8), st.floats()))
def test_every_text_and_number_is_a_positive_limit_or_a_budget_error(limit: float | str) -> None:
    try:
        budget = Budget(latency_ms=limit)
    except BudgetError:
        return
    assert 0 < budget.absolute(ORIGINAL)["latency_ms"] < float("inf")


def test_a_size_is_a_number_of_bytes() -> None:
    assert [bytes_of(text) for text in ("4GB", "1.5 kb", "300")] == [4_000_000_000, 1500, 300]
    for text in ("0.5x", "0", "much"):
        with pytest.raises(BudgetError, match=f"'{text}' is not a size; give a number of bytes, such as 500MB or 4GB"):
            bytes_of(text)
