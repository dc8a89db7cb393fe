"""Least squares on inputs whose moments are rounded: one signal, far from zero, in every channel."""

import torch
from torch import nn

from slimwright.graph import capture
from slimwright.rewrites.ridge import LayerRidge


def test_rounding_that_exceeds_the_ridge_does_not_end_the_solution() -> None:
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
