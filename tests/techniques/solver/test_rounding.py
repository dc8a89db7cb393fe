"""Weights as whole multiples of a step: no worse than rounding each alone, and left out where bits are dear."""

import itertools

import pytest
import torch
from torch import Tensor

from column_problems import covariance, weights
from slimwright.techniques.solver.rounding import Code, Price, rounded


def objective(integers: Tensor, step: float, weight: Tensor, curvature: Tensor, prices: Tensor, code: Code) -> float:
    """The output error in nats and the price of the bits, both per price."""
    groups, size, _ = curvature.shape
    grouped = integers.double().reshape(groups, -1, size)
    lacking = weight.double().reshape(groups, -1, size) - step * grouped
    errors = ((lacking @ curvature) * lacking).sum(2)
    bits = sum(code.bits(grouped[None, :, :, at], at)[0] for at in range(size))
    return float((errors + prices * bits).sum())


@pytest.mark.parametrize("price", [1e-5, 1e-2, 0.3])
def test_error_and_bits_together_are_less_than_of_rounding_each_alone(price: float) -> None:
    """Of thirty layers together by a good part; of a single one it is a local optimum, which may be a little worse."""
    ours, others = [], []
    for seed in range(30):
        groups, outputs, size = 1 + seed % 3, 1 + seed % 5, 2 + seed % 11
        weight, curvature = weights(groups * outputs, size, seed), covariance(groups, size, seed)
        found = rounded(weight, curvature, Price(price, torch.ones(groups * outputs)))
        assert torch.equal(found.weight, found.integers.float() * torch.tensor(found.step))
        alone = (weight / found.step).round()
        code, prices = (
            Code(found.integers.double().reshape(groups, outputs, size)),
            torch.full((groups, outputs), price),
        )
        ours.append(objective(found.integers, found.step, weight, curvature, prices, code))
        others.append(objective(alone, found.step, weight, curvature, prices, code))
        assert ours[-1] <= 1.25 * others[-1] + 1e-9
    assert sum(ours) < 0.95 * sum(others)


def test_two_weights_are_rounded_as_the_best_of_all_pairs() -> None:
    """Inputs that go together: an error of one weight is made up for by the other."""
    curvature = torch.tensor([[[1.0, 0.95], [0.95, 1.0]]], dtype=torch.float64)
    weight = torch.tensor([[0.5, 0.5], [1.4, -0.45], [0.2, 3.3]])
    found = rounded(weight, curvature, Price(0.05, torch.ones(3)))
    code, prices = Code(found.integers.double()[None]), torch.full((1, 3), 0.05)
    pairs = [torch.tensor(pair) for pair in itertools.product(range(-8, 9), repeat=2)]
    for row in range(3):
        every = []
        for pair in pairs:
            tried = found.integers.clone()
            tried[row] = pair
            every.append(objective(tried, found.step, weight, curvature, prices, code))
        best = min(every)
        assert objective(found.integers, found.step, weight, curvature, prices, code) <= best * 1.05


def test_a_low_price_leaves_the_weights_as_they_are_and_a_high_one_leaves_none() -> None:
    weight, curvature = weights(6, 10, 1), covariance(1, 10, 1)
    fine = rounded(weight, curvature, Price(1e-8, torch.ones(6)))
    assert torch.allclose(fine.weight, weight, atol=fine.step) and fine.step < 1e-3
    shares = [
        float((rounded(weight, curvature, Price(p, torch.ones(6))).integers != 0).float().mean())
        for p in (1e-4, 0.1, 1e3)
    ]
    assert shares[0] > shares[1] > shares[2] == 0


def test_outputs_that_matter_more_keep_more() -> None:
    weight, curvature = weights(1, 30, 2).repeat(2, 1), covariance(1, 30, 2, alike=0)
    found = rounded(weight, curvature, Price(0.02, torch.tensor([1.0, 0.01])))
    much, little = (int((row != 0).sum()) for row in found.integers)
    assert much > little
    assert not rounded(weight, curvature, Price(0.02, torch.zeros(2))).integers.any()


def test_inputs_that_are_never_there_take_no_bits() -> None:
    curvature = torch.eye(4, dtype=torch.float64)[None] * torch.tensor([1.0, 1.0, 1e-9, 1e-9])
    found = rounded(weights(8, 4, 4), curvature, Price(1e-3, torch.ones(8)))
    assert found.integers[:, :2].any(0).all() and not found.integers[:, 2:].any()


def test_a_bias_lies_on_a_grid_as_coarse_as_the_price_asks_for() -> None:
    bias = weights(1, 40, 3)[0]
    for price in (1e-6, 1e-3):
        found = Price(price, torch.ones(40)).bias(bias)
        assert float((found - bias).square().mean()) == pytest.approx(price / (2 * 0.6931), rel=0.5)


def test_bits_are_those_of_an_ideal_coder() -> None:
    """Where rows and columns are alike: the entropy of the integers, and one bit for each sign."""
    integers = torch.tensor([0.0, 0.0, 0.0, 1.0]).repeat(400).reshape(1, 40, 40)
    mixed = integers[:, :, torch.randperm(40, generator=torch.Generator().manual_seed(0))]
    expected = 1600 * 0.8113 + 400
    code = Code(mixed.roll(1, 1))
    assert sum(float(code.bits(mixed[None, :, :, at], at).sum()) for at in range(40)) < 1.1 * expected
