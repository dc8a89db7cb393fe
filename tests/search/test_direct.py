"""A plan for one of many budgets: built in full at once, corrected by what is known, over as soon as one will do."""

from dataclasses import replace
from pathlib import Path

from scripted_search import Scripted, original, residual_net, space
from slimwright.cost import Budget
from slimwright.search import Candidate, Evaluation, Goal, Journal, Space, Whole, direct_plan, open_journal, planned
from slimwright.techniques import Solve


class Counted:
    """Evaluates as the scripted search does, and says that each file is `larger` times as large."""

    def __init__(self, journal: Journal, larger: float = 1.0) -> None:
        self._evaluate, self._larger = Scripted(journal), larger
        self.asked: list[Candidate] = []

    def __call__(self, candidate: Candidate) -> Evaluation:
        """Count a candidate's net."""
        self.asked.append(candidate)
        found = self._evaluate(candidate)
        return replace(found, cost=replace(found.cost, size_bytes=round(self._larger * (found.cost.size_bytes or 0))))


def whole() -> Whole:
    return Whole("fp32", original())


def test_a_plan_is_solved_on_all_images_and_meets_what_is_counted(tmp_path: Path) -> None:
    evaluate, where = Counted(open_journal(tmp_path)), space("0.6x", max_drop=100.0)
    found = direct_plan(where, evaluate, [whole()])
    assert where.fits(found.best) and found.best.cost.macs <= where.limits["macs"]
    assert len(evaluate.asked) == 1 and not evaluate.asked[0].cost_only
    (solve,) = (step for step in evaluate.asked[0].recipe.steps if isinstance(step, Solve))
    assert solve.images is None and found.corrections == {}


def test_the_whole_network_ships_where_it_fits(tmp_path: Path) -> None:
    evaluate = Counted(open_journal(tmp_path))
    found = direct_plan(space("1x"), evaluate, [whole()])
    assert found.best.name == "original" and not evaluate.asked


def sized(limit: str) -> Space:
    budget = Budget(size_bytes=limit, max_drop=100.0)
    where = space("0.6x")
    return replace(where, goal=Goal(budget, budget.absolute(original().cost), where.goal.metric))


def test_what_was_measured_corrects_this_plan_and_the_next_one(tmp_path: Path) -> None:
    evaluate = Counted(open_journal(tmp_path), larger=1.15)
    first = direct_plan(sized("0.7x"), evaluate, [whole()])
    assert sized("0.7x").fits(first.best) and len(evaluate.asked) > 1
    known = first.corrections["size_bytes"]
    assert known.measured > 1.05 * known.predicted
    evaluate.asked.clear()
    second = direct_plan(sized("0.66x"), evaluate, [whole()], first.corrections)
    assert sized("0.66x").fits(second.best) and len(evaluate.asked) == 1


def test_a_plan_alone_is_all_predicted() -> None:
    where = space("0.6x")
    plan = planned(where, whole())
    assert plan.feasible and plan.predicted["macs"] <= where.limits["macs"]
    assert not planned(space("0.001x"), whole()).feasible
    assert residual_net().digest == where.net.digest
