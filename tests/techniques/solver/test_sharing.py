"""Codebooks: k-means as published, and codes and values that together err least in the outputs."""

import itertools

import pytest
import torch
from torch import Tensor

from column_problems import covariance, weights
from slimwright.techniques.solver import held
from slimwright.techniques.solver.held import on_codes
from slimwright.techniques.solver.sharing import Shared, Start, codebook

STARTS: tuple[Start, ...] = ("linear", "density", "forgy")


def error(made: Tensor, weight: Tensor, curvature: Tensor, importance: Tensor) -> float:
    groups, size, _ = curvature.shape
    lacking = (weight - made).double().reshape(groups, -1, size)
    errors = ((lacking @ curvature) * lacking).sum(2).flatten()
    return float((errors * importance.double()).sum())


def spread(values: Tensor, mass: Tensor, centroids: Tensor) -> float:
    return float(((values[:, None] - centroids).square().amin(1) * mass).sum())


def test_starts_are_those_of_the_paper() -> None:
    values = torch.tensor([-1.0, -0.1, 0.0, 0.0, 0.1, 3.0], dtype=torch.float64)
    free = torch.zeros(6, dtype=torch.float64)  # nothing weighs: centroids stay where they begin
    assert codebook(values, free, 3, "linear").tolist() == [-1.0, 1.0, 3.0]
    assert codebook(values, free, 3, "density").tolist() == [-0.1, 0.0, 3.0]
    assert set(codebook(values, free, 3, "forgy", 1).tolist()) <= set(values.tolist())
    assert codebook(values, free, 3, "forgy", 1).tolist() != codebook(values, free, 3, "forgy", 2).tolist()


@pytest.mark.parametrize("start", STARTS)
def test_k_means_ends_where_every_centroid_is_the_mean_of_its_cluster(start: Start) -> None:
    values, mass = weights(1, 300, 0)[0].double(), torch.rand(300, generator=torch.Generator().manual_seed(1)).double()
    found = codebook(values, mass, 7, start)
    nearest = (values[:, None] - found).abs().argmin(1)
    for number, centroid in enumerate(found):
        own = nearest == number
        assert float((values[own] * mass[own]).sum() / mass[own].sum()) == pytest.approx(float(centroid), abs=1e-9)


def test_k_means_is_near_the_best_of_all_partitions() -> None:
    """The best is a cut of the sorted values: of all of them, within a twentieth in the sum over twenty draws."""
    ours = best = 0.0
    for seed in range(20):
        values, mass = weights(1, 12, seed)[0].double(), weights(1, 12, seed + 50)[0].double().square()
        ours += min(spread(values, mass, codebook(values, mass, 3, start)) for start in STARTS)
        values, order = values.sort()
        cuts = []
        for low, high in itertools.combinations(range(1, 12), 2):
            parts = zip(values.tensor_split((low, high)), mass[order].tensor_split((low, high)), strict=True)
            means = torch.stack([(part * of).sum() / of.sum() for part, of in parts])
            cuts.append(spread(values, mass[order], means))
        best += min(cuts)
    assert best - 1e-9 <= ours <= 1.05 * best


def test_a_few_weights_share_nearly_the_best_two_values() -> None:
    """Of all 64 codes with their least squares, within a tenth in the sum over twenty rows."""
    ours = best = 0.0
    one = torch.ones(1)
    for seed in range(20):
        weight, curvature = weights(1, 6, seed), covariance(1, 6, seed + 100)
        made = Shared(2, one, "density").nearest(weight, curvature)
        assert len(made.unique()) <= 2
        ours += error(made, weight, curvature, one)
        every = [torch.tensor(codes)[None] for codes in itertools.product((1, 2), repeat=6)]
        best += min(error(on_codes(weight, curvature, codes, one), weight, curvature, one) for codes in every)
    assert best - 1e-6 <= ours <= 1.1 * best


@pytest.mark.parametrize("zeros", [False, True])
def test_many_values_are_solved_by_gradients_as_few_are(zeros: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Up to 1e-4 of the largest weight, as the normal equations that are never made say."""
    weight, curvature = weights(12, 30, 1), covariance(2, 30, 2)
    importance = torch.rand(12, generator=torch.Generator().manual_seed(3)) + 0.1
    codes = torch.randint(0 if zeros else 1, 60, (12, 30), generator=torch.Generator().manual_seed(4))
    wanted = on_codes(weight, curvature, codes, importance)
    monkeypatch.setattr(held, "MOST_VALUES", 8)
    found = on_codes(weight, curvature, codes, importance)
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-4 * float(wanted.abs().max()))
    assert not zeros or not found[codes == 0].any()


@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize("bits", [1, 2, 4])
def test_values_are_few_and_err_less_than_plain_k_means(start: Start, bits: int) -> None:
    """In the sum over ten layers: with density as a start a few far weights may err more, as the paper says."""
    ours = others = 0.0
    for seed in range(10):
        weight, curvature = weights(8, 20, seed), covariance(2, 20, seed + 50)
        importance = torch.rand(8, generator=torch.Generator().manual_seed(seed)) + 0.1
        made = Shared(2**bits, importance, start).nearest(weight, curvature)
        assert len(made.unique()) <= 2**bits and made.dtype == torch.float32
        plain = codebook(weight.flatten().double(), torch.ones(160, dtype=torch.float64), 2**bits, start)
        nearest = plain[(weight.double()[:, :, None] - plain).abs().argmin(2)].float()
        ours += error(made, weight, curvature, importance)
        others += error(nearest, weight, curvature, importance)
    assert ours < 0.9 * others


def test_zeros_stay_and_are_one_of_the_values() -> None:
    weight, curvature = weights(4, 20, 3), covariance(1, 20, 4)
    zero = torch.rand(weight.shape, generator=torch.Generator().manual_seed(6)) < 0.7
    made = Shared(4, torch.ones(4), zero=zero).nearest(weight.masked_fill(zero, 0.0), curvature)
    assert torch.equal(made == 0, zero) and len(made.unique()) <= 4
    none = Shared(4, torch.ones(4), zero=torch.ones_like(zero)).nearest(weight, curvature)
    assert not none.any()


def test_enough_values_leave_the_weights_as_they_are() -> None:
    weight, curvature = weights(2, 4, 3), covariance(1, 4, 4)
    made = Shared(8, torch.ones(2), "density").nearest(weight, curvature)
    assert torch.allclose(made, weight, atol=1e-5)
