"""Work of a fleet in this process: shared things are made once, and what fails is an outcome."""

from pathlib import Path
from types import SimpleNamespace

from shared_workshop import shared_workshop
from slimwright.errors import ModelError
from slimwright.jobs.fleet.stock import MOST_GROUNDS, Site, Stock
from slimwright.jobs.fleet.workers import Crew, workers


def test_shared_things_are_made_once_and_failures_are_told() -> None:
    made: list[int] = []

    def shared(_: Site, base: int, more: int) -> int:
        made.append(base)
        return base + more

    def work(_: Site, whole: int, own: int) -> int:
        if own == 2:
            raise ModelError("two is not a model")
        return whole // own

    with workers(Crew(0)) as hands:
        ground = hands.share(shared, hands.share(lambda _, value: value, 10), 5)
        tickets = [hands.begin(work, ground, own) for own in (3, 2, 0)]
        outcomes = []
        while tickets:
            ticket, outcome = hands.ended(tickets)
            tickets.remove(ticket)
            outcomes.append(outcome)
    assert made == [10]
    assert outcomes[0].value == 5 and not outcomes[0].why
    assert outcomes[1].why == "two is not a model"
    assert outcomes[2].why.startswith("ZeroDivisionError") and "test_workers.py" in outcomes[2].why


def test_what_needs_a_shared_thing_that_failed_fails_as_it_did() -> None:
    def broken(_: Site, __: int) -> int:
        raise ModelError("no ground")

    with workers(Crew(0)) as hands:
        ground = hands.share(broken, 1)
        _, outcome = hands.ended([hands.begin(lambda _, value: value, ground)])
    assert outcome.why == "no ground" and outcome.value is None


def test_a_process_remembers_the_grounds_that_it_met_last(tmp_path: Path) -> None:
    stocks = [Stock(SimpleNamespace(key=f"ground {number}"), (), {}) for number in range(MOST_GROUNDS + 2)]  # type: ignore[arg-type]
    site = Site(shared_workshop(), tmp_path)
    makers = [site.maker(stock) for stock in stocks]
    assert [*site.makers] == [stock.ground.key for stock in stocks[2:]]
    assert {path.name for path in tmp_path.iterdir()} == {*site.makers}
    assert site.maker(stocks[-1]) is makers[-1] and site.maker(stocks[0]) is not makers[0]
