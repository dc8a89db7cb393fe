"""Calibration: a device whose time is a formula of what layers say is predicted exactly, on choices not measured."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from example_nets import SHAPE, hand_made
from slimwright.cost.latency import LatencyTable, LayerShape, one_by_one
from slimwright.graph import capture, couple
from slimwright.plan import Predictor
from slimwright.plan.calibrated import calibrated
from slimwright.plan.predictor import Counts


def milliseconds(shape: LayerShape) -> float:
    return 0.01 + 1e-5 * shape.in_channels * shape.out_channels * shape.input_size[0]


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    net = capture(hand_made("Residual"), SHAPE)
    return Predictor(net, couple(net), LatencyTable(one_by_one(milliseconds), None, {}), 1)


def choices(predictor: Predictor) -> list[Counts]:
    """The whole, and each group alone at a few of its sizes."""
    found: list[Counts] = [predictor.whole]
    for name, sizes in predictor.sizes.items():
        found += [{**predictor.whole, name: size} for size in sizes[:: max(len(sizes) // 3, 1)]]
    return found


def slow_memory(predictor: Predictor) -> Callable[[Counts], float]:
    """Twice the layers' time, more for what others write, and a constant."""
    return lambda counts: 2 * sum(predictor.layer_ms(counts).values()) + 1e-6 * predictor.other_bytes(counts) + 0.05


def test_a_device_that_follows_the_form_is_predicted_exactly(predictor: Predictor) -> None:
    device = slow_memory(predictor)
    measured = choices(predictor)
    predicted = calibrated(predictor, [(counts, device(counts)) for counts in measured])
    least = {name: sizes[-1] for name, sizes in predictor.sizes.items()}
    assert least not in measured
    assert predicted(least) == pytest.approx(device(least), rel=1e-3)


def test_one_measurement_scales_the_whole(predictor: Predictor) -> None:
    predicted = calibrated(predictor, [(predictor.whole, 7.0)])
    assert predicted(predictor.whole) == pytest.approx(7.0)


@given(noise=st.lists(st.floats(0.7, 1.4), min_size=4, max_size=4))
def test_fewer_channels_are_never_predicted_to_take_longer(noise: list[float]) -> None:
    net = capture(hand_made("Residual"), SHAPE)
    predictor = Predictor(net, couple(net), LatencyTable(one_by_one(milliseconds), None, {}), 1)
    device = slow_memory(predictor)
    measured = [(c, device(c) * factor) for c, factor in zip(choices(predictor)[:4], noise, strict=True)]
    predicted = calibrated(predictor, measured)
    least = {name: sizes[-1] for name, sizes in predictor.sizes.items()}
    assert 0 <= predicted(least) <= predicted(predictor.whole)
