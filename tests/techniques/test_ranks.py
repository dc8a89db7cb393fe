from collections.abc import Callable, Mapping

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from example_nets import SHAPE, classification, hand_made, net_of
from slimwright.errors import DataError, RequestError
from slimwright.evidence import Evidence, observe
from slimwright.graph import Net
from slimwright.importers import capture
from slimwright.progress import Event
from slimwright.techniques.low_rank import Factors, Kind, factorise, outline, params_at
from slimwright.techniques.ranks import aligned, damage, damages, damages_by_kind, rank_for_ratio, ranks_by_sensitivity

CONVS: Mapping[str, Kind] = {
    "conv2d": "output",
    "conv2d_1": "output",
    "conv2d_2": "svd",
}  # of `Grouped`; 2 groups in one


@pytest.fixture(scope="module")
def grouped() -> Net:
    return capture(hand_made("Grouped"), SHAPE)


def observed(net: Net, count: int = 80) -> tuple[Evidence, Tensor]:
    images = torch.randn(count, *net.input.shape[1:], generator=torch.Generator().manual_seed(1))
    return observe(
        net, [(images, torch.zeros(count, dtype=torch.int64))], task=classification(net[net.outputs[0]].shape[1])
    ), images


def loss_by_layer(rises: Mapping[str, float]) -> Callable[[Net], float]:
    """The loss of a net is 1, and more by what is given for each layer that was factorised."""
    return lambda net: 1.0 + sum(rise for name, rise in rises.items() if f"{name}_a" in {n.name for n in net.nodes})


# by sensitivity


def test_ranks_are_shared_out_by_how_much_the_loss_rises() -> None:
    """As the paper's 750 of convolutions and 900 of linear layers were; here 12 as 1 : 2 and 9 as 2 : 1."""
    net = net_of(
        *(nn.Conv2d(8, 16, 3), nn.ReLU(), nn.Conv2d(16, 16, 3), nn.ReLU(), nn.Flatten()),
        *(nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 16)),
        shape=(8, 6, 6),
    )
    kinds: dict[str, Kind] = {"conv2d": "cp", "conv2d_1": "cp4", "linear": "svd", "linear_1": "svd"}
    loss = loss_by_layer({"conv2d": 0.1, "conv2d_1": 0.2, "linear": 0.8, "linear_1": 0.4})
    found = ranks_by_sensitivity(net, kinds, loss, totals={"conv2d": 12, "linear": 9})
    assert found == {
        "conv2d": Factors("cp", (4,)),
        "conv2d_1": Factors("cp4", (8,)),
        "linear": Factors("svd", (6,)),
        "linear_1": Factors("svd", (3,)),
    }


def test_ranks_are_multiples_of_groups_and_within_limits(grouped: Net) -> None:
    """The first layer has four outputs: rank 4 at most, although it is owed 8 of 10."""
    loss = loss_by_layer({"conv2d": 0.8, "conv2d_1": 0.1, "conv2d_2": 0.1})
    found = ranks_by_sensitivity(grouped, CONVS, loss, totals={"conv2d": 10})
    ranks = {name: factors.ranks[0] for name, factors in found.items()}
    assert ranks["conv2d"] == 4 and ranks["conv2d_1"] % 2 == 0 and sum(ranks.values()) == 10
    assert outline(grouped, found)["conv2d_1"].arguments["groups"] == 2


def test_a_layer_that_loses_nothing_gets_the_least(grouped: Net) -> None:
    loss = loss_by_layer({"conv2d": 0.0, "conv2d_1": 0.5, "conv2d_2": -0.1})  # a gain counts as no loss
    found = ranks_by_sensitivity(grouped, CONVS, loss, totals={"conv2d": 8})
    assert [factors.ranks for factors in found.values()] == [(1,), (6,), (1,)]


def test_where_nothing_loses_anything_all_get_the_same(grouped: Net) -> None:
    kinds: dict[str, Kind] = {"conv2d": "output", "conv2d_2": "svd"}
    found = ranks_by_sensitivity(grouped, kinds, lambda net: 1.0, totals={"conv2d": 6})
    assert [factors.ranks for factors in found.values()] == [(3,), (3,)]


