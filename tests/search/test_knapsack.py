import itertools
import math
from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from example_nets import SHAPE, hand_made
from slimwright.cost import count
from slimwright.cost.latency import LatencyTable, LayerShape, one_by_one
from slimwright.coupling import couple, cut
from slimwright.importers import capture
from slimwright.search import Predictor, Problem, problem, solve
from slimwright.techniques.low_rank import Factors, factorise
from slimwright.techniques.prune import Removal
from slimwright.techniques.ranks import CP_RANK, IN_RANK, OUT_RANK
from slimwright.techniques.solver.draft import Draft
from slimwright.zoo import build

Costs = Callable[[Mapping[str, int]], Mapping[str, float]]


@st.composite
def problems(draw: st.DrawFn) -> tuple[Problem, dict[str, float]]:
    """Up to three groups in a chain of layers whose costs are products, as in a real net, and one or two limits."""
    names = "abc"[: draw(st.integers(1, 3))]
    sizes = {name: list(range(draw(st.integers(2, 5)), 0, -1)) for name in names}
    damage = {}
    for name in names:
        steps = draw(st.lists(st.floats(0, 1), min_size=sizes[name][0] - 1, max_size=sizes[name][0] - 1))
        falling = dict(zip(sizes[name], itertools.accumulate([0.0, *steps]), strict=True))
        damage[name] = falling.__getitem__
    weights = draw(st.lists(st.integers(1, 9), min_size=len(names) + 1, max_size=len(names) + 1))

    def costs(counts: Mapping[str, int]) -> Mapping[str, float]:
        chain = [3, *(counts[name] for name in names), 2]
        macs = sum(w * a * b for w, a, b in zip(weights, chain, chain[1:], strict=False))
        return {"macs": float(macs), "peak": float(max(chain))}

    whole = costs({name: sizes[name][0] for name in names})
    limits = {"macs": whole["macs"] * draw(st.floats(0.15, 1.1))}
    if draw(st.booleans()):
        limits["peak"] = whole["peak"] * draw(st.floats(0.4, 1.1))
    return Problem(sizes, damage, costs), limits


def exhaustive(task: Problem, limits: Mapping[str, float]) -> float:
    """The least damage of any choice within the limits; infinite if there is none."""
    best = math.inf
    for choice in itertools.product(*task.sizes.values()):
        counts = dict(zip(task.sizes, choice, strict=True))
        costs = task.costs(counts)
        if all(costs[name] <= limit for name, limit in limits.items()):
            best = min(best, sum(task.damage[name](n) for name, n in counts.items()))
    return best


@given(problems())
@settings(max_examples=200)
def test_what_is_known_of_steps_leads_to_the_same_plan(drawn: tuple[Problem, dict[str, float]]) -> None:
    """A step relieves products of counts by less, the more of the others is gone."""
    task, limits = drawn
    limits.pop("peak", None)  # that is not so of a maximum
    assert solve(replace(task, relief_falls=True), limits) == solve(task, limits)


@given(problems())
@settings(max_examples=200)
def test_a_plan_is_within_the_limits_wherever_one_exists(drawn: tuple[Problem, dict[str, float]]) -> None:
    """Costs fall with every count here, so shrinking always leads there. The damage is not proven to be least."""
    task, limits = drawn
    best, plan = exhaustive(task, limits), solve(task, limits)
    assert plan.feasible is (best < math.inf)
    assert plan.predicted == {name: task.costs(plan.counts)[name] for name in limits}
    assert plan.damage == pytest.approx(sum(task.damage[name](n) for name, n in plan.counts.items()))
    assert all(n in task.sizes[name] for name, n in plan.counts.items())
    if plan.feasible:
        assert all(plan.predicted[name] <= limit for name, limit in limits.items())
        assert plan.damage >= best - 1e-12


