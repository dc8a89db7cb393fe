from functools import partial

import pytest
import torch
from counted import counts_of, macs_by_torch, parameters, without_memory
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from slimwright.cost import count
from slimwright.errors import ModelError
from slimwright.importers import capture
from slimwright.zoo import ZOO, build
from slimwright.zoo.shufflenet import UNITS, WIDTHS, Shuffle, ShuffleNet, Unit

PARAMETERS = {1: 1_531_936, 2: 1_733_848, 3: 1_865_728, 4: 1_968_344, 8: 2_434_768}
PRINTED = {1: 143, 2: 140, 3: 137, 4: 133, 8: 137}  # arXiv 1707.01083, table 1: millions


@pytest.mark.parametrize("groups", WIDTHS)
def test_counts_of_table_1(groups: int) -> None:
    params, macs = counts_of(f"shufflenet-g{groups}")
    assert params == PARAMETERS[groups]
    assert abs(macs / 1e6 - PRINTED[groups]) <= 1.5


@pytest.mark.parametrize(
    ("name", "millions", "params"),
    [
        ("shufflenet-g3-0.5x", 37.6, 718_324),
        ("shufflenet-g4-0.5x", 37.5, None),
        ("shufflenet-g8-0.5x", 40.5, None),
        ("shufflenet-g3-1.5x", 292.4, 3_442_168),
        ("shufflenet-g3-2x", 524.0, 5_450_776),
    ],
)
def test_counts_at_other_scales(name: str, millions: float, params: int | None) -> None:
    counted, macs = counts_of(name)
    assert round(macs / 1e6, 1) == millions
    assert params in (None, counted)


@pytest.mark.parametrize("groups", WIDTHS)
def test_a_quarter_of_the_width_costs_about_13_million(groups: int) -> None:
    assert abs(counts_of(f"shufflenet-g{groups}-0.25x")[1] / 1e6 - 13) <= 1.5


def test_a_captured_network_counts_the_same() -> None:
    cost = count(capture(build("shufflenet-g3"), (3, 224, 224)))
    assert (cost.params, cost.macs) == counts_of("shufflenet-g3") == (1_865_728, 137_460_672)


@pytest.mark.parametrize(
    ("name", "inner"),
    [
        ("shufflenet-g3", [60, 120, 240]),  # a quarter of 240, 480, 960
        ("shufflenet-g8-0.25x", [24, 48, 96]),
        ("shufflenet-g2-0.25x", [14, 26, 50]),  # not 12.5, not 25
        ("shufflenet-g4-0.5x", [36, 68, 136]),  # not 34
        ("shufflenet-g4-1.5x", [104, 204, 408]),  # not 102
    ],
)
def test_bottlenecks_are_a_quarter_of_their_unit_rounded_up_to_what_the_groups_divide(
    name: str, inner: list[int]
) -> None:
    convs = [module for module in without_memory(name).modules() if isinstance(module, nn.Conv2d)]
    depthwise = [conv.out_channels for conv in convs if conv.groups == conv.in_channels]
    assert depthwise == [width for width, units in zip(inner, UNITS, strict=True) for _ in range(units)]


@pytest.mark.parametrize("groups", WIDTHS)
def test_macs_of_a_unit_follow_the_papers_formula(groups: int) -> None:  # sec. 3.2: hw(2cm/g + 9m)
    c, m = WIDTHS[groups], WIDTHS[groups] // 4
    unit = Unit(c, c, (groups, groups), shuffled=True)
    assert macs_by_torch(unit.to("meta"), (c, 28, 28)) == 28 * 28 * (2 * c * m // groups + 9 * m)
    assert parameters(unit) == 2 * c * m // groups + 9 * m + 2 * (m + m + c)


def test_a_unit_that_halves_the_image_by_hand() -> None:
    cost = count(capture(Unit(24, 240, (1, 3), shuffled=True), (24, 56, 56)))  # the first of stage 2 with 3 groups
    assert cost.macs == 56 * 56 * 24 * 60 + 28 * 28 * 60 * 9 + 28 * 28 * 216 * 60 // 3
    assert cost.params == 24 * 60 + 60 * 9 + 216 * 20 + 2 * (60 + 60 + 216)


def test_a_halving_unit_puts_the_average_first_and_no_activation_before_the_depthwise_result() -> None:
    unit = Unit(6, 12, (3, 3), shuffled=True).eval()
    x = torch.rand(1, 6, 8, 8)
    average = nn.functional.avg_pool2d(x, 3, 2, 1)
    with torch.no_grad():
        assert torch.equal(unit(x)[:, :6], average)
        assert torch.equal(unit(x)[:, 6:], unit.branch(x).relu())
    kinds = [type(module).__name__ for module in unit.branch]
    assert kinds == ["Conv2d", "BatchNorm2d", "ReLU", "Shuffle", "Conv2d", "BatchNorm2d", "Conv2d", "BatchNorm2d"]


@given(groups=st.integers(1, 6), each=st.integers(1, 6))
def test_the_shuffle_deals_channels_out_over_the_groups(groups: int, each: int) -> None:
    x = torch.arange(groups * each).reshape(1, -1, 1, 1).float()
    dealt = Shuffle(groups)(x).flatten().tolist()
    assert dealt == [g * each + i for i in range(each) for g in range(groups)]
    assert torch.equal(Shuffle(each)(Shuffle(groups)(x)), x)


def test_only_the_shuffle_lets_the_groups_see_each_other() -> None:
    def touched(shuffled: bool) -> int:
        """How many of 24 channels feel a change of the first one."""
        unit = Unit(24, 24, (2, 2), shuffled=shuffled).eval()
        with torch.no_grad():
            for parameter in unit.parameters():
                parameter.abs_().add_(0.1)
            x = torch.rand(1, 24, 4, 4)
            other = x.clone()
            other[:, 0] += 1
            return int((unit(x) != unit(other)).any(dim=(0, 2, 3)).sum())

    assert touched(shuffled=False) == 12
    assert touched(shuffled=True) == 24


def test_the_shuffle_costs_no_macs_and_has_no_weights() -> None:
    assert counts_of("shufflenet-g8") == counts_of("shufflenet-g8-noshuffle")
    assert "shufflenet-g1-noshuffle" not in ZOO  # one group has nothing to shuffle


@pytest.mark.parametrize(("groups", "scale"), [(5, 1.0), (3, 0.75)])
def test_groups_and_scales_that_the_paper_does_not_have_are_refused(groups: int, scale: float) -> None:
    make = partial(ShuffleNet, classes=10, in_channels=3)
    with pytest.raises(ModelError, match=f"{groups} groups at scale {scale}; groups are 1, 2, 3, 4, 8, scales 0.25"):
        make(groups, scale)
