import itertools

import pytest

from slimwright.errors import RequestError
from slimwright.train import Schedule
from slimwright.train.schedule import one_cycle


def test_the_rate_rises_for_a_fifth_and_falls_to_nothing() -> None:
    shares = [one_cycle(step / 1000) for step in range(1001)]
    assert shares[200] == max(shares) == 1.0
    assert all(a <= b for a, b in itertools.pairwise(shares[:201]))
    assert all(a >= b for a, b in itertools.pairwise(shares[200:]))
    assert 0 < shares[0] <= 0.01 and shares[1000] == pytest.approx(0, abs=1e-12)
    assert shares[100] == pytest.approx(0.5) and shares[600] == pytest.approx(0.5)


def test_the_rate_is_constant_where_the_end_is_open() -> None:
    assert {Schedule(rate=0.1, patience=5).rate_at(done / 10) for done in range(11)} == {0.1}
    assert Schedule(rate=0.1).rate_at(0.1) == pytest.approx(0.05)


def test_the_longest_path_that_fits_gives_the_factor() -> None:
    schedule = Schedule(faster={"block": 2, "block.conv": 3, "block.conv.bias": 4, "bloc": 9})
    wanted = {"block.conv.bias": 4, "block.conv.weight": 3, "block.conv2.weight": 2, "block": 2, "blocks.0.weight": 1}
    assert {name: schedule.factor(name) for name in wanted} == wanted


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"epochs": 0}, "at least 1 and the rate above 0"),
        ({"batch_size": 0}, "at least 1 and the rate above 0"),
        ({"rate": 0.0}, "at least 1 and the rate above 0"),
        ({"minutes": 0.0}, "0 minutes cannot learn"),
        ({"minutes": -1.0}, "-1 minutes cannot learn"),
        ({"teacher_share": 1.5}, "between 0 and 1, not 1.5"),
        ({"patience": -1}, "are 0 or more"),
        ({"average_over": -0.5}, "are 0 or more"),
        ({"faster": {"fc": -1}}, "are 0 or more"),
    ],
)
def test_numbers_that_mean_nothing_are_refused(given: dict[str, float], said: str) -> None:
    with pytest.raises(RequestError, match=said):
        Schedule(**given)  # type: ignore[arg-type]
