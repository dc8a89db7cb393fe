"""Planning by measurement: the predictions here are wrong on purpose."""

from collections.abc import Callable, Mapping

import pytest

from slimwright.search import Correction, MeasuredPlan, Plan, Problem, plan_by_measuring, room

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
    assert found.measured["latency_ms"] <= room("latency_ms").most * 0.75
    fitting = [plan.damage for plan in measured if wrong * milliseconds(plan.counts) <= room("latency_ms").most * 0.75]
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


class Stage:
    """One group of 100 channels, planned and measured: shares of the limit of one millisecond, one after the other.

    Each channel is predicted to take 1/48.5 ms, so the first plan keeps 47: 0.969 ms, below 97 % of the limit.
    """

    def __init__(self, *shares: float) -> None:
        self.shares, self.plans = shares, list[Plan]()
        self.task = one_group(lambda n: {"latency_ms": n / 48.5})

    def measure(self, plan: Plan) -> Mapping[str, float]:
        self.plans.append(plan)
        return {"latency_ms": self.shares[len(self.plans) - 1]}

    def kept(self) -> list[int]:
        return [plan.counts["a"] for plan in self.plans]

    def planned(self) -> MeasuredPlan:
        found = plan_by_measuring(self.task, {"latency_ms": 1.0}, self.measure)
        assert found is not None
        return found


def one_group(costs: Callable[[int], Mapping[str, float]]) -> Problem:
    return Problem({"a": range(100, 0, -1)}, {"a": lambda n: 100.0 - n}, lambda counts: costs(counts["a"]))


@pytest.mark.parametrize(("share", "fits"), [(0.98, True), (0.985, True), (0.99, False), (1.0, False)])
def test_a_measurement_fits_up_to_98_5_percent_of_a_limit(share: float, fits: bool) -> None:
    stage = Stage(*[share] * 8)
    assert stage.planned().fits is fits
    assert stage.kept()[0] == 47


@pytest.mark.parametrize(("share", "kept"), [(0.93, [47, 49]), (0.945, [47, 48]), (0.96, [47]), (0.985, [47])])
def test_channels_are_given_back_where_less_than_96_percent_of_a_limit_is_used(share: float, kept: list[int]) -> None:
    """The next aim is 0.97 x 0.969 / share: below 1.0108 ms lie 49 channels, below 0.9947 ms 48."""
    stage = Stage(share, 0.96)
    found = stage.planned()
    assert stage.kept() == kept
    assert found.fits and found.plan is stage.plans[-1]


def test_the_next_aim_is_lower_by_what_the_prediction_was_wrong() -> None:
    stage = Stage(1.0, 0.96)
    assert stage.planned().plan.counts == {"a": 45}  # 0.97 x 0.969 ms = 0.940 ms; 45 channels take 0.928
    assert stage.kept() == [47, 45]


def test_no_more_than_eight_plans_are_measured() -> None:
    stage = Stage(*[1.1] * 9)
    assert not stage.planned().fits
    assert len(stage.plans) == 8


@pytest.mark.parametrize(("shares", "nearest"), [
    ((1.3, 1.1, 1.2, 1.15, 1.25), 1), ((1.1, 1.3, 1.2, 1.15, 1.25), 0), ((1.3, 1.2, 1.15, 1.25, 1.05), 4),
    ((1.2, 1.2, 1.3, 1.3, 1.3), 0),
])  # fmt: skip
def test_where_none_fits_the_nearest_is_returned_and_of_equals_the_less_damaging(
    shares: tuple[float, ...], nearest: int
) -> None:
    stage = Stage(*shares, *[1.4] * 3)
    found = stage.planned()
    assert not found.fits and found.plan is stage.plans[nearest]
    assert found.measured == {"latency_ms": shares[nearest]}


def test_how_near_a_plan_is_tells_its_worst_share_of_a_limit() -> None:
    """First 1.3 and 0.5 of the limits, then 1.1 and 1.05, then 0.7 and 1.2."""
    measured = iter([(1.3, 500.0), (1.1, 1050.0), (0.7, 1200.0), *[(1.4, 900.0)] * 5])
    task = one_group(lambda n: {"latency_ms": n / 49.5, "size_bytes": 10.0 * n})

    def measure(plan: Plan) -> Mapping[str, float]:
        return dict(zip(("latency_ms", "size_bytes"), next(measured), strict=True))

    found = plan_by_measuring(task, {"latency_ms": 1.0, "size_bytes": 1000.0}, measure)
    assert found is not None
    assert not found.fits and found.measured == {"latency_ms": 1.1, "size_bytes": 1050.0}


