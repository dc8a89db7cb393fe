"""What a plan chooses from: the channels of groups, the ranks of layers; and what a choice makes of the net."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from slimwright.cost import Cost
from slimwright.coupling import Coupling, cut
from slimwright.graph import Net
from slimwright.search import Plan, Predictor, Problem, problem
from slimwright.techniques.low_rank import factorise
from slimwright.techniques.prune import Removal
from slimwright.techniques.recipe import Factorise, Prune, Ranks

Costs: TypeAlias = Callable[[Mapping[str, int]], Mapping[str, float]]


@dataclass(frozen=True)
class Choices:
    """The channels that may go, in order, and the ranks that may fall, with what each is predicted to cost."""

    net: Net
    coupling: Coupling
    orders: Mapping[str, Removal]
    ranks: Mapping[str, NDArray[np.float64]]
    predictor: Predictor

    def problem(self, costs: Costs, *, channel_weight: float | None) -> Problem:
        """Return the choice of channels and ranks, with the weight of a removed channel; None: of channels alone."""
        if channel_weight is None:
            return problem(self.orders, self.predictor, costs)
        return problem(self.orders, self.predictor, costs, ranks=self.ranks, channel_weight=channel_weight)

    def keep(self, plan: Plan) -> dict[str, NDArray[np.int64]]:
        """Return the channels that a plan keeps of each group it cuts."""
        return {
            name: removal.keep(plan.counts[name])
            for name, removal in self.orders.items()
            if plan.counts[name] < len(removal.order)
        }

    def factorises(self, plan: Plan) -> bool:
        """True where a plan lowers the rank of any layer."""
        return bool(self.predictor.factors(plan.counts))

    def steps(self, plan: Plan, images: int) -> list[Prune | Factorise]:
        """Return the steps of a recipe that lead there; ranks are chosen for what `images` calibration images show."""
        steps: list[Prune | Factorise] = [Prune(keep={name: kept.tolist() for name, kept in self.keep(plan).items()})]
        if factors := self.predictor.factors(plan.counts):
            layers = {name: Ranks(kind=wanted.kind, ranks=wanted.ranks) for name, wanted in factors.items()}
            steps.append(Factorise(layers=layers, images=images))
        return steps

    def drawn(self, plan: Plan) -> Net:
        """Return the net of a plan, its weights not solved: to measure what it costs."""
        return factorise(cut(self.net, self.keep(plan), self.coupling), self.predictor.factors(plan.counts))

    def costs(self, original: Cost, whole_net: Cost, tensor_share: float, limited: tuple[str, ...]) -> Costs:
        """Return what predicts the limited costs of a choice for a precision, of which `whole_net` was measured.

        `tensor_share` of its time goes to layers that multiply by weights, and is predicted from the table's; the rest
        from the elements that other layers write.
        """
        assert whole_net.latency_ms is not None and whole_net.size_bytes is not None and original.size_bytes is not None
        predictor = self.predictor
        timed = "latency_ms" in limited and predictor.shapes  # a net without layers has nothing to plan
        latency = predictor.latency(whole_net.latency_ms, tensor_share) if timed else lambda _: 0.0
        size = whole_net.size_bytes / original.size_bytes
        other_bytes = original.size_bytes - predictor.weight_bytes(predictor.whole)
        every: dict[str, Callable[[Mapping[str, int]], float]] = {
            "latency_ms": latency,
            "size_bytes": lambda counts: size * (other_bytes + predictor.weight_bytes(counts)),
            "macs": predictor.macs,
            "peak_activation_bytes": predictor.peak_activation_bytes,
        }
        return lambda counts: {name: every[name](counts) for name in limited}
