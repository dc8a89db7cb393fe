"""Ranges of activations: zero is a level, ends are covered or clipped as it is asked for."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from example_nets import SHAPE
from slimwright.graph import Net
from slimwright.graph.layers import FakeQuantize
from slimwright.graph.levels import Levels
from slimwright.techniques.ranges import AT_ONCE, BINS, CALIBRATIONS, Calibration, _counted, _levels, covering, ranges

ends = st.floats(-1e4, 1e4, allow_nan=False, width=32)


@given(ends, ends, st.integers(2, 8))
def test_levels_hold_zero_and_both_ends(one: float, other: float, bits: int) -> None:
    low, high = min(one, other), max(one, other)
    levels = covering(low, high, bits)
    first, last = levels.ends
    assert 0 <= levels.zero <= levels.most == 2**bits - 1
    assert first <= min(low, 0) + levels.scale / 2 + 1e-6 and last >= max(high, 0) - levels.scale / 2 - 1e-6
    assert last - first <= 2 * max(max(high, 0) - min(low, 0), 1e-6) + 1e-9


def test_the_whole_range_is_from_the_least_to_the_largest(residual: Net) -> None:
    images = torch.randn(40, *SHAPE, generator=torch.Generator().manual_seed(0))
    levels = ranges(residual, images, ["conv2d", "relu"], 8, "minmax")
    for name in ("conv2d", "relu"):
        (values,) = replace(residual, outputs=(name,), ends=None).run(images)
        assert levels[name].ends[1] == pytest.approx(float(values.max()), abs=levels[name].scale)
        assert levels[name].ends[0] == pytest.approx(min(float(values.min()), 0.0), abs=levels[name].scale)
    assert levels["relu"].zero == 0


@given(ends, ends, st.integers(1, 8), st.integers(0, 2**31))
def test_values_are_rounded_to_levels_as_torch_does_it(one: float, other: float, bits: int, seed: int) -> None:
    levels = covering(min(one, other), max(one, other), bits)
    values = torch.randn(4000, generator=torch.Generator().manual_seed(seed)) * max(abs(one), abs(other), 1e-3)
    call = (levels.scale, levels.zero, levels.least, levels.most)
    module = FakeQuantize(*call)
    found, learning = module(values), module(values.clone().requires_grad_())
    assert torch.equal(found, torch.fake_quantize_per_tensor_affine(values, *call))
    assert torch.equal(found, learning) and learning.requires_grad


@given(st.integers(1, 3 * AT_ONCE), st.booleans(), st.integers(0, 2**31))
def test_values_are_counted_as_torch_does_it(size: int, cut: bool, seed: int) -> None:
    values = torch.randn(size, generator=torch.Generator().manual_seed(seed))
    values = values.relu() if cut else values
    low, high = min(float(values.min()), 0.0), max(float(values.max()), 0.0)
    if low < high:
        assert torch.equal(_counted(values, low, high), torch.histc(values, BINS, min=low, max=high).long())


def histogram(outlier: int) -> np.ndarray:
    """A bell around zero within a hundredth of the range, and `outlier` values at its end."""
    counts = np.floor(1e5 * np.exp(-0.5 * ((np.arange(BINS) - BINS / 2) / (BINS / 200)) ** 2))
    counts[-1] += outlier
    return np.asarray(counts)


@pytest.mark.parametrize("by", ["percentile", "mse", "entropy"])
def test_a_value_far_out_is_clipped(by: Calibration) -> None:
    levels = _levels(histogram(1), -1.0, 1.0, 4, by)
    assert max(np.abs(levels.ends)) < 0.5
    whole = _levels(histogram(1), -1.0, 1.0, 4, "mse" if by == "percentile" else by)
    assert whole.scale < covering(-1, 1, 4).scale


def test_many_values_far_out_are_not_clipped_by_squared_error() -> None:
    assert _levels(histogram(10**6), -1.0, 1.0, 8, "mse").ends[1] > 0.9


@pytest.mark.parametrize("by", CALIBRATIONS)
def test_a_value_that_is_always_zero_has_levels(by: Calibration) -> None:
    levels = _levels(np.zeros(BINS), 0.0, 0.0, 8, by)
    assert levels == Levels(levels.scale, 0, 0, 255) and levels.scale > 0
