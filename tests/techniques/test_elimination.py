import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from slimwright.techniques.elimination import Floats, elimination, inverted


def problem(outputs: int, blocks: int, width: int, seed: int) -> tuple[Floats, Floats, np.ndarray]:
    """Weights, a covariance of columns that are correlated, and blocks of columns that lie scattered among others."""
    rng = np.random.default_rng(seed)
    columns = blocks * width + 2
    mixed = rng.standard_normal((columns, columns))
    places = rng.permutation(columns)[: blocks * width].reshape(blocks, width)
    return rng.standard_normal((outputs, columns)), mixed @ mixed.T / columns + 0.1 * np.eye(columns), places


def by_hand(weight: Floats, covariance: Floats, gone: list[int]) -> float:
    """The squared output error when the other columns make up for some: least squares under the covariance."""
    left = [column for column in range(len(covariance)) if column not in gone]
    if not left:
        return float(np.einsum("od,de,oe->", weight, covariance, weight))
    fitted = np.linalg.solve(covariance[np.ix_(left, left)], covariance[left] @ weight.T).T
    difference = weight.copy()
    difference[:, left] -= fitted
    return float(np.einsum("od,de,oe->", difference, covariance, difference))


@given(st.integers(1, 9), st.integers(2, 6), st.integers(1, 3), st.integers(0, 1000))
def test_what_blocks_cost_one_after_the_other_is_least_squares(
    outputs: int, blocks: int, width: int, seed: int
) -> None:
    """To 1e-8 of the error of giving nothing; whatever the order, and however many are looked at between two looks."""
    rng = np.random.default_rng(seed)
    weight, covariance, places = problem(outputs, blocks, width, seed)
    nothing = by_hand(weight, covariance, list(range(len(covariance))))
    found = elimination(weight.copy(), inverted(covariance, 0.0), places)
    gone: list[int] = []
    total = 0.0

    def check(losses: Floats, blocks: set[int]) -> None:
        for other, loss in enumerate(losses):
            if other in blocks:
                wanted = by_hand(weight, covariance, [*gone, *places[other].tolist()]) - total
                assert loss == pytest.approx(wanted, abs=1e-8 * nothing)
            else:
                assert loss == np.inf

    left, seen = rng.permutation(blocks).tolist(), set[int]()
    while left:
        if left[0] not in seen:
            check(found.losses(), set(left))
            seen = {left[0], *rng.permutation(left)[: rng.integers(blocks)].tolist()}
            found.look_at(np.array(sorted(seen)))
        losses = found.losses_seen()
        check(losses, seen)
        block = left.pop(0)
        total += losses[block]
        gone += places[block].tolist()
        found.eliminate(block)
        seen.remove(block)


@given(st.integers(1, 12), st.integers(0, 1000))
def test_an_inverse_is_right_above_the_diagonal(size: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    mixed = rng.standard_normal((size, size))
    covariance = mixed @ mixed.T + 0.1 * np.eye(size)
    before = covariance.copy()
    above = np.triu_indices(size)
    by_numpy = np.linalg.inv(covariance + 0.5 * np.eye(size))
    np.testing.assert_allclose(inverted(covariance, 0.5)[above], by_numpy[above], rtol=1e-8, atol=1e-10)
    assert np.array_equal(covariance, before)


def test_what_rounding_made_indefinite_gets_a_larger_ridge() -> None:
    covariance = np.diag([1.0, -5e-3, 2.0])
    found = inverted(covariance, 1e-3)
    np.testing.assert_allclose(found.diagonal(), 1 / (covariance.diagonal() + 1e-2))
