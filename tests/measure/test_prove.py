"""What counts as proven."""

import torch

from example_nets import SHAPE, hand_made
from slimwright.cost import count
from slimwright.importers import capture
from slimwright.measure.layers import layers_of
from slimwright.measure.prove import parity as outputs_parity
from slimwright.measure.records import Parity
from slimwright.tasks import Classification
from slimwright.techniques.low_rank import Factors, factorise


def scores() -> torch.Tensor:
    return torch.eye(10).repeat(4, 1) * 3 + torch.linspace(0, 0.5, 400).reshape(40, 10)


def parity(found: torch.Tensor, expected: torch.Tensor, precision: str) -> Parity:
    return outputs_parity(Classification(tuple("0123456789")), (found,), (expected,), precision)


def test_scores_that_agree_up_to_rounding_are_proven() -> None:
    proof = parity(scores() + 1e-6, scores(), "fp32")
    assert proof.passed
    assert proof.agreement == 1
    assert 0 < proof.max_abs_error < 1e-5


def test_one_wrong_score_fails_an_fp32_proof() -> None:
    found = scores()
    found[7, 3] += 0.1
    proof = parity(found, scores(), "fp32")
    assert not proof.passed
    assert abs(proof.max_abs_error - 0.1) < 1e-5


def test_int8_may_be_off_but_must_name_the_same_classes() -> None:
    noise = 0.2 * torch.randn(40, 10, generator=torch.Generator().manual_seed(0))
    assert parity(scores() + noise, scores(), "int8").passed
    assert not parity(scores().roll(1, dims=1), scores(), "int8").passed


def test_scores_that_are_not_numbers_are_never_proven() -> None:
    found = scores()
    found[0] = float("nan")
    assert not parity(found, scores(), "fp32").passed
    assert not parity(found, scores(), "int8").passed


def test_what_a_layer_was_factorised_into_counts_as_that_layer() -> None:
    net = capture(hand_made("Residual"), SHAPE)
    small = factorise(net, {"conv2d_1": Factors("tucker2", (2, 3))})
    found = {layer.name: layer for layer in layers_of(net, small)}
    assert list(found) == [net.paths[node.name] for node in net.weighted()]
    assert sum(layer.macs_after for layer in found.values()) == count(small).macs
    layer = found[net.paths["conv2d_1"]]
    places = layer.macs_before // (6 * 6 * 9)
    assert layer.macs_after == places * (6 * 2 + 2 * 3 * 9 + 3 * 6)
    assert layer.channels_before == layer.channels_after == 6
    others = [each for each in found.values() if each is not layer]
    assert all(each.macs_after == each.macs_before for each in others)