def test_trials_are_at_the_trial_rank_one_layer_at_a_time(grouped: Net) -> None:
    tried: list[tuple[int, ...]] = []
    events: list[Event] = []

    def loss(net: Net) -> float:
        tried.append(tuple(n.shape[1] for n in net.nodes if n.name.endswith("_a")))
        return 0.0

    ranks_by_sensitivity(grouped, CONVS, loss, totals={"conv2d": 6}, trial=3, tell=events.append)
    assert tried == [(), (3,), (4,), (3,)]  # in two groups, 4 is the least that gives each its 3 halves
    assert [(event.done, event.total) for event in events] == [(1, 3), (2, 3), (3, 3)]


def test_totals_that_are_missing_or_too_small_are_refused(grouped: Net) -> None:
    for totals, message in (({}, "no total of their ranks; give one for 'conv2d'"), ({"conv2d": 3}, "give 4 or more")):
        with pytest.raises(RequestError, match=message):
            ranks_by_sensitivity(grouped, CONVS, lambda net: 1.0, totals=totals)
    with pytest.raises(RequestError, match="'conv2d': tucker2 has 2 ranks"):
        ranks_by_sensitivity(grouped, {"conv2d": "tucker2"}, lambda net: 1.0, totals={"conv2d": 6})


# by a ratio


@pytest.mark.parametrize("removed", [0.0, 0.3, 0.5, 0.9])
def test_the_rank_for_a_ratio_is_nnabla_s(removed: float) -> None:
    """floor((1 - c) O I K^2 / (O + I + K^2))."""
    net = net_of(nn.Conv2d(12, 20, 3), nn.Flatten(), shape=(12, 5, 5))
    assert rank_for_ratio(net, "conv2d", "cp", removed) == int((1 - removed) * 20 * 12 * 9 / (20 + 12 + 9))


@pytest.mark.parametrize("kind", ["output", "cp", "cp4"])
def test_the_rank_for_a_ratio_is_the_largest_that_leaves_so_few(kind: Kind) -> None:
    net = net_of(nn.Conv2d(12, 20, 3, groups=2, bias=False), nn.Flatten(), shape=(12, 5, 5))
    weights = 20 * 6 * 9
    rank = rank_for_ratio(net, "conv2d", kind, 0.4)
    assert rank % 2 == 0
    assert params_at(net, "conv2d", Factors(kind, (rank,))) <= 0.6 * weights
    assert params_at(net, "conv2d", Factors(kind, (rank + 2,))) > 0.6 * weights


def test_the_rank_for_a_ratio_that_cannot_be_had_is_the_least() -> None:
    net = net_of(nn.Conv2d(4, 4, 3, groups=2), nn.Flatten(), shape=(4, 5, 5))
    assert rank_for_ratio(net, "conv2d", "cp", 0.99) == 2


# aligned


def test_ranks_are_rounded_up_to_a_multiple_in_each_group(grouped: Net) -> None:
    """Of 4, 6 and 5 at most; 2 groups in the second layer."""
    factors = {"conv2d": Factors("output", (1,)), "conv2d_1": Factors("output", (2,)), "conv2d_2": Factors("svd", (4,))}
    ranks = {step: [f.ranks for f in aligned(grouped, factors, step).values()] for step in (1, 2, 4)}
    assert ranks == {1: [(1,), (2,), (4,)], 2: [(2,), (4,), (4,)], 4: [(4,), (6,), (4,)]}
    assert aligned(grouped, {"conv2d_1": Factors("tucker2", (2, 2))}, 3) == {"conv2d_1": Factors("tucker2", (4, 6))}


# by damage