def test_every_measured_cost_must_fit() -> None:
    task = one_group(lambda n: {"latency_ms": n / 49.5, "size_bytes": 10.0 * n})
    limits = {"latency_ms": 1.0, "size_bytes": 1000.0}
    for costs in ({"latency_ms": 0.9, "size_bytes": 1200.0}, {"latency_ms": 1.2, "size_bytes": 900.0}):
        found = plan_by_measuring(task, limits, lambda _, costs=costs: costs)  # type: ignore[misc]
        assert found is not None
        assert not found.fits


def test_a_plan_that_fits_is_kept_before_one_that_does_not_and_the_less_damaging_of_two_that_do() -> None:
    stage = Stage(0.8, 1.2, 1.1, 1.1, 1.1)
    found = stage.planned()
    assert stage.kept() == [47, 56, 52, 49, 48]
    assert found.fits and found.plan is stage.plans[0]
    later = Stage(1.1, 0.96)
    assert later.planned().plan is later.plans[1]
    both = Stage(0.8, 0.96)
    assert both.planned().plan is both.plans[1]


def test_between_an_aim_that_fits_and_one_that_does_not_lies_the_next() -> None:
    """0.8 and 1.2 were measured at aims of 0.97 and 1.175 ms, and 1.2 corrects the second to 0.93 ms, below the first.

    Halfway are 1.0725 ms: 52 channels take 1.0722.
    """
    stage = Stage(0.8, 1.2, 0.96)
    assert stage.planned().plan.counts == {"a": 52}
    assert stage.kept() == [47, 56, 52]


def test_where_a_correction_leads_to_a_known_plan_it_goes_on_halfway_to_what_did_not_fit() -> None:
    """One group in steps of ten: of 40 and 60 channels one is too small and one too large, and 50 lies between."""
    shares = {40: 0.8, 60: 1.2, 50: 0.96}
    task = Problem(
        {"a": range(100, 0, -10)}, {"a": lambda n: 100.0 - n}, lambda counts: {"latency_ms": counts["a"] / 48.5}
    )
    kept = list[int]()

    def measure(plan: Plan) -> Mapping[str, float]:
        kept.append(plan.counts["a"])
        return {"latency_ms": shares[kept[-1]]}

    found = plan_by_measuring(task, {"latency_ms": 1.0}, measure)
    assert found is not None and found.fits and found.plan.counts == {"a": 50}
    assert len(kept) == len(set(kept))


def test_a_limit_that_is_not_measured_keeps_no_aim_open() -> None:
    """Of 45 and 44 channels one fits and one does not, and nothing lies between: the plan is solved no more often."""
    solved = list[int]()

    def costs(count: int) -> Mapping[str, float]:
        solved.append(count)
        return {"latency_ms": count / 48.5, "macs": float(count)}

    def of(limits: Mapping[str, float]) -> int:
        solved.clear()
        task = Problem({"a": [100, 48, 47]}, {"a": lambda n: 100.0 - n}, lambda counts: costs(counts["a"]))
        found = plan_by_measuring(
            task, limits, lambda plan: {"latency_ms": {48: 1.1, 47: 0.9}[plan.counts["a"]]}, rounds=50
        )
        assert found is not None and found.plan.counts == {"a": 47}
        return len(solved)

    assert of({"latency_ms": 1.0, "macs": 90.0}) < 2 * of({"latency_ms": 1.0})


# what is not measured


TWO = Problem(
    {"a": [4, 2]}, {"a": lambda n: 4.0 - n}, lambda counts: {"latency_ms": 0.2 * counts["a"], "macs": 8.5 + counts["a"]}
)


@pytest.mark.parametrize(("macs", "fits"), [(10.4, False), (10.5, True), (10.6, True), (20.0, True)])
def test_a_cost_that_is_exact_must_be_within_its_limit(macs: float, fits: bool) -> None:
    """The smaller size has 10.5, and nothing less is to be had: above what is aimed at, but allowed."""
    found = plan_by_measuring(TWO, {"latency_ms": 0.5, "macs": macs}, lambda _: {"latency_ms": 0.45})
    assert found is not None
    assert found.plan.counts == {"a": 2} and found.fits is fits


@pytest.mark.parametrize(("limit", "fits"), [(10.0, False), (11.0, True)])
def test_where_nothing_is_measured_one_plan_is_made_and_judged_by_what_is_exact(limit: float, fits: bool) -> None:
    asked: list[Plan] = []

    def measure(plan: Plan) -> Mapping[str, float]:
        asked.append(plan)
        return {}

    found = plan_by_measuring(TWO, {"macs": limit}, measure)
    assert found is not None
    assert found.fits is fits and len(asked) == 1 and found.measured == {}


