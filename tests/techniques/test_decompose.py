import pytest
import tensorly
import torch
from hypothesis import given
from hypothesis import strategies as st
from tensorly.decomposition import partial_tucker
from tensorly.tenalg import khatri_rao
from torch import Tensor

from slimwright.techniques.decompose import (
    Metric,
    Pair,
    Tucker2,
    input_errors,
    low_rank_pair,
    pair_errors,
    tucker2,
)
from slimwright.techniques.polyadic import Polyadic, polyadic, polyadic_errors, power_method, products

tensorly.set_backend("pytorch")
SEEDS = st.integers(0, 10_000)


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def metric(inputs: int, outputs: int, seed: int = 0) -> Metric:
    """Correlated inputs, some directions a hundred times weaker than others; outputs of different worth."""
    generator = torch.Generator().manual_seed(seed)
    mixed = drawn(inputs, inputs, seed=seed) * torch.logspace(0, -1, inputs, dtype=torch.float64)
    importance = torch.rand(outputs, generator=generator, dtype=torch.float64) + 0.1
    return Metric(mixed @ mixed.T / inputs + 1e-4 * torch.eye(inputs, dtype=torch.float64), importance)


def squared(tensor: Tensor) -> float:
    return float(tensor.square().sum())


# pairs


@given(st.integers(1, 6), st.integers(1, 6), SEEDS)
def test_a_pair_of_full_rank_is_the_weights(outputs: int, inputs: int, seed: int) -> None:
    """To 1e-10, with a metric and without."""
    weight = drawn(outputs, inputs, seed=seed)
    for given_metric in (None, metric(inputs, outputs, seed)):
        found = low_rank_pair(weight, min(outputs, inputs), given_metric).composed()
        torch.testing.assert_close(found, weight, rtol=1e-10, atol=1e-10)


def test_a_plain_pair_is_the_truncated_svd_with_its_values_shared_out() -> None:
    weight = drawn(7, 5)
    left, values, right = torch.linalg.svd(weight, full_matrices=False)
    found = low_rank_pair(weight, 3)
    assert found.first.shape == (3, 5) and found.second.shape == (7, 3)
    torch.testing.assert_close(found.composed(), left[:, :3] * values[:3] @ right[:3])
    torch.testing.assert_close(found.first.norm(dim=1), values[:3].sqrt())
    torch.testing.assert_close(found.second.norm(dim=0), values[:3].sqrt())


def test_a_pair_under_a_metric_is_the_truncated_svd_of_whitened_weights() -> None:
    """By hand: F^1/2 W C^1/2 truncated, and what was multiplied taken away again."""
    weight, under = drawn(4, 6), metric(6, 4)
    root, scale = torch.linalg.cholesky(under.covariance), under.importance.sqrt()[:, None]
    left, values, right = torch.linalg.svd(scale * weight @ root, full_matrices=False)
    by_hand = left[:, :2] * values[:2] @ right[:2] @ torch.linalg.inv(root) / scale
    found = low_rank_pair(weight, 2, under)
    torch.testing.assert_close(found.composed(), by_hand, rtol=1e-7, atol=1e-9)
    assert under.error(weight - found.composed()) == pytest.approx(squared(values[2:]))


@given(st.integers(1, 6), st.integers(1, 6), SEEDS)
def test_errors_of_pairs_are_those_of_each_rank(outputs: int, inputs: int, seed: int) -> None:
    weight, under = drawn(outputs, inputs, seed=seed), metric(inputs, outputs, seed)
    errors = pair_errors(weight, under)
    assert len(errors) == min(outputs, inputs) + 1 and errors[-1] == 0
    assert float(errors[0]) == pytest.approx(under.error(weight))
    for rank in range(1, len(errors)):
        measured = under.error(weight - low_rank_pair(weight, rank, under).composed())
        assert float(errors[rank]) == pytest.approx(measured, abs=1e-9 * float(errors[0]))


def test_the_error_of_a_metric_is_the_mean_squared_output_error() -> None:
    x, difference, importance = drawn(500, 3), drawn(2, 3, seed=1), torch.tensor([2.0, 0.5], dtype=torch.float64)
    by_hand = float(((x @ difference.T).square().mean(0) * importance).sum())
    assert Metric(x.T @ x / 500, importance).error(difference) == pytest.approx(by_hand)


# sums of rank-one terms


@given(st.sampled_from([(5, 4, 9), (5, 4, 3, 3), (3, 1, 9), (6, 5, 1)]), SEEDS)
def test_each_term_takes_its_square_from_the_residual(shape: tuple[int, ...], seed: int) -> None:
    """|E_r|^2 = |E_r-1|^2 - lambda_r^2 to 1e-9 of the whole, and so it falls with each term."""
    tensor = drawn(*shape, seed=seed)
    found = power_method(tensor, 3, seed=seed)
    sizes = torch.stack([factor.norm(dim=0) for factor in found.factors])
    torch.testing.assert_close(sizes, sizes[:1].expand_as(sizes))  # the size of a term is spread evenly
    left = squared(tensor)
    for term, size in enumerate(sizes.prod(0), 1):
        first = Polyadic(tuple(factor[:, :term] for factor in found.factors))
        now = squared(tensor.flatten(1) - first.composed())
        assert now == pytest.approx(left - float(size) ** 2, abs=1e-9 * squared(tensor)) and now <= left
        left = now


