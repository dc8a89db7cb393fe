"""Zeros in a layer's weights: the pattern as asked for, and the rest makes up for it as well as it can."""

import itertools
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from column_problems import covariance, error, weights
from slimwright.techniques.solver.held import Held, on_codes, on_support
from slimwright.techniques.solver.sparsity import Pattern, Sparse, by_magnitude, price_for
from slimwright.train import FREE, ZERO


def whole_blocks(made: Tensor, pattern: Pattern, taps: int) -> Tensor:
    """Which weights [O/rows, rows, C/columns, columns, taps] are zero."""
    zero = (made == 0).unflatten(1, (-1, taps)).unflatten(0, (-1, pattern.rows))
    return torch.as_tensor(zero.unflatten(2, (-1, pattern.columns)))


@pytest.mark.parametrize("groups", [1, 3])
def test_what_is_left_is_the_least_squares_of_its_support(groups: int) -> None:
    weight, curvature = weights(2 * groups, 9, 0), covariance(groups, 9, 1)
    kept = torch.rand(weight.shape, generator=torch.Generator().manual_seed(2)) < 0.5
    kept[0] = False
    made = on_support(weight, curvature, kept)
    assert torch.equal(made != 0, kept)
    root = torch.linalg.cholesky(curvature).mT
    for row in range(len(weight)):
        of = root[row // 2]
        expected = torch.linalg.lstsq(of[:, kept[row]], of @ weight[row].double()).solution
        assert torch.allclose(made[row, kept[row]].double(), expected, atol=1e-5)


def test_weights_of_one_code_are_the_least_squares_of_the_table() -> None:
    weight, curvature = weights(4, 6, 0), covariance(2, 6, 1)
    importance = torch.tensor([1.0, 2.0, 0.5, 3.0])
    codes = torch.randint(ZERO, 4, weight.shape, generator=torch.Generator().manual_seed(2))
    made = on_codes(weight, curvature, codes, importance)
    rows = []
    for row in range(4):
        root = torch.linalg.cholesky(curvature[row // 2]).mT * float(importance[row]) ** 0.5
        rows.append((root @ torch.nn.functional.one_hot(codes[row], 4).double()[:, 1:], root @ weight[row].double()))
    table = torch.linalg.lstsq(torch.cat([a for a, _ in rows]), torch.cat([b for _, b in rows])).solution
    assert torch.allclose(made.double(), torch.cat([torch.zeros(1), table])[codes], atol=1e-5)


def test_what_is_held_keeps_its_zeros_and_its_equal_values() -> None:
    weight, curvature = weights(3, 5, 0), covariance(1, 5, 1)
    zeros = torch.where(weight > 0, FREE, ZERO)
    assert torch.equal(Held(zeros).nearest(weight, curvature) != 0, zeros == FREE)
    equal = 1 + (weight > 0).long()
    assert len(Held(equal).nearest(weight, curvature).unique()) == 2
    free = torch.full(weight.shape, FREE)
    assert torch.allclose(Held(free).nearest(weight, curvature), weight, atol=1e-5)


def patterns_of(columns: int) -> Iterator[Tensor]:
    """All ways to keep two of four in each four columns."""
    ways = list(itertools.combinations(range(4), 2))
    for chosen in itertools.product(ways, repeat=columns // 4):
        kept = torch.zeros(columns, dtype=torch.bool)
        for start, way in enumerate(chosen):
            kept[[4 * start + place for place in way]] = True
        yield kept


def test_two_of_four_are_nearly_the_best_of_all_patterns() -> None:
    """A local optimum: the error is within a tenth of the best of 36 patterns, in the sum over forty rows."""
    ours, best = [], []
    for seed in range(40):
        weight, curvature = weights(1, 8, seed), covariance(1, 8, seed + 100)
        made = Sparse(Pattern(1, 4, 2), torch.ones(1)).nearest(weight, curvature)
        assert ((made != 0).unflatten(1, (-1, 4)).sum(2) == 2).all()
        ours.append(error(made, weight, curvature))
        every = [on_support(weight, curvature, kept[None]) for kept in patterns_of(8)]
        best.append(min(error(one, weight, curvature) for one in every))
        assert best[-1] - 1e-6 <= ours[-1]
    assert sum(ours) <= 1.1 * sum(best)


def test_half_of_the_weights_are_nearly_the_best_half() -> None:
    """A local optimum: the error is within a quarter of the best of 70 patterns, in the sum over thirty rows."""
    ours, best = [], []
    for seed in range(30):
        weight, curvature = weights(1, 8, seed), covariance(1, 8, seed + 100)
        made = Sparse(Pattern(), torch.ones(1), zeros=4).nearest(weight, curvature)
        assert int((made == 0).sum()) == 4
        ours.append(error(made, weight, curvature))
        every = []
        for chosen in itertools.combinations(range(8), 4):
            kept = torch.zeros(1, 8, dtype=torch.bool)
            kept[0, list(chosen)] = True
            every.append(error(on_support(weight, curvature, kept), weight, curvature))
        best.append(min(every))
    assert sum(ours) <= 1.25 * sum(best)


@pytest.mark.parametrize("pattern", [Pattern(), Pattern(4, 1), Pattern(1, 4), Pattern(2, 2), Pattern(1, 4, 1)])
@pytest.mark.parametrize(("groups", "taps"), [(1, 1), (2, 9)])
def test_every_pattern_is_kept_to_the_block(pattern: Pattern, groups: int, taps: int) -> None:
    weight, curvature = weights(8 * groups, 8 * taps, 3), covariance(groups, 8 * taps, 4)
    zeros = weight.numel() * 3 // 4
    made = Sparse(pattern, torch.ones(len(weight)), taps, zeros).nearest(weight, curvature)
    small = by_magnitude(weight, pattern, taps, zeros)
    for one in (made, small):
        assert int((one == 0).sum()) == zeros
        together = whole_blocks(one, pattern, taps)
        if pattern.kept is None:
            assert torch.equal(together.any(3).any(1), together.all(3).all(1))
        else:
            assert (together.sum(3) == 3).all()
    assert torch.equal(small[small != 0], weight[small != 0])
    assert error(made, weight, curvature) < error(small, weight, curvature)


def test_outputs_that_matter_more_keep_more() -> None:
    weight, curvature = weights(1, 40, 2).repeat(2, 1), covariance(1, 40, 2)
    made = Sparse(Pattern(), torch.tensor([1.0, 0.01]), zeros=40).nearest(weight, curvature)
    much, little = ((row != 0).sum() for row in made)
    assert much > 2 * little


def test_layers_that_cannot_have_a_pattern_are_told() -> None:
    assert Pattern(1, 4, 2).misfit((16, 3, 3, 3), 1) == "its 3 input channels in a group are not a multiple of 4"
    assert Pattern(4, 1).misfit((6, 8, 1, 1), 2) == "its 3 outputs in a group are not a multiple of 4"
    assert not Pattern().misfit((6, 1, 3, 3), 6)


def test_a_price_is_found_from_either_side() -> None:
    for start in (1e-9, 1.0, 1e9):
        found = price_for(lambda price: round(1000 * price / (1 + price)), 600, 1000, start)
        assert found == pytest.approx(1.5, rel=0.1)


@pytest.mark.parametrize("found", [0, 1000])
def test_a_number_that_no_price_meets_ends_with_a_price(found: int) -> None:
    assert 0 < price_for(lambda _: found, 500, 1000, 1e-6) < float("inf")
