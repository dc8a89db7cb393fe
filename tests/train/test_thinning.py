"""Weights become zero in the course of a run: as many as were asked for, those that matter least, and for good."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from dots import TASK, Killed, dots, killed_after, same_bits, small_net
from slimwright.errors import RequestError
from slimwright.train import Schedule, fit, score
from slimwright.train.thinning import GROWS_FOR, Thinning, zeros_at

SHARE = 0.8
THIN = Schedule(epochs=8, batch_size=16, zeros=SHARE)  # 3 steps an epoch


def weights_of(model: nn.Module) -> list[torch.Tensor]:
    return [layer.weight.detach() for layer in model.modules() if isinstance(layer, nn.Conv2d | nn.Linear)]


def zeros_in(model: nn.Module) -> int:
    return sum(int((weight == 0).sum()) for weight in weights_of(model))


def test_the_share_grows_fast_at_first_and_is_whole_when_the_growing_part_is_over() -> None:
    assert zeros_at(0, SHARE) == 0 and zeros_at(GROWS_FOR, SHARE) == zeros_at(1, SHARE) == SHARE
    assert zeros_at(GROWS_FOR / 2, SHARE) == pytest.approx(SHARE * 7 / 8)


def test_as_many_weights_as_asked_for_are_zero_in_the_end_and_the_rest_has_learned() -> None:
    model = fit(small_net(), dots(), THIN, task=TASK)
    size = sum(weight.numel() for weight in weights_of(model))
    assert zeros_in(model) == round(SHARE * size)
    assert score(model, dots(), "test", TASK) == 100
    assert not any((module.bias == 0).any() for module in model.modules() if isinstance(module, nn.Linear))


def test_a_run_of_one_step_ends_with_them_too() -> None:
    model = fit(small_net(), dots(), replace(THIN, epochs=1, batch_size=64), task=TASK)
    assert zeros_in(model) == round(SHARE * sum(weight.numel() for weight in weights_of(model)))


def test_those_go_that_matter_least_to_the_loss() -> None:
    """The second input is never there, so its weights matter nothing, however large they are."""
    layer = nn.Linear(2, 3, bias=False)
    layer.weight.data = torch.tensor([[0.1, 5.0], [0.2, 6.0], [0.3, 7.0]])
    thinning = Thinning(layer, 0.5)
    layer(torch.tensor([[1.0, 0.0]])).sum().backward()
    thinning.look()
    thinning.thin(1.0)
    assert layer.weight.tolist() == [[pytest.approx(0.1), 0], [pytest.approx(0.2), 0], [pytest.approx(0.3), 0]]


@pytest.mark.parametrize("moment", [1, 4, 6])
def test_a_run_that_was_killed_ends_with_the_same_bits(moment: int, tmp_path: Path) -> None:
    whole = fit(small_net(), dots(), THIN, task=TASK)
    told, tell = killed_after(moment)
    with pytest.raises(Killed):
        fit(small_net(), dots(), THIN, task=TASK, checkpoint=tmp_path / "run", tell=tell)
    again = fit(small_net(), dots(), THIN, task=TASK, checkpoint=tmp_path / "run")
    assert told and same_bits(again, whole)


def test_earlier_weights_that_are_taken_up_become_zero_again() -> None:
    """Behind the part that grows, too; gradients that were no numbers are forgotten."""
    layer = nn.Linear(2, 3, bias=False)
    thinning = Thinning(layer, 0.5)
    earlier = torch.tensor([[0.1, 5.0], [0.2, 6.0], [0.3, 7.0]])
    for gradient in (torch.full((3, 2), math.nan), torch.tensor([[1.0, 0.0]]).expand(3, 2)):
        layer.weight.data = earlier.clone()
        layer.weight.grad = gradient.clone()
        thinning.start_over()
        thinning.look()
        thinning.thin(0.9)
    assert (layer.weight == 0).tolist() == [[False, True]] * 3


def test_what_does_not_go_together_is_refused() -> None:
    with pytest.raises(RequestError, match="need the whole run"):
        replace(THIN, patience=2)
    with pytest.raises(RequestError, match="need the whole run"):
        replace(THIN, average_over=1)
    for share in (1.0, -0.1):
        with pytest.raises(RequestError, match="below 1"):
            replace(THIN, zeros=share)
