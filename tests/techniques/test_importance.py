import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from example_nets import SHAPE, classification, hand_made, net_of
from slimwright.coupling import couple, cut
from slimwright.errors import DataError, RequestError
from slimwright.evidence import Evidence, observe
from slimwright.graph import Net
from slimwright.importers import capture
from slimwright.techniques.importance import Rule, counts_left, keep_by_score, orders, ranked, scores


def two_layers() -> Net:
    """Two convolutions with pooling between, and a linear layer that reads four positions of each channel."""
    torch.manual_seed(3)
    layers = (nn.Conv2d(1, 5, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(5, 4, 1), nn.ReLU(), nn.Flatten())
    return net_of(*layers, nn.Linear(16, 3), shape=SHAPE)


def pictures(count: int = 24) -> tuple[Tensor, Tensor]:
    return torch.randn(count, *SHAPE, generator=torch.Generator().manual_seed(1)), torch.arange(count) % 3


def observed(net: Net) -> Evidence:
    return observe(net, [pictures()], task=classification(3))


def values(net: Net) -> tuple[Tensor, Tensor, Tensor]:
    """What the second convolution and the linear layer of `two_layers` read, with gradients, and the loss."""
    images, labels = pictures()
    module = net.to_module()
    first = torch.max_pool2d(torch.relu(module.get_submodule("0")(images)), 2)
    second = torch.relu(module.get_submodule("3")(first))
    for value in (first, second):
        value.retain_grad()
    return first, second, F.cross_entropy(module.get_submodule("6")(second.flatten(1)), labels, reduction="sum")


@pytest.mark.parametrize("rule", ["apoz", "dropnet"])
def test_activation_scores_are_those_of_what_is_read(rule: Rule) -> None:
    """By hand, behind the pooling; to 1e-5 relative."""
    net = two_layers()
    found = scores(net, couple(net), rule, evidence=observed(net))
    first, second, _ = values(net)
    for name, value in (("conv2d", first.detach()), ("conv2d_1", second.detach())):
        wanted = (value != 0).double() if rule == "apoz" else value.abs().double()
        np.testing.assert_allclose(found[name], wanted.mean((0, 2, 3)), rtol=1e-5)


def test_taylor_scores_are_the_loss_change_to_first_order() -> None:
    """By hand to 1e-4 relative. What the linear layer reads as four features is added up feature by feature."""
    net = two_layers()
    found = scores(net, couple(net), "taylor", evidence=observed(net))
    first, second, loss = values(net)
    torch.autograd.backward(loss)
    assert first.grad is not None and second.grad is not None
    np.testing.assert_allclose(found["conv2d"], (first.grad * first).sum((2, 3)).abs().mean(0).detach(), rtol=1e-4)
    per_feature = (second.grad * second).flatten(2).abs().mean(0).sum(1).detach()
    np.testing.assert_allclose(found["conv2d_1"], per_feature, rtol=1e-4)


@pytest.mark.parametrize(("rule", "power"), [("l1", 1), ("l2", 2)])
def test_weight_scores_by_hand(rule: Rule, power: int) -> None:
    """Two convolutions write the one group of a residual: the mean of their norms, each over its layer's mean."""
    net = capture(hand_made("Residual"), SHAPE)
    norms = [
        net.tensors[f"{name}.weight"].abs().pow(power).sum((1, 2, 3)).pow(1 / power) for name in ("conv1", "conv2")
    ]
    (found,) = scores(net, couple(net), rule).values()
    np.testing.assert_allclose(found, sum(norm / norm.mean() for norm in norms) / 2, rtol=1e-6)
    assert found.mean() == pytest.approx(1.0)


def test_weight_scores_do_not_depend_on_a_layers_scale() -> None:
    net = two_layers()
    louder = net.edited(tensors={"3.weight": 100 * net.tensors["3.weight"]})
    before, after = (scores(each, couple(each), "l1") for each in (net, louder))
    for name, score in before.items():
        np.testing.assert_allclose(after[name], score, rtol=1e-6)


def test_random_scores_are_seeded() -> None:
    net = two_layers()
    coupling = couple(net)
    once, again, other = (scores(net, coupling, "random", seed=seed) for seed in (0, 0, 1))
    assert all(np.array_equal(once[name], again[name]) and len(once[name]) == size for name, size in SIZES.items())
    assert not any(np.array_equal(once[name], other[name]) for name in once)


SIZES = {"conv2d": 5, "conv2d_1": 4}


def test_what_the_rule_cannot_judge_is_said_or_left_out() -> None:
    net = two_layers()
    coupling = couple(net)
    seen = observed(net)
    for rule in ("taylor", "apoz", "dropnet"):
        with pytest.raises(DataError, match="computed from evidence; observe this net first"):
            scores(net, coupling, rule)
    other = net.edited(tensors={"6.bias": net.tensors["6.bias"] + 1})
    with pytest.raises(DataError, match="another net"):
        scores(other, couple(other), "dropnet", evidence=seen)
    with pytest.raises(DataError, match="observed without taylor"):
        scores(net, coupling, "taylor", evidence=observe(net, [pictures()], task=classification(3), taylor=False))
    blind = Evidence(seen.net_digest, seen.images, {}, seen.groups, seen.taylor_images, {})
    assert scores(net, coupling, "dropnet", evidence=blind) == {}


def test_an_order_goes_from_the_least_score_up_and_costs_the_share_that_is_gone() -> None:
    net = two_layers()
    found = orders(couple(net), {"conv2d": np.array([3.0, 1.0, 4.0, 0.0, 2.0]), "conv2d_1": np.array([0.0, 0, 0, 0])})
    assert found["conv2d"].order.tolist() == [3, 1, 4, 0, 2]
    assert found["conv2d"].damage.tolist() == [0.0, 0.0, 0.1, 0.3, 0.6, np.inf]
    assert found["conv2d"].keep(2).tolist() == [0, 2]
    assert found["conv2d_1"].damage.tolist() == [0.0, 0.0, 0.0, 0.0, np.inf]  # nothing to lose
    for wrong in (np.array([0.0, -1.0, 0, 0, 0]), np.array([0.0, np.nan, 0, 0, 0])):
        with pytest.raises(RequestError, match="scores of group 'conv2d' must be numbers of at least 0"):
            orders(couple(net), {"conv2d": wrong})


def test_ties_are_broken_by_the_seed() -> None:
    net = two_layers()
    flat = {"conv2d": np.ones(5)}
    seen = {tuple(orders(couple(net), flat, seed=seed)["conv2d"].order.tolist()) for seed in range(20)}
    assert len(seen) > 10
    kept = {tuple(keep_by_score(couple(net), flat, 0.4, seed=seed)["conv2d"].tolist()) for seed in range(20)}
    assert len(kept) > 5 and all(len(each) == 2 for each in kept)


def test_by_layer_each_group_keeps_its_share_of_the_best() -> None:
    net = two_layers()
    given = {"conv2d": np.array([5.0, 1, 4, 2, 3]), "conv2d_1": np.array([0.1, 0.4, 0.3, 0.2])}
    keep = keep_by_score(couple(net), given, 0.5)
    assert {name: kept.tolist() for name, kept in keep.items()} == {"conv2d": [0, 2], "conv2d_1": [1, 2]}
    assert keep_by_score(couple(net), {"conv2d": given["conv2d"]}, 0.2).keys() == {"conv2d"}
    highest_go = keep_by_score(couple(net), {name: -score for name, score in given.items()}, 0.5)
    assert {name: kept.tolist() for name, kept in highest_go.items()} == {"conv2d": [1, 3], "conv2d_1": [0, 3]}


def test_globally_all_groups_compete_and_none_goes_empty() -> None:
    net = two_layers()
    given = {"conv2d": np.array([5.0, 1, 4, 2, 3]), "conv2d_1": np.array([0.1, 0.4, 2.5, 0.2])}
    keep = keep_by_score(couple(net), given, 5 / 9, scope="global")
    assert {name: kept.tolist() for name, kept in keep.items()} == {"conv2d": [0, 2, 3, 4], "conv2d_1": [2]}
    keep = keep_by_score(couple(net), {**given, "conv2d_1": np.zeros(4)}, 3 / 9, scope="global")
    assert [len(kept) for kept in keep.values()] == [2, 1]
    cut(net, keep)
    with pytest.raises(RequestError, match=r"shares must lie in 0\.\.1"):
        keep_by_score(couple(net), given, 1.5)


def grouped() -> Net:
    middle = nn.Conv2d(8, 8, 3, padding=1, groups=2)
    layers = (nn.Conv2d(1, 8, 1), middle, nn.ReLU(), nn.Conv2d(8, 4, 1), nn.Flatten(), nn.Linear(144, 3))
    return net_of(*layers, shape=SHAPE)


@pytest.mark.parametrize("scope", ["layer", "global"])
def test_equal_parts_stay_equal(scope: str) -> None:
    net = grouped()
    coupling = couple(net)
    given = scores(net, coupling, "l2")
    given["conv2d_2"] += 100  # the one that is free competes with nobody
    keep = keep_by_score(coupling, given, 0.5, scope=scope)  # type: ignore[arg-type]
    assert sorted(map(len, keep.values())) == [2, 4, 4]
    for name in coupling.balanced:
        for half in np.split(np.arange(8), 2):  # of each half of the group, the best two
            best = half[np.argsort(-given[name][half])[:2]]
            assert set(best.tolist()) <= set(keep[name].tolist())
    cut(net, keep, coupling)
    assert orders(coupling, given).keys() == given.keys() - coupling.balanced


score_lists = st.lists(st.lists(st.integers(-5, 5).map(float), min_size=1, max_size=8), min_size=1, max_size=4)


@given(lists=score_lists, left=st.integers(0, 40), seed=st.integers(0, 9))
def test_counts_left_are_those_of_the_best_but_one_of_each(lists: list[list[float]], left: int, seed: int) -> None:
    given_scores = {str(number): np.array(score) for number, score in enumerate(lists)}
    counts = counts_left(given_scores, left, np.random.default_rng(seed))
    total = sum(map(len, lists))
    assert sum(counts.values()) == min(max(left, len(lists)), total)
    assert all(1 <= counts[name] <= len(score) for name, score in given_scores.items())
    kept = [sorted(score)[::-1][: counts[name]] for name, score in given_scores.items()]
    gone = [sorted(score)[::-1][counts[name] :] for name, score in given_scores.items()]
    spare = [score for scores_kept in kept for score in scores_kept[1:]]  # beyond the one that each keeps anyway
    if spare and any(gone):
        assert min(spare) >= max(score for scores_gone in gone for score in scores_gone)


def test_ranks_order_all_groups_together() -> None:
    found = ranked({"a": np.array([3.0, -1.0]), "b": np.array([7.0, 0.5, -np.inf])}, np.random.default_rng(0))
    assert found["a"].tolist() == [3, 1] and found["b"].tolist() == [4, 2, 0]
    assert ranked({}, np.random.default_rng(0)) == {}
