"""Weights on few levels: never worse than rounding each to the nearest, best where all can be tried."""

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from column_problems import covariance, error
from slimwright.techniques.solver.levels import WeightLevels


@given(bits=st.integers(2, 8), groups=st.integers(1, 3), outputs=st.integers(1, 4), size=st.integers(1, 12), seed=...)
def test_weights_stand_on_so_many_levels(bits: int, groups: int, outputs: int, size: int, seed: int) -> None:
    seed %= 1000
    weight = torch.randn(groups * outputs, size, generator=torch.Generator().manual_seed(seed))
    found = WeightLevels(bits).nearest(weight, covariance(groups, size, seed))
    assert found.shape == weight.shape and found.dtype == torch.float32
    assert not (torch.signbit(found) & (found == 0)).any()
    for row in found:
        scale = row[row != 0].abs().min() if row.any() else torch.tensor(1.0)
        fits = [part for part in range(1, 2 ** (bits - 1)) if _on(row, float(scale) / part, 2 ** (bits - 1) - 1)]
        assert fits, row


def _on(row: Tensor, scale: float, most: int) -> bool:
    levels = row.double() / scale
    return bool((levels - levels.round()).abs().max() < 1e-3 and levels.abs().max() < most + 0.5)


@pytest.mark.parametrize("bits", [1, 2, 3, 4, 8])
def test_outputs_err_less_than_of_the_nearest_levels(bits: int) -> None:
    """In the mean over thirty layers, by the margin that inputs which go together leave."""
    ours, theirs = [], []
    for seed in range(30):
        weight = torch.randn(6, 20, generator=torch.Generator().manual_seed(seed))
        curvature = covariance(1, 20, seed)
        rule = WeightLevels(bits)
        ours.append(error(weight, rule.nearest(weight, curvature), curvature))
        theirs.append(error(weight, rule.each_nearest(weight), curvature))
    assert sum(ours) < (0.75 if bits < 8 else 0.9) * sum(theirs)


def test_of_three_weights_the_best_levels_are_found_for_their_scale() -> None:
    curvature = covariance(1, 3, 4)
    weight = torch.tensor([[0.9, -0.35, 0.2], [0.3, 0.31, -0.29]])
    found = WeightLevels(3).nearest(weight, curvature)
    for row, one in zip(weight, found, strict=True):
        scale = float(one[one != 0].abs().min()) / max(1, round(float(one[one != 0].abs().min() / one.abs().max()) * 1))
        choices = torch.tensor(list(itertools.product(range(-3, 4), repeat=3)), dtype=torch.float64) * scale
        errors = [error(row[None], choice[None].float(), curvature) for choice in choices]
        assert error(row[None], one[None], curvature) <= 1.25 * min(errors)


def test_weights_that_stand_on_levels_stay_what_they_are() -> None:
    weight = torch.tensor([[7.0, -3.0, 0.0, 1.0], [0.5, 0.25, -1.75, 0.0]])
    found = WeightLevels(4).nearest(weight, torch.eye(4, dtype=torch.float64)[None])
    torch.testing.assert_close(found, weight, rtol=1e-6, atol=0)


@given(groups=st.integers(1, 3), outputs=st.integers(1, 4), size=st.integers(1, 12), seed=st.integers(0, 1000))
def test_binary_weights_are_signs_of_one_size(groups: int, outputs: int, size: int, seed: int) -> None:
    weight = torch.randn(groups * outputs, size, generator=torch.Generator().manual_seed(seed))
    weight[0] = 0
    rule = WeightLevels(1)
    for found in (rule.nearest(weight, covariance(groups, size, seed)), rule.each_nearest(weight)):
        assert not found[0].any()
        for row in found[1:]:
            assert (row != 0).all() and len(row.abs().unique()) == 1


def test_of_signs_the_best_are_found() -> None:
    """Of all signs of five weights with the scale that suits them: within a quarter of the best error."""
    curvature = covariance(1, 5, 3)
    weight = torch.randn(8, 5, generator=torch.Generator().manual_seed(2))
    found = WeightLevels(1).nearest(weight, curvature)
    for row, one in zip(weight, found, strict=True):
        signs = torch.tensor(list(itertools.product((-1.0, 1.0), repeat=5)))
        read = signs.double() @ curvature[0]
        scales = (read @ row.double()) / (read * signs).sum(1)
        errors = [error(row[None], (s * k)[None], curvature) for s, k in zip(signs, scales, strict=True)]
        assert error(row[None], one[None], curvature) <= 1.25 * min(errors) + 1e-9


def test_by_themselves_few_bits_have_the_published_scales() -> None:
    """The mean magnitude for signs; for ternary weights 0.7 of it as threshold, and the mean above as scale."""
    weight = torch.tensor([[0.1, -0.2, 0.6, -1.1], [0.0, 0.3, -0.3, 0.6]])
    binary, ternary = (WeightLevels(bits).each_nearest(weight) for bits in (1, 2))
    torch.testing.assert_close(binary, torch.tensor([[0.5, -0.5, 0.5, -0.5], [0.0, 0.4, -0.4, 0.4]]))
    torch.testing.assert_close(ternary, torch.tensor([[0.0, 0.0, 0.85, -0.85], [0.0, 0.4, -0.4, 0.4]]))


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_zeros_that_are_to_stay_do(bits: int) -> None:
    """But for signs, which have none."""
    weight = torch.randn(6, 12, generator=torch.Generator().manual_seed(5))
    zero = torch.rand(6, 12, generator=torch.Generator().manual_seed(6)) < 0.4
    found = WeightLevels(bits, zero).nearest(weight.masked_fill(zero, 0.0), covariance(1, 12, 5))
    assert bool((found[zero] == 0).all()) == (bits > 1)


def test_an_output_without_weights_stays_without() -> None:
    weight = torch.tensor([[0.0, 0.0], [0.4, -0.9]])
    found = WeightLevels(4).nearest(weight, covariance(1, 2, 0))
    assert not found[0].any() and found[1].any()
    assert torch.equal(WeightLevels(4).bias(weight[1]), weight[1])
