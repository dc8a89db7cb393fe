"""The multiples of channels that a runtime likes, and the blocks that it fills: what a sweep tells."""

from collections import Counter
from dataclasses import replace

import pytest

from slimwright.cost.latency import LatencyTable, LayerShape, one_by_one
from stopwatch import Stopwatch


@pytest.mark.parametrize("step", [2, 4, 8, 16, 32])
def test_the_step_of_a_sawtooth_is_found(step: int) -> None:
    assert LatencyTable(one_by_one(Stopwatch(step)), None, {}).step() == step


def test_a_smooth_device_has_no_step_that_costs_nothing() -> None:
    assert LatencyTable(one_by_one(lambda s: float(s.in_channels**4 * s.out_channels**4)), None, {}).step() == 1


@pytest.mark.parametrize(("inputs", "outputs", "step"), [
    (32, 1, 1), (1, 32, 1), (8, 4, 4), (4, 8, 4), (16, 32, 16), (32, 32, 32), (2, 16, 2), (64, 64, 32),
])  # fmt: skip
def test_the_step_is_one_that_inputs_and_outputs_both_have(inputs: int, outputs: int, step: int) -> None:
    """A device that rounds up inputs to one multiple and outputs to another."""

    def milliseconds(shape: LayerShape) -> float:
        return float(
            (-(-shape.in_channels // inputs) * inputs) ** 2 * (-(-shape.out_channels // outputs) * outputs) ** 2
        )

    assert LatencyTable(one_by_one(milliseconds), None, {}).step() == step


@pytest.mark.parametrize(("slower", "step"), [(0.0, 32), (0.029, 32), (0.031, 16), (0.059, 16), (0.061, 8)])
def test_counts_are_rounded_up_where_that_costs_three_percent_on_average_at_most(slower: float, step: int) -> None:
    """Only 64 channels are slower: all that are rounded up to 32 come to that, and half of those rounded up to 16."""
    table = LatencyTable(one_by_one(lambda s: 1 + slower * (s.in_channels == 64 == s.out_channels)), None, {})
    assert table.step() == step


@pytest.mark.parametrize("block", [1, 2, 4, 8, 16, 32])
@pytest.mark.parametrize("tail", [1.0, 1.06])
def test_the_block_is_that_up_to_which_outputs_take_as_long_whatever_inputs_do(block: int, tail: float) -> None:
    """Blocks of 2 and 4 are too small to be told from none; a block that is not full may take a little longer."""

    def milliseconds(shape: LayerShape) -> float:
        blocks = -(-shape.out_channels // block)
        return shape.in_channels * blocks * (1.0 if shape.out_channels % block == 0 else tail)

    assert LatencyTable(one_by_one(milliseconds), None, {}).block == (block if block >= 8 else 1)


@pytest.mark.parametrize("bursts", range(4))
def test_a_block_is_found_though_some_times_are_disturbed(bursts: int) -> None:
    """Three of sixteen counts take a quarter longer; none of them is a multiple of the block."""
    slow = {34, 41, 57}
    disturbed = set(sorted(slow)[:bursts])

    def milliseconds(shape: LayerShape) -> float:
        return -(-shape.out_channels // 16) * (1.25 if shape.out_channels in disturbed else 1.0)

    assert LatencyTable(one_by_one(milliseconds), None, {}).block == 16


def test_the_sweep_is_over_inputs_and_outputs_of_a_three_by_three_convolution() -> None:
    watch = Stopwatch()
    LatencyTable(one_by_one(watch), None, {}).step()
    base = LayerShape("conv2d", 64, 64, (3, 3), padding=(1, 1), input_size=(14, 14))
    counts = {33, 34, 36, 40, 41, 42, 44, 48, 49, 50, 52, 56, 57, 58, 60, 64}
    wanted = {replace(base, in_channels=n) for n in counts} | {replace(base, out_channels=n) for n in counts}
    assert set(watch.asked) == wanted and len(watch.asked) == 3 * 31


def test_a_step_is_found_though_each_layer_was_disturbed_twice() -> None:
    """A device of which every layer takes three times as long, but for the last of three times."""
    asked = Counter[LayerShape]()

    def milliseconds(shape: LayerShape) -> float:
        asked[shape] += 1
        blocks = float(-(-shape.in_channels // 16) * -(-shape.out_channels // 16))
        return blocks if asked[shape] == 3 else 3 * blocks

    table = LatencyTable(one_by_one(milliseconds), None, {})
    assert (table.step(), table.block) == (16, 16)
    assert table.time(next(iter(asked))) == 4 * 3
