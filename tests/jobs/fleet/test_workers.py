"""Work of a fleet in this process: shared things are made once, and what fails is an outcome."""

from slimwright.errors import ModelError
from slimwright.jobs.fleet.stock import Site
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
