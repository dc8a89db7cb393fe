from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from slimwright.errors import DataError
from slimwright.importers import capture
from slimwright.techniques import ridge as ridge_module
from slimwright.techniques.solver.ridge import LayerRidge


def test_rounding_that_exceeds_the_ridge_does_not_end_the_solution() -> None:
    """One signal, far from zero, in every channel."""
    generator = torch.Generator().manual_seed(0)
    common = 5 * torch.randn(100, 1, 1, 1, generator=generator)
    shares, noise = torch.rand(1, 80, 1, 1, generator=generator), torch.randn(100, 80, 2, 2, generator=generator)
    images = 20 + common * shares + 0.1 * noise
    net = capture(nn.Sequential(nn.Conv2d(80, 2, 5, padding=2), nn.Flatten()).eval(), (80, 2, 2))
    conv = next(iter(net.weighted()))
    wanted = common.expand(100, 2, 2, 2)
    ridge = LayerRidge(net, conv, images.split(32))
    weight, bias = ridge.solve(wanted.split(32), torch.zeros(2, 80 * 25))
    made = nn.functional.conv2d(images, weight.reshape(2, 80, 5, 5), bias, padding=2)
    assert (made - wanted).square().mean() < 1e-2 * wanted.square().mean()


def judged(noise: float) -> tuple[Tensor, Tensor, Tensor]:
    """Forty images for a linear layer of sixty weights; what it reads falls off fast. Start, found and true weights."""
    generator = torch.Generator().manual_seed(1)
    scales = torch.logspace(0, -2, 60)
    images = (torch.randn(40, 60, generator=generator) * scales)[:, :, None, None]
    net = capture(nn.Sequential(nn.Flatten(), nn.Linear(60, 2)).eval(), (60, 1, 1))
    layer = next(iter(net.weighted()))
    inputs = [images.flatten(1)]
    start, true = torch.zeros(2, 60), torch.randn(2, 60, generator=generator)
    wanted = inputs[0] @ true.T * (1 - noise) + noise * torch.randn(40, 2, generator=generator)
    ridge = LayerRidge(net, layer, inputs)
    assert ridge.thin
    weight, _ = ridge.solve([wanted], start)
    return start, weight, true


def test_few_images_solve_what_they_can_tell() -> None:
    """On fresh images nearly all of the variance is there: the error is below 3 % of it."""
    _, weight, true = judged(noise=0.0)
    fresh = torch.randn(500, 60, generator=torch.Generator().manual_seed(2)) * torch.logspace(0, -2, 60)
    assert (fresh @ (weight - true).T).square().mean() < 0.03 * (fresh @ true.T).square().mean()


def test_few_images_of_noise_leave_the_weights() -> None:
    start, weight, _ = judged(noise=1.0)
    assert torch.equal(weight, start)


# by hand


@dataclass(frozen=True)
class Problem:
    """A convolution of two groups, two 2x2 channels to three outputs each, on images whose groups differ in scale."""

    images: Tensor
    start: Tensor  # [6, 8]
    wanted: Tensor  # [N, 6, H, W]

    def ridge(self, batch: int = 32) -> LayerRidge:
        layer = nn.Conv2d(4, 6, 2, stride=2, groups=2)
        net = capture(nn.Sequential(layer, nn.Flatten()).eval(), tuple(self.images.shape[1:]))
        return LayerRidge(net, next(iter(net.weighted())), self.images.split(batch))

    def solved(self, batch: int = 32) -> tuple[Tensor, Tensor]:
        return self.ridge(batch).solve(self.wanted.split(batch), self.start)

    def groups(self) -> list[tuple[Tensor, Tensor, Tensor]]:
        """Of each group what is read [P, D] and wanted [P, O], and the start [O, D], in float64."""
        reads = [F.unfold(part.double(), 2, stride=2).transpose(1, 2).flatten(0, 1) for part in self.images.chunk(2, 1)]
        wishes = [part.double().movedim(1, -1).flatten(0, -2) for part in self.wanted.chunk(2, 1)]
        return list(zip(reads, wishes, self.start.double().chunk(2), strict=True))


