"""Pieces of layers in a runtime that fills outputs up to blocks, and what is predicted of them there."""

import functools

import pytest
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from slimwright.cost.latency import LatencyTable, LayerShape, one_by_one
from slimwright.coupling import couple
from slimwright.graph import Net
from slimwright.importers import capture
from slimwright.search import Predictor
from slimwright.search.pieces import Piece


@given(first=st.integers(2, 56), second=st.integers(1, 40))
def test_latency_is_predicted_exactly_where_outputs_fill_blocks_of_sixteen(first: int, second: int) -> None:
    """Inputs count one by one; a depthwise layer's channels are outputs."""

    def stairs(shape: LayerShape) -> float:
        if shape.op == "linear":
            return 1 + 2 * shape.in_channels + 3 * shape.out_channels
        return 1 + (1 if shape.groups > 1 else shape.in_channels) * -(-shape.out_channels // 16)

    net = wide_net()
    predictor = Predictor(net, couple(net), LatencyTable(one_by_one(stairs), None, {}), 1, block=16)
    predictor.measure()
    measured = predictor.table.measured
    names = {predictor.whole[group.name]: group.name for group in predictor.coupling.groups}
    predicted = predictor.layer_ms({names[56]: first, names[40]: second})
    blocks, others = -(-first // 16), -(-second // 16)
    expected = [1 + 3 * blocks, 1 + blocks, 1 + first * others, 1 + 2 * second + 3 * 10]
    assert [*predicted.values()] == pytest.approx(expected)
    assert predictor.table.measured == measured


@pytest.mark.parametrize(("shape", "filled", "grids"), [
    (LayerShape("conv2d", 20, 24), (20, 32), ([2, 20], [2, 8, 16, 32, 64])),
    (LayerShape("conv2d", 20, 16), (20, 16), ([2, 20], [2, 8, 16, 32, 64])),
    (LayerShape("conv2d", 20, 9), (20, 9), ([2, 20], [2, 8, 16, 32, 64])),
    (LayerShape("conv2d", 20, 20, (3, 3), groups=20), (32, 32), ([2, 16, 32], [2, 8, 24, 56])),
    (LayerShape("conv2d", 20, 24, (3, 3), groups=4), (20, 24), ([2, 20], [2, 8, 24, 56])),
    (LayerShape("linear", 20, 24), (20, 24), ([2, 20], [2, 8, 24, 56])),
])  # fmt: skip
def test_outputs_of_convolutions_fill_blocks_but_below_one_and_in_groups(
    shape: LayerShape, filled: tuple[int, int], grids: tuple[list[int], list[int]]
) -> None:
    piece = Piece("main", shape, ([2, 20], [2, 8, 24, 56]), 4)
    found = piece.filled(16)
    assert (found.shape.in_channels, found.shape.out_channels) == filled
    assert found.grids == grids and found.pixels == 4
    assert piece.filled(1) == piece


@functools.cache
def wide_net() -> Net:
    """A pointwise, a depthwise, and another pointwise layer, and a linear one."""
    layers = nn.Sequential(
        nn.Conv2d(3, 56, 1), nn.ReLU(), nn.Conv2d(56, 56, 3, padding=1, groups=56), nn.ReLU(), nn.Conv2d(56, 40, 1),
        nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(40, 10),
    )  # fmt: skip
    return capture(layers, (3, 4, 4))