def test_on_two_hundred_small_problems_the_plan_is_mostly_the_best() -> None:
    """Measured, not proven: the best in four of five, and on average within 5 % of its damage."""
    rng = np.random.default_rng(0)
    found, best = [], []
    for _ in range(200):
        sizes = {name: list(range(5, 0, -1)) for name in "abc"}
        falls = {
            name: dict(zip(range(5, 0, -1), np.cumsum([0, *rng.exponential(1, 4)]), strict=True)) for name in "abc"
        }
        weights = rng.integers(1, 9, 4).tolist()
        task = Problem(sizes, {name: fall.__getitem__ for name, fall in falls.items()}, chain_costs(weights))
        limits = {"macs": chain_costs(weights)(dict.fromkeys("abc", 5))["macs"] * float(rng.uniform(0.3, 0.9))}
        found.append(solve(task, limits).damage)
        best.append(exhaustive(task, limits))
    assert sum(found) <= 1.05 * sum(best)
    assert sum(f <= b + 1e-9 for f, b in zip(found, best, strict=True)) >= 160


def chain_costs(weights: list[int]) -> Costs:
    def costs(counts: Mapping[str, int]) -> Mapping[str, float]:
        chain = [3, *counts.values(), 2]
        return {"macs": float(sum(w * a * b for w, a, b in zip(weights, chain, chain[1:], strict=False)))}

    return costs


def test_limits_that_cannot_be_met_are_flagged() -> None:
    task = Problem({"a": [4, 2]}, {"a": lambda n: 4.0 - n}, lambda counts: {"macs": 10.0 * counts["a"]})
    plan = solve(task, {"macs": 15.0})
    assert not plan.feasible and plan.predicted == {"macs": 20.0} and plan.counts == {"a": 2}


def test_limits_that_are_met_already_change_nothing() -> None:
    task = Problem({"a": [4, 2]}, {"a": lambda n: 4.0 - n}, lambda counts: {"macs": 10.0 * counts["a"]})
    plan = solve(task, {"macs": 40.0})
    assert plan.feasible and plan.counts == {"a": 4} and plan.damage == 0


def test_a_group_without_a_removal_order_stays_whole() -> None:
    net = capture(hand_made("Concat"), SHAPE)
    coupling = couple(net)
    predictor = Predictor(net, coupling, LatencyTable(one_by_one(lambda _: 1.0), None, {}), 1)
    first, *others = (group.name for group in coupling.groups)
    removal = Removal(np.arange(4), np.array([0.0, 1.0, 2.0, 3.0, np.inf]))
    task = problem({first: removal}, predictor, lambda counts: {"macs": predictor.macs(counts)})
    assert all(task.sizes[name] == [predictor.whole[name]] for name in others)
    plan = solve(task, {"macs": 0.8 * count(net).macs})
    assert all(plan.counts[name] == predictor.whole[name] for name in others)
    assert plan.counts[first] < 4


@pytest.mark.parametrize(("step", "sizes"), [(1, [6, 5, 4, 3, 2, 1]), (2, [6, 4, 2]), (4, [6, 4]), (8, [6, 4])])
def test_sizes_are_the_whole_and_multiples_of_the_step_and_its_halves(step: int, sizes: list[int]) -> None:
    net = capture(hand_made("Residual"), SHAPE)
    coupling = couple(net)
    predictor = Predictor(net, coupling, LatencyTable(one_by_one(lambda _: 1.0), None, {}), step)
    assert predictor.sizes[coupling.groups[0].name] == sizes


def milliseconds(shape: LayerShape) -> float:
    assert shape.in_channels % shape.groups == 0 and shape.out_channels % shape.groups == 0  # a layer that exists
    return 1 + 2 * shape.in_channels + 3 * shape.out_channels


