import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from slimwright.techniques.decompose import Metric, pair_errors
from slimwright.techniques.polyadic import polyadic, polyadic_errors, spectral_terms

SEEDS = st.integers(0, 10_000)
SHAPES = st.sampled_from([(5, 4, 9), (5, 4, 3, 3), (3, 1, 9), (6, 5, 1), (2, 8, 4)])


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def metric(inputs: int, taps: int, outputs: int, seed: int = 0) -> Metric:
    """Channels that repeat each other and taps that do, as in a layer that reads pictures, and something of neither."""
    mixed, near = drawn(inputs, inputs, seed=seed), drawn(inputs * taps, inputs * taps, seed=seed + 1)
    of_channels = mixed @ mixed.T / inputs + 0.1 * torch.eye(inputs, dtype=torch.float64)
    of_taps = 0.5 + 0.5 * torch.eye(taps, dtype=torch.float64)
    covariance = torch.kron(of_channels, of_taps) + 0.1 * near @ near.T / len(near)
    return Metric(covariance, drawn(outputs, seed=seed).square() + 0.1)


def kernel(outputs: int, inputs: int, taps: int, seed: int = 0) -> Tensor:
    """Weights whose directions matter ever less, as those of trained layers do."""
    falling = [drawn(size, size, seed=seed + size) / torch.arange(1, size + 1) for size in (outputs, inputs)]
    return torch.einsum("osp,ob,sc->bcp", drawn(outputs, inputs, taps, seed=seed), falling[0], falling[1])


@given(SHAPES, SEEDS)
def test_terms_of_a_chain_of_svds_are_orthogonal_and_make_up_the_tensor(shape: tuple[int, ...], seed: int) -> None:
    """To 1e-10. What the first of them leave is what the others hold; the largest come first."""
    tensor = drawn(*shape, seed=seed)
    most = min(shape[0], tensor[0].numel()) * tensor[0].numel()
    found = spectral_terms(tensor, most)
    torch.testing.assert_close(found.composed(), tensor.flatten(1), rtol=0, atol=1e-10)
    squares = found.factors[0].square().sum(0)
    assert bool((squares.diff() <= 1e-12).all())
    for factor in found.factors[1:]:
        there = squares > 1e-12
        torch.testing.assert_close(factor.norm(dim=0)[there], torch.ones(int(there.sum()), dtype=torch.float64))
    for terms in (1, 3):
        left = (tensor.flatten(1) - found.first(terms).composed()).square().sum()
        torch.testing.assert_close(left, squares[terms:].sum(), rtol=1e-9, atol=1e-10)


@given(SHAPES, st.integers(1, 6), SEEDS)
def test_no_sum_of_terms_is_better_than_the_best_matrix_of_that_rank(
    shape: tuple[int, ...], rank: int, seed: int
) -> None:
    """The unfolded weights of R terms have rank R: their error is at least that of the best pair."""
    tensor = drawn(*shape, seed=seed)
    under = metric(shape[1], tensor[0, 0].numel(), shape[0], seed)
    found = under.error(tensor.flatten(1) - polyadic(tensor, rank, under).composed())
    bound = pair_errors(tensor.flatten(1), under)
    assert found >= float(bound[min(rank, len(bound) - 1)]) - 1e-9 * float(bound[0])


@given(st.integers(2, 5), st.integers(2, 4), SEEDS)
def test_weights_that_are_so_many_terms_are_found_again(outputs: int, inputs: int, seed: int) -> None:
    """One term: to 1e-6 of the error of giving nothing."""
    parts = [drawn(size, 1, seed=seed + i) for i, size in enumerate((outputs, inputs, 9))]
    tensor = torch.einsum("or,sr,pr->osp", *parts)
    under = metric(inputs, 9, outputs, seed)
    nothing = under.error(tensor.flatten(1))
    assert under.error(tensor.flatten(1) - polyadic(tensor, 1, under).composed()) <= 1e-6 * nothing


def test_errors_are_exact_at_every_rank_where_there_are_few() -> None:
    tensor, under = kernel(4, 3, 4), metric(3, 4, 4)
    errors = polyadic_errors(tensor, 12, under)
    for rank in range(1, 13):
        found = under.error(tensor.flatten(1) - polyadic(tensor, rank, under).composed())
        assert float(errors[rank]) == pytest.approx(found, rel=1e-6, abs=1e-9 * float(errors[0]))


@pytest.mark.parametrize("outputs", [24, 12])
def test_errors_elsewhere_are_near_those_of_alternating_there(outputs: int) -> None:
    """Exact at the checked ranks, half to twice as much elsewhere: a power of the rank is a fit, not a bound."""
    tensor, under = kernel(outputs, 20, 9), metric(20, 9, outputs)
    most = tensor.numel() // sum(tensor.shape)
    errors = polyadic_errors(tensor, most, under)
    assert float(errors[0]) == pytest.approx(under.error(tensor.flatten(1))) and bool((errors.diff() <= 0).all())
    for share in (1 / 24, 1 / 16, 1 / 8, 1 / 4, 2 / 5, 3 / 5):
        rank = max(round(most * share), 1)
        found = under.error(tensor.flatten(1) - polyadic(tensor, rank, under).composed())
        if share in (1 / 24, 1 / 8, 2 / 5):
            assert float(errors[rank]) == pytest.approx(found)
        assert 0.5 * found < float(errors[rank]) < 2 * found


def test_a_metric_that_is_a_product_makes_the_start_exact_for_a_matrix() -> None:
    """A pointwise layer under it is a truncated SVD of whitened weights: as good as the best pair, to 1e-6."""
    tensor, under = kernel(8, 6, 1), metric(6, 1, 8)
    errors = pair_errors(tensor.flatten(1), under)
    for rank in (1, 3, 5):
        found = under.error(tensor.flatten(1) - polyadic(tensor, rank, under).composed())
        assert found == pytest.approx(float(errors[rank]), rel=1e-6)
