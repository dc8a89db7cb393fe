"""Which candidate is shipped: plain values in, a choice out."""

from dataclasses import replace

from slimwright.cost import Cost
from slimwright.graph import Net
from slimwright.runtimes import Artefact
from slimwright.search.trials import Trial, most_accurate, pays
from slimwright.techniques.recipe import Fold, Recipe

LIMITS = {"latency_ms": 5.0}
NOTHING = Net((), {}, ())
ORIGINAL = Trial(
    name="original",
    recipe=Recipe(original="", steps=(Fold(),)),
    net=NOTHING,
    artefact=Artefact("onnxruntime", "fp32", (), (1, 1, 1, 1)),
    cost=Cost(macs=100, params=10, weight_bytes=40, peak_activation_bytes=8, latency_ms=10.0, size_bytes=1000),
    accuracy=0.95,
    proven=True,
)


def trial(name: str, latency_ms: float, accuracy: float, *, size_bytes: int = 500) -> Trial:
    cost = replace(ORIGINAL.cost, latency_ms=latency_ms, size_bytes=size_bytes)
    return replace(ORIGINAL, name=name, cost=cost, accuracy=accuracy)


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