@pytest.mark.parametrize("name", ["Residual", "Concat", "Gated", "Flat", "Separable"])
def test_latency_is_predicted_exactly_where_it_is_linear(name: str) -> None:
    net = capture(hand_made(name), SHAPE)
    coupling = couple(net)
    predictor = Predictor(net, coupling, LatencyTable(one_by_one(milliseconds), None, {}), 1)
    predictor.measure()
    measured = predictor.table.measured
    for share in (1.0, 0.7, 0.4):
        counts = {group.name: max(1, round(group.size * share)) for group in coupling.groups}
        small = cut(net, {group: np.arange(n) for group, n in counts.items()}, coupling)
        predicted = predictor.layer_ms(counts)
        for node in small.weighted():
            weight = small.tensors[node.tensors["weight"]]
            read = weight.shape[1] * int(str(node.arguments.get("groups", 1)))
            assert predicted[node.name] == pytest.approx(1 + 2 * read + 3 * weight.shape[0]), node.name
    assert predictor.table.measured == measured  # nothing was measured beyond the grid


class Half(LatencyTable):
    """A device where half of what a large network needs is in no cache, which makes a layer three times slower."""

    def __init__(self) -> None:
        super().__init__(lambda shapes, cold: [milliseconds(s) * (3 if cold else 1) for s in shapes], None, {})

    def missed(self, used: float) -> float:
        return 0.5 if used > LARGE else 0.0


LARGE = 3_000  # between what the whole net uses, and what it uses with a channel left in each group


def test_a_large_net_is_predicted_between_undisturbed_and_cold_layers() -> None:
    net = capture(hand_made("Residual"), SHAPE)
    coupling = couple(net)
    predictor = Predictor(net, coupling, Half(), 1)
    plain = Predictor(net, coupling, LatencyTable(one_by_one(milliseconds), None, {}), 1)
    predictor.measure()
    measured, least = predictor.table.measured, {group.name: 1 for group in coupling.groups}
    assert predictor.used_bytes(least) < LARGE < predictor.used_bytes(predictor.whole)
    assert predictor.layer_ms(least) == plain.layer_ms(least)
    assert predictor.layer_ms(predictor.whole) == {n: 2 * ms for n, ms in plain.layer_ms(plain.whole).items()}
    assert predictor.table.measured == measured  # cold layers, too, were measured before


def test_what_a_run_uses_is_weights_in_the_runtimes_form_and_values() -> None:
    net = capture(hand_made("Residual"), SHAPE)
    table = LatencyTable(one_by_one(milliseconds), None, {})
    plain, winograd = (Predictor(net, couple(net), table, 1, transformed=times) for times in (1.0, 4.0))
    counts = plain.whole
    assert plain.used_bytes(counts) == plain.weight_bytes(counts) + plain.other_bytes(counts)
    taken = [piece.weights for name in plain.shapes for piece in plain.pieces.of(name, counts) if piece.is_winograd]
    square = [net.tensors[n.tensors["weight"]] for n in net.weighted() if n.op == "conv2d"]
    assert sum(taken) == sum(weight.numel() for weight in square if weight.shape[2:] == (3, 3))
    assert taken and winograd.used_bytes(counts) - plain.used_bytes(counts) == 3 * 4 * sum(taken)


RANKS = {"input": {IN_RANK: 2}, "output": {OUT_RANK: 3}, "tucker2": {IN_RANK: 2, OUT_RANK: 1}, "cp": {CP_RANK: 3}}


@pytest.mark.parametrize("kind", RANKS)
@pytest.mark.parametrize("share", [1.0, 0.7])
def test_a_factorised_layer_is_predicted_as_its_pieces(kind: str, share: float) -> None:
    net = capture(hand_made("Residual"), SHAPE)
    coupling = couple(net)
    predictor = Predictor(net, coupling, LatencyTable(one_by_one(milliseconds), None, {}), 1, ranks=["conv2d_1"])
    predictor.measure()
    measured = predictor.table.measured
    kept = {group.name: max(1, round(group.size * share)) for group in coupling.groups}
    counts = {**predictor.whole, **kept, **{f"{item}conv2d_1": rank for item, rank in RANKS[kind].items()}}
    draft = Draft.of(net).cut({group: np.arange(n) for group, n in kept.items()})
    factors = predictor.factors(counts)
    assert factors == {"conv2d_1": Factors(kind, tuple(RANKS[kind].values()))}  # type: ignore[arg-type]
    small = factorise(draft.net, factors)
    assert predictor.macs(counts) == count(small).macs
    weights = [small.tensors[node.tensors["weight"]] for node in small.weighted()]
    assert predictor.weight_bytes(counts) == 4 * sum(weight.numel() for weight in weights)
    groups = [int(str(node.arguments.get("groups", 1))) for node in small.weighted()]
    each = [1 + 2 * w.shape[1] * n + 3 * w.shape[0] for w, n in zip(weights, groups, strict=True)]
    assert sum(predictor.layer_ms(counts).values()) == pytest.approx(sum(each))
    assert predictor.table.measured == measured


