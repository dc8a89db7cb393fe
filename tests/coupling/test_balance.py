import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from exact import assert_cut_is_masked, small_net
from example_nets import SHAPE, net_of
from random_nets import Command, commands, random_net
from slimwright.coupling import Coupling, choose, couple
from slimwright.coupling.balance import ladders
from slimwright.coupling.views import Ids
from slimwright.errors import RequestError
from slimwright.graph import Net
from slimwright.zoo.shufflenet import Shuffle

BALANCED = ("ShuffleV1", "NextBottleneck", "GroupNorms", "Standardised", "SplitAttention")


def grouped(channels: int, groups: int) -> Net:
    """A grouped convolution between two pointwise ones."""
    inner = nn.Conv2d(channels, channels, 3, groups=groups, padding=1)
    return net_of(nn.Conv2d(1, channels, 1), inner, nn.ReLU(), nn.Conv2d(channels, 3, 6), shape=SHAPE)


def range_down(size: int, parts: int) -> range:
    return range(size, 0, -1)


def parts_kept(coupling: Coupling, keep: dict[str, Ids]) -> list[list[int]]:
    """How many channels each part of each balance keeps, counted one by one."""
    gone = {
        int(component)
        for group in coupling.groups
        for component in np.delete(group.components, keep.get(group.name, np.arange(group.size)))
    }
    return [[sum(int(c) not in gone for c in part) for part in balance.parts] for balance in coupling.balances]


def assert_it_can_be_cut(coupling: Coupling, keep: dict[str, Ids]) -> None:
    for counts in parts_kept(coupling, keep):
        assert len(set(counts)) == 1 and counts[0] >= 1
    for group in coupling.groups:
        kept = keep[group.name].tolist()
        assert kept and kept == sorted(set(kept)) and kept[0] >= 0 and kept[-1] < group.size
    coupling.alive(keep)


@given(program=commands(5), share=st.floats(0, 1), multiple=st.sampled_from([1, 2, 4]), seed=st.integers(0, 99))
@settings(max_examples=30)
def test_every_part_of_a_random_net_keeps_as_many_at_least_one_and_near_the_share(
    program: list[Command], share: float, multiple: int, seed: int
) -> None:
    shuffle = [("shuffle", 0, 0, seed % 4 + 2), ("grouped", 0, 0, seed % 3 + 2), ("grouped", 0, 0, 2)]
    coupling = couple(random_net([*program, *shuffle], flat=False, seed=seed))
    keep = choose(coupling, share, multiple=multiple, seed=seed)
    assert_it_can_be_cut(coupling, keep)
    for group in coupling.groups:
        if group.name not in coupling.balanced and "peek" not in {what for what, *_ in program}:
            step = min(multiple, 1 << (group.size.bit_length() - 1))
            assert abs(len(keep[group.name]) - group.size * share) <= max(step, 1)


@pytest.mark.parametrize("name", BALANCED)
@pytest.mark.parametrize("share", [0.0, 0.2, 0.5, 0.8, 1.0])
def test_every_part_of_a_structure_keeps_as_many(name: str, share: float) -> None:
    coupling = couple(small_net(name))
    keep = choose(coupling, share, seed=3)
    assert_it_can_be_cut(coupling, keep)
    if share == 1:
        assert all(len(keep[group.name]) == group.size for group in coupling.groups)


@pytest.mark.parametrize("name", ["NextBottleneck", "SplitAttention", "Standardised"])
@pytest.mark.parametrize("share", [0.3, 0.6])
def test_no_counts_of_a_balanced_group_are_nearer_to_the_share(name: str, share: float) -> None:
    """Each group by itself, others whole, against every choice of equal counts; within the solver's gap of 2 %."""
    coupling = couple(small_net(name))
    for group in coupling.groups:
        keep = choose(coupling, {group.name: share})
        possible = [len(kept) for kept in every_choice(coupling, group.name)]
        nearest = min(abs(n - share * group.size) for n in possible)
        assert abs(len(keep[group.name]) - share * group.size) <= 1.02 * nearest + 1e-9


def every_choice(coupling: Coupling, name: str) -> list[tuple[int, ...]]:
    """All sets of channels of one group that can be kept while the others stay whole."""
    group = next(g for g in coupling.groups if g.name == name)
    sets = (kept for n in range(1, group.size + 1) for kept in itertools.combinations(range(group.size), n))
    return [
        kept for kept in sets if all(len(set(c)) == 1 and c[0] for c in parts_kept(coupling, {name: np.array(kept)}))
    ]


def test_the_same_seed_gives_the_same_channels_and_another_seed_others() -> None:
    coupling = couple(small_net("NextBottleneck"))
    first, same, other = (choose(coupling, 0.5, seed=seed) for seed in (1, 1, 2))
    assert all(np.array_equal(first[name], same[name]) for name in first)
    assert any(not np.array_equal(first[name], other[name]) for name in first)


def test_the_highest_scores_stay() -> None:
    coupling = couple(small_net("Dense"))
    rng = np.random.default_rng(0)
    scores = {group.name: rng.normal(size=group.size) for group in coupling.groups}
    for name, kept in choose(coupling, 0.4, scores=scores).items():
        assert kept.tolist() == sorted(np.argsort(-scores[name])[: len(kept)].tolist())


