import pytest
from counted import counts_of, macs_by_torch, without_memory

from slimwright.cost import count
from slimwright.importers import capture
from slimwright.zoo import build
from slimwright.zoo.squeezenet import Fire


@pytest.mark.parametrize(
    ("name", "params", "millions"), [("squeezenet1.0", 1_248_424, 819), ("squeezenet1.1", 1_235_496, 349)]
)
def test_counts_of_both_versions(name: str, params: int, millions: int) -> None:
    counted, macs = counts_of(name)
    assert counted == params
    assert round(macs / 1e6) == millions


def test_833_million_macs_are_those_of_a_227_pixel_crop() -> None:  # the figure of arXiv 1707.01083, table 6
    assert round(macs_by_torch(without_memory("squeezenet1.0"), (3, 227, 227)) / 1e6) == 833


def test_a_captured_network_counts_the_same() -> None:
    cost = count(capture(build("squeezenet1.1"), (3, 224, 224)))
    assert (cost.params, cost.macs) == counts_of("squeezenet1.1")


def test_a_fire_block_by_hand() -> None:
    cost = count(capture(Fire(96, 16, 64), (96, 54, 54)))
    weights = 96 * 16 + 16 * 64 + 16 * 64 * 9
    assert cost.macs == 54 * 54 * weights
    assert cost.params == weights + 16 + 64 + 64
