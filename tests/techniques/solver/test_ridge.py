"""Least squares on inputs whose moments are rounded: one signal, far from zero, in every channel."""

import torch
from torch import Tensor, nn

from slimwright.evidence import columns
from slimwright.graph.net import Net
from slimwright.importers import capture
from slimwright.techniques.solver.ridge import LayerRidge


def solved(net: Net, images: Tensor, wanted: Tensor, start: Tensor) -> tuple[LayerRidge, Tensor, Tensor]:
    """The problem of a net's one layer on these images, and weight and bias for the outputs [P, O]."""
    layer = next(iter(net.weighted()))
    ridge = LayerRidge(columns(net, layer, images).permute(1, 2, 0).clone(), len(images))
    rest = wanted.T - ridge.outputs(start)
    weight = start + ridge.change(rest)
    return ridge, weight, rest.mean(1) - ridge.level(weight)


def test_rounding_that_exceeds_the_ridge_does_not_end_the_solution() -> None:
    generator = torch.Generator().manual_seed(0)
    common = 5 * torch.randn(100, 1, 1, 1, generator=generator)
    shares, noise = torch.rand(1, 80, 1, 1, generator=generator), torch.randn(100, 80, 2, 2, generator=generator)
    images = 20 + common * shares + 0.1 * noise
    net = capture(nn.Sequential(nn.Conv2d(80, 2, 5, padding=2), nn.Flatten()).eval(), (80, 2, 2))
    wanted = common.expand(100, 2, 2, 2)
    _, weight, bias = solved(net, images, wanted.movedim(1, 3).reshape(-1, 2), torch.zeros(2, 80 * 25))
    made = nn.functional.conv2d(images, weight.reshape(2, 80, 5, 5), bias, padding=2)
    assert (made - wanted).square().mean() < 1e-2 * wanted.square().mean()


def judged(noise: float) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Forty images for a linear layer of sixty weights; what it reads falls off fast. Start, found and true weights."""
    generator = torch.Generator().manual_seed(1)
    scales = torch.logspace(0, -2, 60)
    images = (torch.randn(40, 60, generator=generator) * scales)[:, :, None, None]
    net = capture(nn.Sequential(nn.Flatten(), nn.Linear(60, 2)).eval(), (60, 1, 1))
    inputs = images.flatten(1)
    start, true = torch.zeros(2, 60), torch.randn(2, 60, generator=generator)
    wanted = inputs @ true.T * (1 - noise) + noise * torch.randn(40, 2, generator=generator)
    ridge, weight, _ = solved(net, inputs, wanted, start)
    assert ridge.thin
    return start, weight, true


def test_few_images_solve_what_they_can_tell() -> None:
    """On fresh images nearly all of the variance is there: the error is below 3 % of it."""
    _, weight, true = judged(noise=0.0)
    fresh = torch.randn(500, 60, generator=torch.Generator().manual_seed(2)) * torch.logspace(0, -2, 60)
    assert (fresh @ (weight - true).T).square().mean() < 0.03 * (fresh @ true.T).square().mean()


def test_few_images_of_noise_leave_the_weights() -> None:
    start, weight, _ = judged(noise=1.0)
    assert torch.equal(weight, start)