def problem(images: int, size: int = 4, *, noise: float = 1.0, seed: int = 0, decay: float = 0.0) -> Problem:
    """`decay` is by how many powers of ten the scale of what is read falls from the first pixel to the last."""
    generator = torch.Generator().manual_seed(seed)
    scale = torch.tensor([1.0, 1.0, 5.0, 5.0])[:, None, None] * torch.logspace(0, -decay, size * size).view(size, size)
    x = torch.randn(images, 4, size, size, generator=generator) * scale + torch.tensor([3.0, -2, 1, 0])[:, None, None]
    start, true = torch.randn(6, 8, generator=generator), torch.randn(6, 2, 2, 2, generator=generator)
    wanted = F.conv2d(x, true, torch.arange(6.0), stride=2, groups=2)
    return Problem(x, start, wanted + noise * torch.randn(wanted.shape, generator=generator))


def by_hand(x: Tensor, y: Tensor, start: Tensor, ridge: float) -> tuple[Tensor, Tensor]:
    """Ridge least squares as a system of equations: `ridge` is a share of the mean variance."""
    mean, aim = x.mean(0), y.mean(0)
    covariance, size = (x - mean).T @ (x - mean) / len(x), x.shape[1]
    r = ridge * covariance.diagonal().mean()
    weight = torch.linalg.solve(
        covariance + r * torch.eye(size).double(), (x - mean).T @ (y - aim) / len(x) + r * start.T
    ).T
    return weight, aim - weight @ mean


def test_the_solution_is_that_of_the_normal_equations_with_a_ridge_for_each_group() -> None:
    """The ridge is 0.003 of the group's mean variance; to 1e-4."""
    few = problem(30)
    weight, bias = few.solved(batch=7)
    for number, group in enumerate(few.groups()):
        rows = slice(3 * number, 3 * number + 3)
        wanted = by_hand(*group, 3e-3)
        torch.testing.assert_close((weight[rows], bias[rows]), tuple(w.float() for w in wanted), rtol=1e-4, atol=1e-4)
        assert not torch.allclose(weight[rows], by_hand(*group, 6e-3)[0].float(), rtol=1e-4, atol=1e-4)


def test_batches_and_parts_of_batches_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    """To 1e-5: with enough positions, and with few."""
    for images in (30, 3):
        every = problem(images)
        whole = every.solved()
        monkeypatch.setattr(ridge_module, "MOST_ELEMENTS", 1)
        torch.testing.assert_close(every.solved(batch=2), whole, rtol=1e-5, atol=1e-5)
        monkeypatch.undo()


@pytest.mark.parametrize(("images", "thin"), [(15, True), (16, False)])  # of one position each, for 8 weights
def test_a_problem_is_thin_below_two_positions_for_a_weight(images: int, thin: bool) -> None:
    ridge = problem(images, size=2).ridge()
    assert ridge.positions == images and ridge.thin is thin
    assert problem(images, size=4).ridge().positions == 4 * images