@pytest.mark.parametrize("shape", [(6, 4, 9), (6, 4, 3, 3)])
def test_one_term_is_found_again(shape: tuple[int, ...]) -> None:
    whole = Polyadic(tuple(drawn(size, 1, seed=i) for i, size in enumerate(shape)))
    tensor = whole.composed().reshape(shape)
    torch.testing.assert_close(power_method(tensor, 1).composed(), whole.composed())


def test_orthogonal_terms_are_found_again_one_by_one() -> None:
    """To 1e-3: where rounds stop. Terms that are orthogonal in every mode are the tensor's local optima."""
    modes = [torch.linalg.qr(drawn(size, 3, seed=i)).Q for i, size in enumerate((6, 4, 9))]
    sizes = torch.tensor([4.0, 2.0, 1.0], dtype=torch.float64)
    whole = Polyadic((modes[0] * sizes, *modes[1:]))
    found = power_method(whole.composed().reshape(6, 4, 9), 3)
    torch.testing.assert_close(found.composed(), whole.composed(), rtol=0, atol=1e-3)
    terms = torch.stack([factor.norm(dim=0) for factor in found.factors]).prod(0)
    torch.testing.assert_close(terms.sort(descending=True).values, sizes, rtol=1e-3, atol=0)


def test_terms_of_a_matrix_are_those_of_its_svd() -> None:
    matrix = torch.diag(torch.tensor([5.0, 3.0, 1.0], dtype=torch.float64)) @ torch.linalg.qr(drawn(4, 3)).Q.T
    found = power_method(matrix[:, :, None], 2)
    assert squared(matrix - found.composed()) == pytest.approx(1.0, abs=1e-2)


def test_a_seed_gives_the_same_terms_again() -> None:
    tensor = drawn(5, 4, 9)
    one, same, other = (power_method(tensor, 3, seed=seed) for seed in (1, 1, 2))
    assert all(map(torch.equal, one.factors, same.factors)) and not torch.equal(one.factors[0], other.factors[0])


def test_products_and_terms_are_as_tensorly_has_them() -> None:
    factors = [drawn(size, 3, seed=i) for i, size in enumerate((5, 4, 2, 3))]
    torch.testing.assert_close(products(factors[1:]), khatri_rao(factors[1:]))
    whole = tensorly.cp_to_tensor((None, factors))
    torch.testing.assert_close(Polyadic(tuple(factors)).composed().reshape(5, 4, 2, 3), whole)


def test_errors_of_terms_fall_and_are_those_that_alternating_leaves() -> None:
    tensor, under = drawn(5, 3, 4), metric(12, 5)
    errors = polyadic_errors(tensor, 14, under)
    assert float(errors[0]) == pytest.approx(under.error(tensor.flatten(1)))
    assert bool((errors.diff() <= 0).all()) and float(errors[13]) <= 1e-9 * float(errors[0])
    terms, root = power_method(tensor, 14), torch.linalg.cholesky(under.covariance)
    for rank in (2, 5, 9):
        basis = products([factor[:, :rank] for factor in terms.factors[1:]])
        outputs = torch.linalg.lstsq(root.T @ basis, root.T @ tensor.flatten(1).T).solution.T
        found = under.error(tensor.flatten(1) - polyadic(tensor, rank, under).composed())
        assert float(errors[rank]) == pytest.approx(found)
        assert found < under.error(tensor.flatten(1) - outputs @ basis.T)


# Tucker's form


def test_tucker_of_full_ranks_is_the_weights() -> None:
    tensor = drawn(5, 4, 9)
    for given_metric in (None, metric(36, 5)):
        found = tucker2(tensor, (4, 5), given_metric)
        torch.testing.assert_close(found.composed(), tensor.flatten(1), rtol=1e-8, atol=1e-8)


def test_tucker_is_as_good_as_tensorly_s() -> None:
    """To 1 %: tensorly goes on until nothing changes."""
    tensor = drawn(8, 6, 9)
    (core, modes), _ = partial_tucker(tensor, rank=[4, 3], modes=[0, 1], n_iter_max=200, tol=1e-10)
    theirs = torch.einsum("qrp,oq,sr->osp", core, *modes)
    found = tucker2(tensor, (3, 4))
    assert [tuple(t.shape) for t in found.layers] == [(3, 6), (4, 3, 9), (8, 4)]
    assert squared(tensor.flatten(1) - found.composed()) <= 1.01 * squared(tensor - theirs)


