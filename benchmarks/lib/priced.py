"""A network and the knobs of all techniques, priced by evidence: what plans choose from without a runtime."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from lib.structured_networks import DATA
from slimwright.cost import count
from slimwright.cost.latency import LatencyTable, one_by_one
from slimwright.coupling import couple
from slimwright.evidence import Evidence
from slimwright.graph import Net
from slimwright.search import Menu, Plan, Predictor, Problem, factorisable
from slimwright.techniques import Recipe
from slimwright.techniques.recipe import applied

RANK_STEP = 8


@dataclass(frozen=True)
class Priced:
    """A network and all that plans choose from."""

    net: Net
    menu: Menu

    @classmethod
    def of(cls, net: Net, evidence: Evidence, images: int) -> "Priced":
        """Price the knobs of every technique."""
        table = LatencyTable(one_by_one(lambda _: 0.0), None, {})
        ranks = factorisable(net, evidence, RANK_STEP)
        predictor = Predictor(net, couple(net), table, 1, ranks=ranks, rank_step=RANK_STEP)
        return cls(net, Menu.priced(predictor, evidence, images=images))

    def problem(self, cost: str, weights: Mapping[str, float] | None = None) -> Problem:
        """The choice under a limit on one cost; the damage of a technique's knobs counts by its entry in `weights`."""
        counted = replace(count(self.net), latency_ms=1.0, size_bytes=1)
        return self.menu.problem(self.menu.costs(counted, counted, 1.0, (cost,)), weights=weights)

    def made(self, plan: Plan) -> Net:
        """The network of a plan, with weights that mean nothing."""
        recipe = Recipe(original=self.net.digest, steps=tuple(self.menu.steps(plan.counts)))
        return applied(recipe, self.net, DATA["digits"](), cost_only=True).draft.net