def test_a_rank_that_would_win_nothing_is_none() -> None:
    net = capture(hand_made("Residual"), SHAPE)
    predictor = Predictor(net, couple(net), LatencyTable(one_by_one(milliseconds), None, {}), 1, ranks=["conv2d_1"])
    before, behind = f"{IN_RANK}conv2d_1", f"{OUT_RANK}conv2d_1"
    assert predictor.sizes[behind] == predictor.sizes[before] == [6, 5, 4, 3, 2, 1]  # 5 x (54 + 6) < 54 x 6 weights
    assert predictor.factors(predictor.whole) == {}
    (group,) = (g.name for g in couple(net).groups)
    assert predictor.factors({**predictor.whole, group: 2, behind: 2}) == {}  # two channels have no more than rank two
    both = predictor.factors({**predictor.whole, before: 5, behind: 1})  # the input rank would only cost
    assert both == {"conv2d_1": Factors("output", (1,))}
    three = predictor.factors({**predictor.whole, before: 2, behind: 2, f"{CP_RANK}conv2d_1": 2})
    assert three == {"conv2d_1": Factors("cp", (2,))}  # 2 x (6 + 9 + 6) weights; Tucker's form has 12 + 36 + 12


def test_ranks_and_channels_are_chosen_together() -> None:
    """The rank costs nothing down to 2, channels cost: the plan takes the rank first."""
    net = capture(hand_made("Residual"), SHAPE)
    coupling = couple(net)
    predictor = Predictor(net, coupling, LatencyTable(one_by_one(milliseconds), None, {}), 1, ranks=["conv2d_1"])
    removal = Removal(np.arange(6), np.array([0.0, 1, 2, 3, 4, 5, np.inf]))
    orders, free = {group.name: removal for group in coupling.groups}, {f"{OUT_RANK}conv2d_1": np.array([9.0, 8.0, 0])}
    task = problem(orders, predictor, lambda counts: {"macs": predictor.macs(counts)}, ranks=free)
    plan = solve(task, {"macs": 0.6 * count(net).macs})
    (factors,) = predictor.factors(plan.counts).values()
    assert plan.feasible and plan.damage == 0 and factors.kind == "output" and 2 <= factors.ranks[0] <= 3
    assert all(plan.counts[name] == 6 for name in orders)


def ranked() -> tuple[Predictor, str, dict[str, Removal]]:
    """A layer of six channels with an output rank, and the order in which channels go: the first one for 1 nat."""
    net = capture(hand_made("Residual"), SHAPE)
    coupling = couple(net)
    predictor = Predictor(net, coupling, LatencyTable(one_by_one(milliseconds), None, {}), 1, ranks=["conv2d_1"])
    (group,) = coupling.groups
    return predictor, group.name, {group.name: Removal(np.arange(6), np.array([0.0, 1, 3, 6, 10, 15, np.inf]))}


