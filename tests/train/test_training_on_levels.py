"""Weights that are trained stay on their levels, and cross over where what pulls at them adds up."""

import pytest
import torch
from torch import Tensor, nn

from slimwright.train import keep_on_levels, settle_on_levels, tie, zeros_of

SCALE = torch.tensor([0.5, 0.25, 0.0])


def layer(most: int, *, binary: bool = False) -> nn.Linear:
    """Three outputs on levels of the scales above, the last one of zeros."""
    made = nn.Linear(6, 3, bias=False)
    low = 1 if binary else 0
    whole = torch.randint(low, most + 1, (3, 6), generator=torch.Generator().manual_seed(0)).float()
    signs = torch.randint(0, 2, (3, 6), generator=torch.Generator().manual_seed(1)) * 2 - 1
    made.weight = nn.Parameter(whole * signs * SCALE[:, None])
    return made


def scale_of(made: nn.Linear) -> nn.Parameter:
    return made.get_parameter("parametrizations.weight.0.scale")


def whole_of(weight: Tensor, scale: Tensor) -> Tensor:
    return weight / torch.where(scale == 0, 1.0, scale)[:, None]


@pytest.mark.parametrize(("most", "binary"), [(1, True), (1, False), (7, False)])
def test_training_keeps_weights_on_levels_and_learns(most: int, binary: bool) -> None:
    made, start = layer(most, binary=binary), layer(most, binary=binary).weight.detach()
    keep_on_levels(made, SCALE, most, binary=binary)
    assert torch.equal(made.weight, start)  # they stood on levels
    x = torch.randn(200, 6, generator=torch.Generator().manual_seed(2))
    wanted = x @ torch.randn(6, 3, generator=torch.Generator().manual_seed(3))
    descent = torch.optim.SGD(made.parameters(), 0.02, momentum=0.9)
    losses = []
    for _ in range(300):
        descent.zero_grad()
        loss = (made(x) - wanted).square().mean()
        loss.backward()
        descent.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.8 * losses[0]
    scale = scale_of(made).detach().abs()
    settle_on_levels(made)
    whole = whole_of(made.weight.detach(), scale.flatten())
    assert torch.equal(whole.round() * scale, made.weight.detach())
    assert float((whole - whole.round()).abs().max()) < 1e-5 and int(whole.round().abs().max()) <= most
    assert not binary or set(whole[:2].round().flatten().tolist()) == {-1.0, 1.0}
    assert not made.weight[2].any()
    assert not torch.equal(made.weight, start) and list(made.state_dict()) == ["weight"]


def test_gradients_pass_by_the_rounding_but_not_farther_out() -> None:
    made = nn.Linear(4, 1, bias=False)
    made.weight = nn.Parameter(torch.tensor([[0.2, 0.8, 1.6, -1.6]]))
    keep_on_levels(made, torch.tensor([1.0]), 1, binary=False)
    (made.weight * torch.tensor([[1.0, 2.0, -3.0, -4.0]])).sum().backward()
    gradients = {name: parameter.grad for name, parameter in made.named_parameters()}
    weight, scale = (gradients[f"parametrizations.weight.{name}"] for name in ("original", "0.scale"))
    assert weight is not None and scale is not None
    assert weight.tolist() == [[1.0, 2.0, 0.0, -4.0]]
    # of the scale: rounding errors within (-0.2 and 0.2), levels beyond (1 and -1), over the root of four weights
    expected = (1.0 * -0.2 + 2.0 * 0.2 - 3.0 * 1.0 - 4.0 * -1.0) / 2
    assert float(scale) == pytest.approx(expected)


def test_the_gradient_of_a_scale_of_signs_is_that_of_what_it_scales() -> None:
    made = nn.Linear(3, 1, bias=False)
    made.weight = nn.Parameter(torch.tensor([[0.3, -0.1, 2.0]]))
    keep_on_levels(made, torch.tensor([0.5]), 1, binary=True)
    (made.weight * torch.tensor([[1.0, 2.0, 4.0]])).sum().backward()
    gradient = scale_of(made).grad
    assert gradient is not None and float(gradient) == pytest.approx((1.0 - 2.0 + 4.0) / 3**0.5)


def test_weights_that_are_tied_to_zero_stay_zero() -> None:
    made = nn.Linear(5, 2, bias=False)
    made.weight = nn.Parameter(torch.tensor([[0.0, 1.0, 0.0, -1.0, 1.0], [2.0, 0.0, 0.0, 2.0, -2.0]]))
    start = made.weight.detach().clone()
    tie(made.weight, zeros_of(made.weight))
    keep_on_levels(made, torch.tensor([1.0, 2.0]), 1, binary=False)
    descent = torch.optim.SGD(made.parameters(), 0.5, weight_decay=0.01)
    for _ in range(5):
        descent.zero_grad()
        made(torch.ones(1, 5)).square().sum().backward()
        descent.step()
    settle_on_levels(made)
    assert not torch.equal(made.weight, start) and not made.weight[start == 0].any()
