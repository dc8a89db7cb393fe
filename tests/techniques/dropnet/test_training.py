import copy
from dataclasses import replace

import pytest
import torch
from tiny import TASK, linears, pictures
from torch import nn
from torch.nn import functional as F

from slimwright.data import ArrayData, labelled
from slimwright.errors import DataError
from slimwright.progress import Event
from slimwright.techniques.dropnet import AS_PUBLISHED
from slimwright.train import Schedule, fit, mean_loss


@pytest.fixture(scope="module")
def data() -> ArrayData:
    return pictures()


def epochs_of(module: nn.Module, data: ArrayData, schedule: Schedule) -> int:
    """Train, and count the epochs."""
    told: list[Event] = []
    fit(module, data, schedule, tell=told.append, task=TASK)
    return len(told)


def test_an_epoch_is_plain_gradient_descent(data: ArrayData) -> None:
    """By hand, in order, to 1e-6."""
    module = linears().to_module()
    by_hand = copy.deepcopy(module)
    assert epochs_of(module, data, replace(AS_PUBLISHED, epochs=1, rate=0.2, batch_size=25, seed=None)) == 1
    images, labels = labelled(data.parts["train"])
    for start in (0, 25, 50):
        loss = F.cross_entropy(by_hand(images[start : start + 25]), labels[start : start + 25])
        gradients = torch.autograd.grad(loss, list(by_hand.parameters()))
        with torch.no_grad():
            for parameter, gradient in zip(by_hand.parameters(), gradients, strict=True):
                parameter.sub_(0.2 * gradient)
    for one, other in zip(module.parameters(), by_hand.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-6)


def losses_by_epoch(data: ArrayData, schedule: Schedule) -> list[float]:
    """The least validation loss so far after each epoch, of trainings that are one epoch longer each."""
    found = []
    for epochs in range(1, schedule.epochs + 1):
        module = linears(2).to_module()
        fit(module, data, replace(schedule, epochs=epochs, patience=epochs), task=TASK)
        found.append(mean_loss(module, data, "validation", TASK))
    return found


def test_it_stops_when_the_loss_no_longer_falls_and_keeps_the_best_epoch(data: ArrayData) -> None:
    schedule = replace(
        AS_PUBLISHED, epochs=12, patience=3, rate=0.6, batch_size=8
    )  # a rate at which the loss jumps about
    best_so_far = losses_by_epoch(data, schedule)
    module = linears(2).to_module()
    epochs = epochs_of(module, data, schedule)
    assert 4 < epochs < 12
    assert mean_loss(module, data, "validation", TASK) == best_so_far[epochs - 1] == best_so_far[epochs - 4]
    assert best_so_far[epochs - 4] < best_so_far[epochs - 5]  # the last epoch that helped
    assert not module.training


def test_the_order_is_seeded(data: ArrayData) -> None:
    weights = []
    for seed in (0, 0, 1, None):
        module = linears().to_module()
        fit(module, data, replace(AS_PUBLISHED, epochs=1, batch_size=8, seed=seed), task=TASK)
        weights.append(torch.cat([parameter.flatten() for parameter in module.parameters()]))
    assert torch.equal(weights[0], weights[1])
    assert not any(torch.equal(weights[0], other) for other in weights[2:])


def deep() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(36, 36), nn.Linear(36, 36), nn.Linear(36, 3))


def test_a_training_that_never_had_a_loss_is_refused(data: ArrayData) -> None:
    with pytest.raises(
        DataError, match=r"loss is \S+ in epoch 1; lower the rate \(1000000.0\), which was halved 8 times"
    ):
        fit(deep(), data, replace(AS_PUBLISHED, epochs=3, rate=1e6), task=TASK)


def test_a_training_that_loses_itself_goes_on_at_a_lower_rate(data: ArrayData) -> None:
    schedule = replace(AS_PUBLISHED, epochs=40, patience=40, rate=3.0, seed=None)
    told: list[Event] = []
    fit(deep(), data, replace(schedule, epochs=2), tell=told.append, task=TASK)
    before = least_loss(told[-1])
    fit(deep(), data, schedule, tell=told.append, task=TASK)
    assert "nan" not in told[-1].note and told[-1].done == 40 and least_loss(told[-1]) < before


def least_loss(event: Event) -> float:
    return float(event.note.split("least validation loss ")[1].split()[0])