def test_damage_is_half_the_fisher_information_times_the_squared_error_of_the_outputs() -> None:
    """To 1 %, the ridge's share: images through the linear layer before and after."""
    net = net_of(nn.Conv2d(1, 8, 6), nn.ReLU(), nn.Flatten(), nn.Linear(8, 5), nn.ReLU(), nn.Linear(5, 3), shape=SHAPE)
    seen, images = observed(net, 300)
    thin = factorise(net, {"linear": Factors("svd", (2,))}, seen)
    whole, after = (Net(n.nodes, n.tensors, ("linear",)).to_module()(images).detach() for n in (net, thin))
    importance = 0.5 * seen.layers["linear"].fisher[0] / seen.images[0]
    by_hand = float(((whole - after).double().square().mean(0) * importance).sum())
    assert damages(net, seen, {"linear": "svd"})["linear"][2] == pytest.approx(by_hand, rel=0.01)
    assert damage(net, seen, {"linear": Factors("svd", (2,))})["linear"] == pytest.approx(by_hand, rel=0.01)


def test_damage_at_every_rank_is_that_of_factorising_there(grouped: Net) -> None:
    seen, _ = observed(grouped)
    for name, steps in damages(grouped, seen, CONVS).items():
        groups = 2 if name == "conv2d_1" else 1
        assert bool((np.diff(steps) <= 1e-12).all())
        for step in range(1, len(steps)):
            factors = Factors(CONVS[name], (step * groups,))
            assert steps[step] == pytest.approx(damage(grouped, seen, {name: factors})[name], rel=1e-6, abs=1e-12)


def test_several_kinds_of_a_layer_are_priced_as_each_alone_is(grouped: Net) -> None:
    seen, _ = observed(grouped)
    events: list[Event] = []
    kinds: dict[str, tuple[Kind, ...]] = {"conv2d_1": ("output", "input", "cp"), "conv2d_2": ("svd",)}
    found = damages_by_kind(grouped, seen, kinds, tell=events.append)
    assert {name: tuple(of) for name, of in found.items()} == kinds
    for name, of in found.items():
        for kind, steps in of.items():
            np.testing.assert_allclose(steps, damages(grouped, seen, {name: kind})[name])
    assert [(event.done, event.total) for event in events] == [(0, 2), (1, 2), (2, 2)]


@pytest.mark.parametrize("kind", ["cp", "cp4"])
def test_damage_of_terms_is_a_bound(grouped: Net, kind: Kind) -> None:
    seen, _ = observed(grouped)
    steps = damages(grouped, seen, {"conv2d_1": kind})["conv2d_1"]
    assert len(steps) > 3 and bool((np.diff(steps) <= 0).all())
    for step in range(1, len(steps)):
        done = damage(grouped, seen, {"conv2d_1": Factors(kind, (2 * step,))})["conv2d_1"]
        assert done <= steps[step] * (1 + 1e-6) + 1e-9 * steps[0]


def test_damage_of_reading_fewer_directions_is_near_that_of_factorising_there() -> None:
    """Within 20 %, although channels and taps do not vary apart here: two ways to find the directions."""
    net = net_of(nn.Conv2d(1, 6, 3), nn.ReLU(), nn.Conv2d(6, 8, 3), nn.Flatten(), nn.Linear(32, 3), shape=SHAPE)
    seen, _ = observed(net, 200)
    steps = damages(net, seen, {"conv2d_1": "input"})["conv2d_1"]
    assert len(steps) == 1 + 6 * 8 * 9 // (6 + 8 * 9) and bool((np.diff(steps) <= 0).all())
    for rank in range(1, len(steps)):
        done = damage(net, seen, {"conv2d_1": Factors("input", (rank,))})["conv2d_1"]
        assert steps[rank] == pytest.approx(done, rel=0.2)


def test_damage_without_evidence_is_refused(grouped: Net) -> None:
    seen, _ = observed(grouped)
    blind = Evidence(seen.net_digest, seen.images, {}, seen.groups, seen.taylor_images, {})
    with pytest.raises(DataError, match="'conv2d' was not observed"):
        damages(grouped, blind, {"conv2d": "output"})
    with pytest.raises(DataError, match="another net"):
        damages(capture(hand_made("Flat"), SHAPE), seen, {"conv2d": "output"})