def test_the_damage_of_channels_counts_its_weight_and_that_of_ranks_once() -> None:
    predictor, group, orders = ranked()
    item = f"{OUT_RANK}conv2d_1"
    listed = np.array([9.0, 5.0, 2.0, 1.0, 0.5, 0.25])  # at ranks 0 to 5
    for weight in (1.0, 10.0):
        task = problem(orders, predictor, lambda _: {}, ranks={item: listed}, channel_weight=weight)
        assert {n: task.damage[group](n) for n in task.sizes[group]} == {
            6: 0, 5: weight, 4: 3 * weight, 3: 6 * weight, 2: 10 * weight, 1: 15 * weight
        }  # fmt: skip
        assert {n: task.damage[item](n) for n in task.sizes[item]} == {6: 0, 5: 0.25, 4: 0.5, 3: 1, 2: 2, 1: 5}
    assert problem(orders, predictor, lambda _: {}).damage[group](4) == 3  # a channel counts once if nothing is said


def test_a_rank_of_which_no_damage_is_known_stays_whole_and_costs_nothing() -> None:
    predictor, group, orders = ranked()
    task = problem(orders, predictor, lambda _: {}, ranks={f"{OUT_RANK}conv2d_1": np.zeros(6)})
    assert [*task.sizes[group]] == [6, 5, 4, 3, 2, 1] == [*task.sizes[f"{OUT_RANK}conv2d_1"]]
    for item, whole in ((f"{IN_RANK}conv2d_1", 6), (f"{CP_RANK}conv2d_1", 16)):
        assert [*task.sizes[item]] == [whole] and task.damage[item](whole) == 0
    alone = problem(orders, predictor, lambda _: {})
    assert [*alone.sizes[f"{OUT_RANK}conv2d_1"]] == [6] and alone.damage[f"{OUT_RANK}conv2d_1"](6) == 0


def test_the_weight_of_channels_decides_between_them_and_ranks() -> None:
    """Half a nat for a rank of one is more than a tenth of what channels lose, and less than what they lose."""
    predictor, group, orders = ranked()
    counts = {}
    for weight in (0.01, 10.0):
        task = problem(
            orders, predictor, lambda counts: {"macs": predictor.macs(counts)},
            ranks={f"{OUT_RANK}conv2d_1": np.full(6, 0.5)}, channel_weight=weight,
        )  # fmt: skip
        plan = solve(task, {"macs": 0.6 * predictor.macs(predictor.whole)})
        counts[weight] = plan.counts[group], plan.counts[f"{OUT_RANK}conv2d_1"]
        assert plan.feasible
    assert counts[0.01][0] < 6 == counts[0.01][1]
    assert counts[10.0][0] == 6 > counts[10.0][1]


def test_where_only_several_items_together_bring_relief_all_of_them_shrink() -> None:
    """Peak memory is the larger of two values: neither alone brings it down."""
    damage = {"a": lambda n: 4.0 - n, "b": lambda n: 3 * (4.0 - n)}
    task = Problem(
        {"a": [4, 3, 2, 1], "b": [4, 3, 2, 1]}, damage, lambda c: {"peak": float(max(c["a"], c["b"])), "other": 1.0}
    )
    plan = solve(task, {"peak": 2.5})
    assert plan.counts == {"a": 2, "b": 2} and plan.damage == 8 and plan.feasible
    assert plan.predicted == {"peak": 2}


def test_what_is_short_of_two_limits_shrinks_for_both() -> None:
    """One item brings down the first cost and the other the second."""
    damage = {"a": lambda n: 4.0 - n, "b": lambda n: 4.0 - n}
    task = Problem({"a": [4, 3, 2, 1], "b": [4, 3, 2, 1]}, damage, lambda c: {"x": 100.0 * c["a"], "y": 0.01 * c["b"]})
    plan = solve(task, {"x": 300.0, "y": 0.02})
    assert plan.counts == {"a": 3, "b": 2} and plan.feasible and plan.damage == 3
    assert not solve(task, {"x": 300.0, "y": 0.009}).feasible


