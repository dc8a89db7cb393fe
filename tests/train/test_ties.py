"""Zeros stay zero and equal weights stay equal, whatever the optimizer carries."""

import pytest
import torch
from torch import nn

from slimwright.train import FREE, ZERO, equals_of, tie, tied, zeros_of


def test_codes_are_found_from_values() -> None:
    weight = torch.tensor([[0.0, 2.0, -1.0], [2.0, -0.0, 3.0]])
    assert zeros_of(weight).tolist() == [[ZERO, FREE, FREE], [FREE, ZERO, FREE]]
    codes = equals_of(weight)
    assert codes[0, 1] == codes[1, 0] and len({int(c) for c in codes.flatten()}) == 4
    assert codes[0, 0] == codes[1, 1] == ZERO


def test_values_are_projected_onto_what_the_codes_leave_free() -> None:
    codes = torch.tensor([ZERO, 1, 1, FREE, 2])
    assert tied(torch.tensor([5.0, 1.0, 3.0, 7.0, 9.0]), codes).tolist() == [0.0, 2.0, 2.0, 7.0, 9.0]


@pytest.mark.parametrize("optimizer", [
    lambda some: torch.optim.SGD(some, 0.1, momentum=0.9, weight_decay=0.01, nesterov=True),
    lambda some: torch.optim.Adam(some, 0.05),
])  # fmt: skip
def test_optimizers_keep_what_is_tied(optimizer: object) -> None:
    """Equal weights stay equal to 1e-6; and without ties they do not."""
    codes = torch.tensor([[ZERO, 1, 1, 2], [2, 2, FREE, ZERO]])
    start = torch.tensor([[0.0, 0.5, 0.5, -1.0], [-1.0, -1.0, 0.25, 0.0]])
    x = torch.randn(32, 4, generator=torch.Generator().manual_seed(0))
    found = {}
    for are_tied in (True, False):
        layer = nn.Linear(4, 2, bias=False)
        layer.weight = nn.Parameter(start.clone())
        if are_tied:
            tie(layer.weight, codes)
        descent = optimizer([layer.weight])  # type: ignore[operator]
        for _ in range(20):
            descent.zero_grad()
            (layer(x) - x[:, :2].sin()).square().mean().backward()
            descent.step()
        found[are_tied] = layer.weight.detach()
    kept = found[True]
    assert (kept[codes == ZERO] == 0).all() and not (found[False] == 0).any()
    assert torch.allclose(kept, tied(kept, codes), atol=1e-6)
    assert not torch.allclose(found[False], tied(found[False], codes), atol=1e-2)
    assert not torch.allclose(kept, start, atol=1e-2)