def test_what_was_measured_counts_and_not_what_was_predicted_of_it() -> None:
    """0.4 ms are predicted of the smaller size, more than the limit allows; 0.27 are measured."""
    found = plan_by_measuring(TWO, {"latency_ms": 0.3}, lambda _: {"latency_ms": 0.27})
    assert found is not None
    assert found.fits and not found.plan.feasible and found.measured == {"latency_ms": 0.27}


def test_a_cost_without_a_limit_may_be_measured_too() -> None:
    found = plan_by_measuring(TWO, {"latency_ms": 0.5}, lambda _: {"latency_ms": 0.45, "size_bytes": 9e9})
    assert found is not None
    assert found.fits and found.measured == {"latency_ms": 0.45, "size_bytes": 9e9}


def test_measuring_one_cost_leaves_the_aim_of_another_where_it_was() -> None:
    """Time is left, so the second plan may have more channels: all 60 that the other limit allows, as it is exact."""
    stage = Stage(0.6, 0.96)
    task = one_group(lambda n: {"latency_ms": n / 48.5, "macs": float(n)})
    found = plan_by_measuring(task, {"latency_ms": 1.0, "macs": 60.0}, stage.measure)
    assert found is not None
    assert stage.kept() == [47, 60] and found.plan.predicted["macs"] == 60


# when to stop


def test_one_cost_that_is_near_its_limit_is_enough_to_stop() -> None:
    plans: list[Plan] = []
    task = one_group(lambda n: {"latency_ms": n / 49.5, "size_bytes": 10.0 * n})

    def measure(plan: Plan) -> Mapping[str, float]:
        plans.append(plan)
        return {"latency_ms": 0.96, "size_bytes": 500.0}

    found = plan_by_measuring(task, {"latency_ms": 1.0, "size_bytes": 1000.0}, measure)
    assert found is not None
    assert found.fits and len(plans) == 1


def test_it_is_clear_that_nothing_fits_once_the_smallest_does_not() -> None:
    stage = Stage(1.2)
    stage.task = one_group(lambda n: {"latency_ms": 1 + n / 49.5})
    assert not stage.planned().fits
    assert stage.kept() == [1]


def test_the_smallest_gives_channels_back_where_it_is_far_better_than_predicted() -> None:
    """1.02 ms were predicted of one channel; at half of that 0.97 x 1.02 / 0.5 = 1.979 ms may be predicted."""
    stage = Stage(0.5, 0.96)
    stage.task = one_group(lambda n: {"latency_ms": 1 + n / 49.5})
    assert stage.planned().plan.counts == {"a": 48}
    assert stage.kept() == [1, 48]


def test_a_plan_is_measured_once() -> None:
    stage = Stage(0.8)
    stage.task = Problem({"a": [100, 45, 10]}, {"a": lambda n: 100.0 - n}, lambda c: {"latency_ms": c["a"] / 49.5})
    assert stage.planned().fits
    assert stage.kept() == [45]


def test_where_the_whole_net_would_do_after_all_what_was_measured_is_returned() -> None:
    stage = Stage(0.1)
    found = stage.planned()
    assert found.fits and found.plan.counts == {"a": 47} and len(stage.plans) == 1


def test_a_plan_that_leaves_some_groups_whole_is_measured() -> None:
    plans: list[Plan] = []

    def measure(plan: Plan) -> Mapping[str, float]:
        plans.append(plan)
        return {"latency_ms": milliseconds(plan.counts)}

    found = plan_by_measuring(asked(), {"latency_ms": 0.96}, measure)
    assert found is not None
    assert [plan.counts for plan in plans] == [{"a": 48, "b": 64}]


def test_bytes_that_no_plan_saves_are_made_up_for_in_one_round() -> None:
    task = one_group(lambda n: {"size_bytes": 10.0 * n})
    plans: list[Plan] = []

    def measure(plan: Plan) -> Mapping[str, float]:
        plans.append(plan)
        return {"size_bytes": 10.0 * plan.counts["a"] + 350.0}

    found = plan_by_measuring(task, {"size_bytes": 600.0}, measure)
    assert found is not None
    assert found.fits
    assert [plan.counts["a"] for plan in plans] == [59, 24]  # 594 asked of the file at first, then 594 - 350


def test_what_is_known_of_a_plan_like_it_corrects_the_first_one() -> None:
    measured: list[Plan] = []

    def measure(plan: Plan) -> Mapping[str, float]:
        measured.append(plan)
        return {"latency_ms": 1.25 * milliseconds(plan.counts)}

    found = plan_by_measuring(
        asked(), {"latency_ms": 0.8}, measure, corrections={"latency_ms": Correction(0.8, 1.0)}, rounds=1
    )
    assert found is not None and found.fits and len(measured) == 1
    unaware = plan_by_measuring(asked(), {"latency_ms": 0.8}, measure, rounds=1)
    assert unaware is not None and not unaware.fits