@pytest.mark.parametrize("images", [12, 40])
@pytest.mark.parametrize("value", [0.0, 2.5])
def test_where_nothing_varies_the_weights_stay_and_the_bias_is_solved(images: int, value: float) -> None:
    still = problem(images, size=2)
    still = replace(still, images=value * torch.ones(4)[:, None, None].expand(images, 4, 2, 2))
    weight, bias = still.solved()
    torch.testing.assert_close(weight, still.start, rtol=1e-4, atol=1e-4)
    made = F.conv2d(still.images[:1], weight.reshape(6, 2, 2, 2), bias, stride=2, groups=2)
    torch.testing.assert_close(made, still.wanted.mean(0, keepdim=True), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("images", [12, 40])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_no_number_is_told_of(images: int, value: float) -> None:
    whole = problem(images, size=2)
    x, y = whole.images.clone(), whole.wanted.clone()
    x[5, 1, 0, 0] = y[5, 1] = value
    for broken in (replace(whole, images=x), replace(whole, wanted=y)):
        with pytest.raises(DataError, match="NaN or infinite"):
            broken.solved()


# few positions: cross-validation


def judged_by_hand(few: Problem) -> tuple[list[Tensor], float | None, bool]:
    """The weights of the groups, the ridge that is expected to err least, and if a smaller one was left out for that.

    Golub, Heath and Wahba's residual / (1 - freedom / images)^2, of all outputs together; freedom is the mean of the
    groups' and one for the bias. Ridges with more freedom than nine tenths of the images are left out.
    """
    groups, images = few.groups(), len(few.images)
    best, chosen, bounded = [start for _, _, start in groups], None, False
    least = sum(float((y - x @ w.T).var(0, correction=0).sum()) for x, y, w in groups)
    for half in range(-8, 7):
        ridge = 10.0 ** (half / 2)
        found, freedom, left = [], 1.0, 0.0
        for x, y, start in groups:
            weight, bias = by_hand(x, y, start, ridge)
            values = torch.linalg.eigvalsh(x.T.cov(correction=0))
            freedom += float((values / (values + ridge * values.mean())).sum()) / len(groups)
            left += float((y - x @ weight.T - bias).square().mean(0).sum())
            found.append(weight)
        expected = left / (1 - freedom / images) ** 2
        bounded |= freedom >= 0.9 * images and expected < least
        if freedom < 0.9 * images and expected < least:
            best, chosen, least = found, ridge, expected
    return best, chosen, bounded


@pytest.mark.parametrize(
    ("given", "ridge"),
    [
        ({"images": 8, "size": 2, "noise": 0.0}, 10.0**-1.5),
        ({"images": 9, "size": 2, "noise": 0.0}, 10.0**-2.0),
        ({"images": 12, "size": 2, "noise": 0.5}, 10.0**-3.0),
        ({"images": 12, "size": 2, "noise": 10.0}, 10.0**-0.5),
        ({"images": 3, "size": 4, "noise": 1.0, "decay": 2.0}, None),
    ],
)
def test_few_positions_take_the_ridge_that_cross_validation_finds(given: dict[str, float], ridge: float | None) -> None:
    few = problem(**given)  # type: ignore[arg-type]
    assert few.ridge().thin
    weights, chosen, bounded = judged_by_hand(few)
    assert chosen == ridge and bounded is (given["noise"] == 0 or chosen is None)
    weight, bias = few.solved()
    torch.testing.assert_close(weight, torch.cat(weights).float(), rtol=1e-3, atol=1e-3)
    means = [y.mean(0) - w @ x.mean(0) for (x, y, _), w in zip(few.groups(), weights, strict=True)]
    torch.testing.assert_close(bias, torch.cat(means).float(), rtol=1e-3, atol=1e-3)


# factors


@pytest.mark.parametrize("scale", [[1.0] * 5, [10.0, 1, 0.1, 2, 0.03], [10.0, 1e-2, 1e-3, 1e-6, 0], [0.0] * 5])
def test_factors_are_the_leading_directions_of_what_outputs_count(scale: list[float]) -> None:
    """By hand: the truncated SVD of S W C^1/2, S not below a thousandth of its largest, or one where all are zero."""
    generator = torch.Generator().manual_seed(0)
    x, weight = torch.randn(60, 6, generator=generator), torch.randn(5, 6, generator=generator)
    x = x @ torch.diag(torch.tensor([3.0, 2, 1, 0.5, 0.2, 0.1])) + 4
    net = capture(nn.Sequential(nn.Flatten(), nn.Linear(6, 5)).eval(), (6, 1, 1))
    ridge = LayerRidge(net, next(iter(net.weighted())), x.split(32))
    size = torch.tensor([max(s, 1e-3 * max(scale)) or 1.0 for s in scale], dtype=torch.float64)[:, None]
    root = torch.linalg.cholesky(x.double().T.cov(correction=0))
    for rank in (1, 3, 5):
        first, last = ridge.factors(weight, torch.tensor(scale), rank)
        assert first.shape == (rank, 6) and last.shape == (5, rank)
        left, values, right = torch.linalg.svd(size * weight.double() @ root, full_matrices=False)
        wanted = left[:, :rank] * values[:rank] @ right[:rank] @ torch.linalg.inv(root) / size
        error = (size * ((last @ first).double() - wanted) @ root).norm() / (size * wanted @ root).norm()
        assert float(error) < 1e-5
