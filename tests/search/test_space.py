"""Which candidate is shipped: plain values in, a choice out."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from slimwright.cost import Budget, Cost
from slimwright.graph import Net
from slimwright.search import Candidate, Evaluation, Goal, Space, Tuning
from slimwright.search.menu import Menu
from slimwright.tasks import Metric
from slimwright.techniques import Fold, Recipe

LIMITS = {"latency_ms": 5.0}
NOTHING = Net((), {}, ())
COST = Cost(macs=100, params=10, weight_bytes=40, peak_activation_bytes=8, latency_ms=10.0, size_bytes=1000)
ORIGINAL = Evaluation(
    candidate=Candidate("original", Recipe(original="", steps=(Fold(),))),
    key="original",
    precision="fp32",
    cost=COST,
    score=95.0,
    proven=True,
)


def trial(name: str, latency_ms: float, accuracy: float, *, size_bytes: int = 500) -> Evaluation:
    cost = replace(COST, latency_ms=latency_ms, size_bytes=size_bytes)
    return replace(
        ORIGINAL, candidate=replace(ORIGINAL.candidate, name=name), key=name, cost=cost, score=100 * accuracy
    )


def space(limits: Mapping[str, float], max_drop: float = 10.0, minimise: str | None = None) -> Space:
    def menu() -> Menu:
        raise AssertionError("nothing is planned here")

    budget = Budget(latency_ms="1x", max_drop=max_drop, minimise=minimise)
    goal = Goal(budget, limits, Metric("accuracy"))
    return Space(goal, NOTHING, ORIGINAL, (), 10, menu, Recipe, Tuning(), lambda *_: None)


def most_accurate(made: Sequence[Evaluation], limits: Mapping[str, float], max_drop: float) -> Evaluation:
    return space(limits, max_drop).best(made)


def pays(one: Evaluation, _: Evaluation) -> bool:
    return space(LIMITS).pays(one)


def test_of_those_that_fit_the_most_accurate_is_chosen() -> None:
    made = [ORIGINAL, trial("fast", 1.0, 0.90), trial("right", 4.0, 0.94), trial("too slow", 6.0, 0.95)]
    assert most_accurate(made, LIMITS, 10).name == "right"


def test_of_equals_the_faster_is_chosen() -> None:
    made = [ORIGINAL, trial("slow", 4.0, 0.94), trial("fast", 2.0, 0.94)]
    assert most_accurate(made, LIMITS, 10).name == "fast"


def test_the_original_is_chosen_where_it_fits_and_nothing_is_better() -> None:
    assert most_accurate([ORIGINAL, trial("fast", 4.0, 0.94)], {"latency_ms": 20.0}, 10) is ORIGINAL


def test_what_is_slower_than_the_original_is_never_shipped_however_small_and_accurate() -> None:
    slower = trial("int8", 11.0, 0.99, size_bytes=100)
    assert not pays(slower, ORIGINAL)
    assert most_accurate([ORIGINAL, slower], {"size_bytes": 200.0}, 10) is ORIGINAL
    same_speed = trial("int8", 10.1, 0.95, size_bytes=100)
    assert most_accurate([ORIGINAL, same_speed], {"size_bytes": 200.0}, 10) is same_speed


def test_what_failed_its_proof_is_never_shipped() -> None:
    broken = replace(trial("broken", 1.0, 0.99), proven=False)
    assert most_accurate([ORIGINAL, broken], LIMITS, 10) is ORIGINAL


def test_a_candidate_within_the_accuracy_budget_goes_before_a_faster_one_outside() -> None:
    made = [ORIGINAL, trial("wild", 1.0, 0.80), trial("mild", 4.5, 0.945)]
    assert most_accurate(made, LIMITS, 1.0).name == "mild"


def test_if_none_fits_the_nearest_to_the_limits_is_chosen() -> None:
    made = [ORIGINAL, trial("far", 9.0, 0.95), trial("near", 5.5, 0.70)]
    assert most_accurate(made, LIMITS, 1.0).name == "near"


def test_of_the_fastest_within_the_drop_allowed_the_fastest_is_chosen() -> None:
    made = [ORIGINAL, trial("mild", 4.0, 0.945), trial("fast", 2.0, 0.941), trial("wild", 1.0, 0.80)]
    assert space({}, 1.0, "latency").best(made).name == "fast"
    assert space({}, 0.6, "latency").best(made).name == "mild"
    assert space({}, 0.1, "latency").best(made) is ORIGINAL


def test_the_smallest_is_not_the_fastest() -> None:
    made = [ORIGINAL, trial("fast", 2.0, 0.95, size_bytes=900), trial("small", 9.0, 0.95, size_bytes=100)]
    assert space({}, 1.0, "size").best(made).name == "small"
    assert space({"latency_ms": 5.0}, 1.0, "size").best(made).name == "fast"


def test_a_metric_that_shall_be_low_is_minimised() -> None:
    goal = Goal(Budget(latency_ms="1x"), LIMITS, Metric("relative error", higher_is_better=False))
    low = replace(space(LIMITS), goal=goal, original=replace(ORIGINAL, score=0.0))
    good, bad = replace(trial("good", 4.0, 0), score=1.5), replace(trial("bad", 4.0, 0), score=7.0)
    assert low.best([replace(ORIGINAL, score=0.0), bad, good]).name == "good"
    assert low.drop(bad) == 7.0
