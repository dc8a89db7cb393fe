import copy
from typing import Any

import pytest
import torch
from tiny import linears, pictures
from torch import nn
from torch.nn import functional as F

from slimwright.data import ArrayData
from slimwright.dropnet import Training
from slimwright.dropnet.training import measured, train
from slimwright.errors import DataError, RequestError


@pytest.fixture(scope="module")
def data() -> ArrayData:
    return pictures()


def test_an_epoch_is_plain_gradient_descent(data: ArrayData) -> None:
    """By hand, in order, to 1e-6."""
    module = linears().to_module()
    by_hand = copy.deepcopy(module)
    assert train(module, data, Training(epochs=1, rate=0.2, batch_size=25, order=None)) == 1
    images, labels = data.parts["train"]
    for start in (0, 25, 50):
        loss = F.cross_entropy(by_hand(images[start : start + 25]), labels[start : start + 25])
        gradients = torch.autograd.grad(loss, list(by_hand.parameters()))
        with torch.no_grad():
            for parameter, gradient in zip(by_hand.parameters(), gradients, strict=True):
                parameter.sub_(0.2 * gradient)
    for one, other in zip(module.parameters(), by_hand.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-6)


def epochs_and_losses(data: ArrayData, training: Training) -> list[float]:
    """The validation loss after each epoch, of trainings that are one epoch longer each."""
    found = []
    for epochs in range(1, training.epochs + 1):
        module = linears(2).to_module()
        train(module, data, Training(epochs, epochs, training.rate, training.batch_size, training.order))
        found.append(measured(module, data, "validation")[0])
    return found


def test_it_stops_when_the_loss_no_longer_falls_and_keeps_the_best_epoch(data: ArrayData) -> None:
    training = Training(epochs=12, patience=3, rate=0.6, batch_size=8)  # a rate at which the loss jumps about
    best_so_far = epochs_and_losses(data, training)
    module = linears(2).to_module()
    epochs = train(module, data, training)
    assert 4 < epochs < 12
    assert measured(module, data, "validation")[0] == best_so_far[epochs - 1] == best_so_far[epochs - 4]
    assert best_so_far[epochs - 4] < best_so_far[epochs - 5]  # the last epoch that helped
    assert not module.training


def test_the_order_is_seeded(data: ArrayData) -> None:
    weights = []
    for order in (0, 0, 1, None):
        module = linears().to_module()
        train(module, data, Training(epochs=1, batch_size=8, order=order))
        weights.append(torch.cat([parameter.flatten() for parameter in module.parameters()]))
    assert torch.equal(weights[0], weights[1])
    assert not any(torch.equal(weights[0], other) for other in weights[2:])


def test_measured_by_hand(data: ArrayData) -> None:
    module = linears().to_module()
    images, labels = data.parts["validation"]
    loss, right = measured(module, data, "validation")
    with torch.no_grad():
        scores = module(images)
    assert loss == pytest.approx(float(F.cross_entropy(scores, labels)), rel=1e-6)
    assert right == pytest.approx(float((scores.argmax(1) == labels).float().mean()))


def test_a_training_that_never_had_a_loss_is_refused(data: ArrayData) -> None:
    module = nn.Sequential(nn.Flatten(), nn.Linear(36, 36), nn.Linear(36, 36), nn.Linear(36, 3))
    with pytest.raises(DataError, match="from the first epoch on; lower the rate"):
        train(module, data, Training(epochs=3, rate=1e6))


@pytest.mark.parametrize("wrong", [{"epochs": 0}, {"patience": 0}, {"rate": 0.0}, {"batch_size": 0}])
def test_a_training_that_is_none_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(RequestError, match="at least 1 and the rate above 0"):
        Training(**wrong)