def test_a_choice_that_just_meets_a_limit_is_within_it() -> None:
    task = Problem({"a": [4, 3, 2]}, {"a": lambda n: 4.0 - n}, lambda c: {"macs": float(c["a"])})
    assert solve(task, {"macs": 3.0}).counts == {"a": 3}
    assert solve(task, {"macs": 2.0}) == solve(task, {"macs": 2.5})
    below = solve(task, {"macs": 1.99})
    assert below.counts == {"a": 2} and not below.feasible


def test_a_grouped_layer_is_measured_at_multiples_of_its_groups() -> None:
    asked: list[LayerShape] = []

    def milliseconds(shape: LayerShape) -> float:
        asked.append(shape)
        return 1.0

    net = capture(build("shufflenet-g3", classes=10), (3, 64, 64))
    Predictor(net, couple(net), LatencyTable(one_by_one(milliseconds), None, {}), 8).measure()
    grouped = [shape for shape in asked if 1 < shape.groups < shape.in_channels]
    assert len({shape.in_channels for shape in grouped}) > 5
    assert all(shape.in_channels % 3 == shape.out_channels % 3 == 0 for shape in grouped)


def test_channels_of_equal_parts_are_planned_in_equal_parts() -> None:
    """Channels cost, each as much as the other: within half of the multiply-accumulates both parts keep as many."""
    net = capture(hand_made("Grouped"), SHAPE)
    coupling = couple(net)
    predictor = Predictor(net, coupling, LatencyTable(one_by_one(milliseconds), None, {}), 1)
    assert {name: predictor.sizes[name] for name in coupling.balanced} == {"conv2d": [4, 2], "conv2d_1": [6, 4, 2]}
    orders = {group.name: Removal(np.arange(group.size), np.arange(group.size + 1.0)) for group in coupling.groups}
    task = problem(orders, predictor, lambda counts: {"macs": predictor.macs(counts)})
    plan = solve(task, {"macs": 0.5 * count(net).macs})
    assert plan.feasible and plan.counts["conv2d_1"] < 6
    keep = {name: np.arange(plan.counts[name]) for name in orders if name not in coupling.balanced}
    keep |= {name: ladder.first(plan.counts[name]) for name, ladder in predictor.ladders.items()}
    assert count(cut(net, keep, coupling)).macs == plan.predicted["macs"] <= 0.5 * count(net).macs


@settings(max_examples=60, deadline=None)
@given(st.integers(40, 400), st.floats(0.2, 0.9), st.sampled_from([1, 2, 4]))
def test_what_listed_sizes_leave_is_given_back_between_them(whole: int, share: float, step: int) -> None:
    """Of one layer with few sizes listed: as many channels as fit, in whole steps below the second size."""
    listed = [whole, *range((whole - 1) // (8 * step) * 8 * step, 0, -8 * step)]
    task = Problem(
        {"a": listed}, {"a": lambda count: (whole - count) ** 2.0}, lambda counts: {"macs": float(counts["a"])}
    )
    limit = share * whole
    coarse, fine = solve(task, {"macs": limit}), solve(replace(task, steps={"a": step}), {"macs": limit})
    if coarse.feasible:
        assert fine.counts["a"] == min(int(limit) // step * step, listed[1])
        assert coarse.counts["a"] in listed and fine.damage <= coarse.damage


@settings(max_examples=60, deadline=None)
@given(problems(), st.integers(2, 5))
def test_finer_sizes_only_help_and_stay_within_the_limits(
    given_problem: tuple[Problem, dict[str, float]], k: int
) -> None:
    """The same choice, of whose sizes every k-th is listed."""
    task, limits = given_problem
    listed = {name: [sizes[0], *sizes[1:][::k]] for name, sizes in task.sizes.items()}
    coarse = solve(replace(task, sizes=listed), limits)
    fine = solve(replace(task, sizes=listed, steps=dict.fromkeys(listed, 1)), limits)
    assert fine.feasible == coarse.feasible
    if fine.feasible:
        costs = task.costs(fine.counts)
        assert all(costs[name] <= limit for name, limit in limits.items())
        assert fine.damage <= coarse.damage and fine.damage >= exhaustive(task, limits) - 1e-9
