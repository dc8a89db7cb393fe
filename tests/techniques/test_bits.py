"""What few bits are predicted to damage, beside what they do, and which layers stay in float for it."""

import pytest
import torch
from torch import Tensor

from slimwright.data import calibration_inputs, labelled, whole
from slimwright.evidence import Evidence
from slimwright.graph import Net
from slimwright.tasks import Classification
from slimwright.techniques import fold_batch_norm, most_damaged, observed
from slimwright.techniques.bits import bits_damages, int8_damages
from slimwright.techniques.quantize import quantized
from small_digits import few_digits, small_digit_net


@pytest.fixture(scope="module")
def net() -> Net:
    return fold_batch_norm(small_digit_net())


@pytest.fixture(scope="module")
def seen(net: Net) -> Evidence:
    data = few_digits()
    return observed(net, data, Classification(data.labels))


def loss_of(net: Net, wanted: Tensor) -> float:
    images, _ = labelled(whole(few_digits(), "calibration"))
    (scores,) = net.run(images)
    return float(torch.nn.functional.kl_div(scores.log_softmax(1), wanted.softmax(1), reduction="batchmean"))


def test_fewer_bits_damage_more_and_about_as_much_as_is_predicted(net: Net, seen: Evidence) -> None:
    images, _ = labelled(whole(few_digits(), "calibration"))
    (wanted,) = net.run(images)
    for layer in net.layers:
        predicted = bits_damages(net, seen, layer, (8, 4, 2))
        assert predicted[8] < predicted[4] < predicted[2]
        made = quantized(net, calibration_inputs(few_digits()), weight_bits={layer: 2}, activation_bits=None)
        assert 0.02 < loss_of(made, wanted) / predicted[2] < 50, layer  # it orders choices, and promises nothing


def test_the_layer_with_the_widest_outliers_stays_in_float(net: Net) -> None:
    first, second, _ = net.layers
    weight = net.tensors[net[second].tensors["weight"]].clone()
    weight[:, 0, 0, 0] *= 60  # one input channel of each output needs a scale that leaves the others few levels
    rough = net.edited(tensors={net[second].tensors["weight"]: weight})
    data = few_digits()
    seen = observed(rough, data, Classification(data.labels))
    damages = int8_damages(rough, seen)
    assert max(damages, key=lambda name: damages[name]) == second and first in damages
    assert most_damaged(rough, seen, dict.fromkeys(rough.layers, 1), 0.5) == (second,)


def test_layers_that_cost_more_in_float_come_later(net: Net, seen: Evidence) -> None:
    names = [*net.layers]
    for cheap in names:
        costs = {name: 1.0 if name == cheap else 1e9 for name in names}
        assert cheap in most_damaged(net, seen, costs, 1e-9)
    assert len(most_damaged(net, seen, dict.fromkeys(names, 1.0), 1.0)) == len(names) - 1