def test_where_parts_are_equal_the_highest_scores_of_each_part_stay() -> None:
    coupling = couple(grouped(12, 3))
    scores = {group.name: np.arange(12.0) for group in coupling.groups}
    for kept in choose(coupling, 0.5, scores=scores).values():
        assert kept.tolist() == [2, 3, 6, 7, 10, 11]


def test_scores_of_one_group_leave_the_others_to_the_seed() -> None:
    coupling = couple(small_net("Dense"))
    first, *others = (group.name for group in coupling.groups)
    scores = {first: np.arange(8.0)}
    one, other = (choose(coupling, 0.5, scores=scores, seed=seed) for seed in (0, 1))
    assert one[first].tolist() == other[first].tolist() == [4, 5, 6, 7]
    assert any(one[name].tolist() != other[name].tolist() for name in others)


def test_groups_that_no_share_names_stay_whole() -> None:
    coupling = couple(small_net("NextBottleneck"))
    name = coupling.groups[0].name
    assert choose(coupling, {name: 0.5}).keys() == {name}


@pytest.mark.parametrize(("size", "share", "multiple", "kept"), [
    (32, 0.4, 8, 16), (32, 0.3, 8, 8), (32, 0.01, 8, 8), (32, 1.0, 8, 32), (20, 0.5, 8, 8), (20, 1.0, 8, 20),
    (6, 0.5, 8, 4), (6, 0.1, 8, 4), (3, 0.1, 8, 2), (1, 0.1, 8, 1), (32, 0.4, 1, 13), (32, 0.0, 1, 1),
])  # fmt: skip
def test_counts_are_multiples_and_below_the_multiple_halves_of_it(
    size: int, share: float, multiple: int, kept: int
) -> None:
    net = net_of(nn.Conv2d(1, size, 1), nn.ReLU(), nn.Conv2d(size, 3, 6), shape=SHAPE)
    coupling = couple(net)
    (group,) = coupling.groups
    assert len(choose(coupling, share, multiple=multiple)[group.name]) == kept


@pytest.mark.parametrize(("share", "multiple", "kept"), [
    (0.4, 8, (8, 16)), (0.6, 8, (16, 24)), (0.3, 4, (8, 12)), (0.7, 16, (16, 32)), (0.3, 1, (8, 12)),
])  # fmt: skip
def test_counts_of_balanced_groups_are_multiples_too(share: float, multiple: int, kept: tuple[int, ...]) -> None:
    coupling = couple(grouped(32, 4))
    keep = choose(coupling, share, multiple=multiple)
    assert_it_can_be_cut(coupling, keep)
    assert all(len(channels) in kept for channels in keep.values())


@pytest.mark.parametrize(("share", "multiple"), [(-0.1, 1), (1.1, 1), (float("nan"), 1), (0.5, 0), (0.5, -8)])
def test_a_share_beyond_one_and_no_multiple_are_refused(share: float, multiple: int) -> None:
    with pytest.raises(RequestError, match=r"shares must lie in 0\.\.1"):
        choose(couple(small_net("Dense")), share, multiple=multiple)


@pytest.mark.parametrize("name", BALANCED)
def test_every_rung_of_a_ladder_can_be_cut_to(name: str) -> None:
    coupling = couple(small_net(name))
    found = ladders(coupling, range_down)
    assert found.keys() == coupling.balanced
    sizes = {group.name: group.size for group in coupling.groups}
    for group, ladder in found.items():
        assert ladder.sizes[0] == sizes[group] == sum(members.size for members in ladder.cells)
        for size in ladder.sizes:
            whole = {other: np.arange(size) for other, size in sizes.items()}
            assert_it_can_be_cut(coupling, whole | {group: ladder.first(size)})
            assert len(ladder.first(size)) == size
        for before, after in itertools.pairwise(ladder.rungs):
            assert sum(after) < sum(before) and all(np.less_equal(after, before))


def test_a_ladder_goes_down_as_evenly_as_was_asked() -> None:
    coupling = couple(grouped(12, 3))
    found = ladders(coupling, lambda size, parts: [size, size - parts, size - 1, parts])
    assert [ladder.sizes for ladder in found.values()] == [[12, 9, 3]] * 2


def test_groups_that_equal_parts_bind_together_have_no_ladder_down() -> None:
    coupling = couple(small_net("ShuffleV1"))
    together = [ladder for ladder in ladders(coupling, lambda size, _: [size // 2]).values() if len(ladder.rungs) == 1]
    assert 0 < len(together) < len(coupling.balanced)


@pytest.mark.parametrize("name", ["ShuffleV1", "Shuffled"])
def test_what_a_ladder_leaves_of_a_shuffle_is_a_shuffle(name: str) -> None:
    net = small_net(name) if name == "ShuffleV1" else shuffled(12, 3)
    coupling = couple(net)
    down = {group: ladder for group, ladder in ladders(coupling, range_down).items() if len(ladder.rungs) > 1}
    assert down
    for group, ladder in down.items():
        for size in ladder.sizes[1:]:
            small = assert_cut_is_masked(net, {group: ladder.first(size)}, coupling)
            assert "gather" not in {node.op for node in small.nodes}


def shuffled(channels: int, groups: int) -> Net:
    """Two grouped convolutions with a shuffle between them."""
    first, last = (nn.Conv2d(channels, channels, 1, groups=groups) for _ in range(2))
    layers = [nn.Conv2d(1, channels, 1), first, nn.ReLU(), Shuffle(groups), last, nn.Conv2d(channels, 3, 6)]
    return net_of(*layers, shape=SHAPE)