def test_tucker_with_all_inputs_is_a_pair() -> None:
    tensor, under = drawn(8, 4, 9), metric(36, 8)
    for given_metric in (None, under):
        pair = low_rank_pair(tensor.flatten(1), 3, given_metric).composed()
        torch.testing.assert_close(tucker2(tensor, (4, 3), given_metric).composed(), pair, rtol=1e-6, atol=1e-8)


def test_errors_of_inputs_are_exact_where_channels_and_taps_vary_apart() -> None:
    """By hand: the leading channel directions of the weights, whitened over the channels, and then brought back."""
    tensor, channels, taps, importance = (
        drawn(5, 4, 3),
        metric(4, 1).covariance,
        metric(3, 1).covariance,
        metric(1, 5).importance,
    )
    under = Metric(torch.kron(channels, taps), importance)
    errors = input_errors(tensor, under)
    assert len(errors) == 5 and bool((errors.diff() <= 0).all()) and float(errors[4]) <= 1e-9 * float(errors[0])
    root, of_taps = torch.linalg.cholesky(channels), torch.linalg.cholesky(taps)
    whitened = torch.einsum("o,osp,st,pq->toq", importance.sqrt(), tensor, root, of_taps)
    directions = torch.linalg.svd(whitened.flatten(1)).U
    for rank in range(4):
        kept = directions[:, :rank]
        seen = root @ kept @ kept.T @ torch.linalg.inv(root)  # [S, S]
        by_hand = under.error((tensor - torch.einsum("osp,st->otp", tensor, seen)).flatten(1))
        assert float(errors[rank]) == pytest.approx(by_hand)


@given(st.integers(1, 5), st.integers(1, 4), st.integers(1, 4), SEEDS)
def test_errors_of_inputs_are_those_of_some_directions(outputs: int, inputs: int, taps: int, seed: int) -> None:
    """They fall from the whole error to nothing, and none lies below what the best weights behind any inputs leave."""
    tensor, under = drawn(outputs, inputs, taps, seed=seed), metric(inputs * taps, outputs, seed)
    errors, nothing = input_errors(tensor, under), under.error(tensor.flatten(1))
    assert float(errors[0]) == pytest.approx(nothing) and float(errors[-1]) <= 1e-9 * nothing
    assert bool((errors.diff() <= 1e-12 * nothing).all())
    if taps == 1:  # a matrix, whose columns go through a pair
        pairs = pair_errors(tensor[:, :, 0], under)
        torch.testing.assert_close(errors[: len(pairs)], pairs, rtol=1e-6, atol=1e-9 * nothing)


# what a metric is for


@given(st.integers(2, 5), st.integers(1, 4), st.integers(1, 3), st.integers(1, 4), SEEDS)
def test_under_its_metric_no_decomposition_is_worse_than_the_plain_one(
    outputs: int, inputs: int, taps: int, rank: int, seed: int
) -> None:
    """At equal rank; to 1e-6 of the error of giving nothing."""
    tensor = drawn(outputs, inputs, taps, taps, seed=seed)
    weight, under = tensor.flatten(1), metric(inputs * taps * taps, outputs, seed)
    pair_rank, both = min(rank, *weight.shape), (min(rank, inputs), min(rank, outputs))
    sides: list[tuple[Pair | Polyadic | Tucker2, Pair | Polyadic | Tucker2]] = [
        (low_rank_pair(weight, pair_rank), low_rank_pair(weight, pair_rank, under)),
        (polyadic(tensor, rank), polyadic(tensor, rank, under)),
        (polyadic(tensor.flatten(2), rank), polyadic(tensor.flatten(2), rank, under)),
        (tucker2(tensor.flatten(2), both), tucker2(tensor.flatten(2), both, under)),
    ]
    for plain, aware in sides:
        loss, nothing = under.error(weight - plain.composed()), under.error(weight)
        assert under.error(weight - aware.composed()) <= loss + 1e-6 * nothing


def test_a_metric_finds_weights_that_the_plain_error_cannot_see() -> None:
    """The larger half of the weights reads what is never there; terms under the metric keep the other half."""
    weight = torch.cat([10 * drawn(4, 4), torch.outer(drawn(4), drawn(4, seed=1))], 1)
    seen = torch.tensor([1e-6] * 4 + [1.0] * 4, dtype=torch.float64)
    under = Metric(torch.diag(seen), torch.ones(4, dtype=torch.float64))
    nothing = under.error(weight)
    assert under.error(weight - low_rank_pair(weight, 1).composed()) > 0.5 * nothing
    assert under.error(weight - low_rank_pair(weight, 1, under).composed()) < 1e-3 * nothing


@pytest.mark.parametrize("rank", [1, 3])
def test_weights_of_nothing_but_zeros_stay_zeros(rank: int) -> None:
    tensor, under = torch.zeros(4, 3, 9, dtype=torch.float64), metric(27, 4)
    for given_metric in (None, under):
        for found in (
            low_rank_pair(tensor.flatten(1), rank, given_metric),
            polyadic(tensor, rank, given_metric),
            tucker2(tensor, (rank, rank), given_metric),
        ):
            assert squared(found.composed()) == 0
