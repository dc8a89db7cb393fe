"""Plans under a limit on peak memory beside every choice there is, and beside what the network of the plan needs."""

import itertools
from collections.abc import Callable, Mapping

import numpy as np
import pytest

from example_nets import SHAPE, hand_made
from slimwright.cost.latency import LatencyTable, one_by_one
from slimwright.coupling import couple
from slimwright.graph import Net, plan_memory
from slimwright.importers import capture
from slimwright.search import Predictor
from slimwright.search.moments import Moments
from slimwright.zoo import build

KEPT = 4  # settings of a group, where every choice is tried


def predictor_of(net: Net) -> Predictor:
    return Predictor(net, couple(net), LatencyTable(one_by_one(lambda _: 0.0), None, {}), 1)


def damages(sizes: Mapping[str, list[int]], seed: int) -> dict[str, Callable[[int], float]]:
    """Damages that rise as channels go, of each group its own."""
    rng = np.random.default_rng(seed)
    found: dict[str, Callable[[int], float]] = {}
    for name, some in sizes.items():
        losses = np.concatenate([[0.0], np.cumsum(rng.uniform(0, 1, len(some) - 1))])
        found[name] = dict(zip(some, losses.tolist(), strict=True)).__getitem__
    return found


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("share", [0.9, 0.6, 0.3])
@pytest.mark.parametrize("name", ["Residual", "Concat", "Separable", "Flat"])
def test_no_choice_within_the_limit_does_less_damage(name: str, share: float, seed: int) -> None:
    predictor = predictor_of(capture(hand_made(name), SHAPE))
    sizes = {item: [some[0], *some[1:][-KEPT + 1 :]] for item, some in predictor.sizes.items()}
    damage = damages(sizes, seed)
    limit = share * predictor.peak_activation_bytes(predictor.whole)
    found = Moments.of(predictor).least(sizes, damage, limit)
    assert found is not None
    (counts,) = found.met
    every = [dict(zip(sizes, choice, strict=True)) for choice in itertools.product(*sizes.values())]
    smallest = min(predictor.peak_activation_bytes(one) for one in every)
    within = [one for one in every if predictor.peak_activation_bytes(one) <= max(limit, smallest)]
    least = min(sum(damage[item](count) for item, count in one.items()) for one in within)
    assert predictor.peak_activation_bytes(counts) <= max(limit, smallest)
    assert sum(damage[item](count) for item, count in counts.items()) == pytest.approx(least, rel=2e-3, abs=1e-9)
    assert found.damage <= least + 1e-9


@pytest.mark.parametrize("name", ["resnet20", "mobilenet-v2", "squeezenet1.1"])
def test_the_largest_of_the_moments_is_the_peak_of_any_choice(name: str) -> None:
    predictor = predictor_of(capture(build(name, classes=10).eval(), (3, 64, 64)))
    moments, rng = Moments.of(predictor), np.random.default_rng(0)
    for _ in range(5):
        counts = {item: int(rng.choice(some)) for item, some in predictor.sizes.items()}
        gone = np.array([predictor.whole[item] - counts[item] for item in moments.items])
        assert (moments.whole - moments.each @ gone).max() == predictor.peak_activation_bytes(counts)


def test_a_limit_that_holds_already_changes_nothing() -> None:
    net = capture(hand_made("Residual"), SHAPE)
    predictor = predictor_of(net)
    found = Moments.of(predictor).least(predictor.sizes, damages(predictor.sizes, 0), plan_memory(net).peak_bytes)
    assert found is not None
    assert found.met == [predictor.whole] and found.damage == 0.0
