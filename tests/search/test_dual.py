"""The bound below all plans: never above the best that there is, near to it, and told with the plan."""

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from example_nets import SHAPE, hand_made
from slimwright.cost.latency import LatencyTable, one_by_one
from slimwright.coupling import couple
from slimwright.graph import Net
from slimwright.importers import capture
from slimwright.search import Predictor, Problem, solve
from slimwright.search.dual import Dual, Sum, Unbounded

BYTES = 4.0


def predictor_of(net: Net, step: int, *, ranks: bool, bits: Sequence[int] = ()) -> Predictor:
    table = LatencyTable(one_by_one(lambda _: 0.0), None, {})
    of = [node.name for node in net.weighted() if node.arguments.get("groups", 1) == 1] if ranks else []
    return Predictor(net, couple(net), table, step, ranks=of, bits={name: bits for name in net.layers if bits})


def lost(scale: float, power: float, whole: int, size: int) -> float:
    return float(scale * (1 - size / whole) ** power)


def problem_of(predictor: Predictor, cost: str, seed: int) -> tuple[Problem, dict[str, Sequence[int]]]:
    """A problem whose damages are drawn: convex in what is taken, each of another size."""
    rng = np.random.default_rng(seed)
    damage: dict[str, Callable[[int], float]] = {}
    for item, sizes in predictor.sizes.items():
        scale, power = float(rng.lognormal(0, 1.5)), float(rng.uniform(1, 3))
        damage[item] = partial(lost, scale, power, sizes[0])
    counted = {"macs": predictor.macs, "weight_bytes": predictor.weight_bytes}[cost]
    sums = {
        "macs": Sum(lambda _, piece: float(piece.weights * piece.pixels), float(predictor.products)),
        "weight_bytes": Sum(lambda _, piece: BYTES * piece.weights, byte=1.0),
    }[cost]

    def dual(_: Mapping[str, int]) -> Dual:
        return Dual(predictor, predictor.sizes, damage, {cost: sums})

    return Problem(predictor.sizes, damage, lambda counts: {cost: float(counted(counts))}, dual=dual), damage  # type: ignore[return-value]


def best_of_all(task: Problem, cost: str, limit: float) -> float:
    best = math.inf
    for choice in itertools.product(*task.sizes.values()):
        counts = dict(zip(task.sizes, choice, strict=True))
        damage = sum(task.damage[name](size) for name, size in counts.items())
        if damage < best and task.costs(counts)[cost] <= limit:
            best = damage
    return best


@pytest.mark.parametrize(("name", "step", "ranks", "bits"), [
    ("Flat", 2, False, ()), ("Residual", 2, True, ()), ("Concat", 3, False, (8, 4)), ("Separable", 2, False, ()),
    ("Gated", 2, False, (8,)),
])  # fmt: skip
@pytest.mark.parametrize("cost", ["macs", "weight_bytes"])
def test_the_bound_is_below_the_best_of_all_choices_and_the_plan_is_near_it(
    name: str, step: int, ranks: bool, bits: Sequence[int], cost: str
) -> None:
    net = capture(hand_made(name), SHAPE)
    predictor = predictor_of(net, step, ranks=ranks, bits=bits if cost == "weight_bytes" else ())
    while math.prod(len(sizes) for sizes in predictor.sizes.values()) > 30_000:
        step += 1
        predictor = predictor_of(net, step, ranks=ranks, bits=bits if cost == "weight_bytes" else ())
    gaps = []
    for seed, share in enumerate((0.8, 0.5, 0.3)):
        task, _ = problem_of(predictor, cost, seed)
        limit = share * task.costs(predictor.whole)[cost]
        best, plan = best_of_all(task, cost, limit), solve(task, {cost: limit})
        if math.isinf(best):
            assert not plan.feasible and plan.gap is None
            continue
        assert plan.least is not None and plan.least <= best * (1 + 1e-9) <= plan.damage * (1 + 1e-6)
        gaps.append(plan.damage / best - 1)
    assert gaps and np.median(gaps) < 0.05


def test_costs_as_sums_are_those_of_the_choice() -> None:
    net = capture(hand_made("Residual"), SHAPE)
    predictor = predictor_of(net, 2, ranks=True, bits=(8, 4))
    for cost in ("macs", "weight_bytes"):
        task, _ = problem_of(predictor, cost, 5)
        assert task.dual is not None
        limit = 0.4 * task.costs(predictor.whole)[cost]
        dual = task.dual(predictor.whole)
        for price in (0.0, 0.3, 3.0):
            _, counts, costs = dual._cheapest({cost: price}, {cost: limit})
            assert costs[cost] == pytest.approx(task.costs(counts)[cost], rel=1e-9)


class Dense(nn.Module):
    """A layer that reads the channels of eight others."""

    def __init__(self) -> None:
        super().__init__()
        self.firsts = nn.ModuleList(nn.Conv2d(3, 16, 1) for _ in range(8))
        self.last = nn.Conv2d(128, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        """[N, 3, H, W] -> [N, 4, H, W]."""
        return self.last(torch.cat([first(x).relu() for first in self.firsts], 1))  # type: ignore[no-any-return]


def test_where_a_layer_reads_too_many_groups_there_is_no_bound_but_a_plan() -> None:
    predictor = predictor_of(capture(Dense(), (3, 4, 4)), 1, ranks=False)
    task, _ = problem_of(predictor, "macs", 0)
    assert task.dual is not None
    with pytest.raises(Unbounded):
        task.dual(predictor.whole)
    plan = solve(task, {"macs": 0.5 * task.costs(predictor.whole)["macs"]})
    assert plan.feasible and plan.least is None and plan.gap is None


def test_a_limit_that_holds_already_is_met_by_doing_nothing() -> None:
    predictor = predictor_of(capture(hand_made("Flat"), SHAPE), 2, ranks=False)
    task, _ = problem_of(predictor, "macs", 0)
    plan = solve(task, {"macs": 1.1 * task.costs(predictor.whole)["macs"]})
    assert plan.damage == plan.least == plan.gap == 0
