"""Nets that compute with integers: where values stand on levels, and how near they come to what they were made of."""

from pathlib import Path

import pytest
import torch

from example_nets import SHAPE, hand_made
from proofs import share_right
from slimwright.data import Part, calibration_inputs, digits, labelled, whole
from slimwright.errors import RequestError
from slimwright.graph import Net, load_net, save_net
from slimwright.graph.levels import LEVELS, has_levels, without_levels
from slimwright.importers import capture
from slimwright.techniques import fold_batch_norm
from slimwright.techniques.integers import integer_values
from slimwright.techniques.quantize import Quantize, quantized
from slimwright.techniques.recipe import Recipe, apply
from small_digits import few_digits, small_digit_net


@pytest.fixture(scope="module")
def net() -> Net:
    return fold_batch_norm(small_digit_net())


def test_values_between_layers_stand_on_levels(residual: Net) -> None:
    """Activations share those of the layer before them; the scores stay as they are."""
    folded = fold_batch_norm(residual)
    values = integer_values(folded, {node.name for node in folded.weighted()})
    ops = {name: folded[name].op for name in values}
    assert [*ops.values()] == ["input", "relu", "conv2d", "relu", "mean"]
    assert all(name == like for name, like in values.items())


def test_what_only_moves_or_picks_keeps_its_levels(net: Net) -> None:
    values = integer_values(net, {node.name for node in net.weighted()})
    like = {net[name].op: net[other].op for name, other in values.items()}
    assert like["max_pool2d"] == like["flatten"] == "relu"


def test_what_reads_no_integers_gives_none() -> None:
    """A sigmoid is computed in float, and so is what follows until a layer reads it."""
    concat = fold_batch_norm(capture(hand_made("Concat"), SHAPE))
    values = integer_values(concat, {node.name for node in concat.weighted()})
    assert "sigmoid" not in {concat[name].op for name in values}
    read = {node.source for node in concat.weighted()}
    assert read <= values.keys()


def test_a_layer_that_stays_in_float_keeps_its_weights(net: Net) -> None:
    first = next(net.weighted()).name
    small = quantized(net, calibration_inputs(few_digits(), 60), weight_bits=4, keep_float=(first,))
    weights = {node.name: node.tensors["weight"] for node in net.weighted()}
    assert small.float_layers == (first,)
    rows = small.tensors[weights[first]].flatten(1)
    assert max(len(row.unique()) for row in rows) > 8
    for name, weight in weights.items():
        if name != first:
            assert max(len(row.unique()) for row in small.tensors[weight].flatten(1)) <= 15
    with pytest.raises(RequestError, match="there is no layer 'gone' to stay in float"):
        quantized(net, calibration_inputs(few_digits(), 8), keep_float=("gone",))


def test_a_net_whose_layers_all_stay_in_float_stays_as_it_is(net: Net) -> None:
    every = tuple(node.name for node in net.weighted())
    assert quantized(net, calibration_inputs(few_digits(), 8), keep_float=every).digest == net.digest


@pytest.mark.parametrize(("weight_bits", "activation_bits"), [(8, 8), (4, 8), (4, 4), (4, None), (2, None)])
def test_few_bits_cost_few_digits(weight_bits: int, activation_bits: int | None, net: Net) -> None:
    data = few_digits()
    small = quantized(net, calibration_inputs(data, 200), weight_bits=weight_bits, activation_bits=activation_bits)
    assert has_levels(small) == (activation_bits is not None)
    assert small.precision == ("int8" if activation_bits else "fp32")
    every = digits(seed=0)
    parts: tuple[Part, ...] = ("validation", "test")
    images, labels = (torch.cat(found) for found in zip(*(labelled(whole(every, part)) for part in parts), strict=True))
    before, after = (share_right(each.run(images)[0], labels) for each in (net, small))
    assert after >= before - 0.04
    assert small.size_bytes(next(small.weighted()).tensors["weight"]) < net.size_bytes(
        next(net.weighted()).tensors["weight"]
    )


def test_a_net_on_levels_is_read_back(net: Net, tmp_path: Path) -> None:
    small = quantized(net, calibration_inputs(few_digits(), 30))
    save_net(small, tmp_path / "net")
    again = load_net(tmp_path / "net")
    assert again.digest == small.digest
    images = torch.randn(3, *net.input.shape[1:])
    assert torch.equal(again.run(images)[0], small.run(images)[0])
    bare = without_levels(small)
    assert [node.op for node in bare.nodes] == [node.op for node in net.nodes]
    assert without_levels(net) is net
    assert sum(node.op == LEVELS for node in small.nodes) == len(small.nodes) - len(bare.nodes)


def test_a_recipe_rounds_by_least_squares(net: Net) -> None:
    data = few_digits()
    step = Quantize(images=60, rounding="least squares", weight_bits=4)
    recipe = Recipe.of(net, step)
    again = Recipe.model_validate_json(recipe.model_dump_json())
    assert again == recipe
    small = apply(recipe, net, data)
    assert has_levels(small) and small.precision == "int8"
    plain = apply(Recipe.of(net, Quantize(images=60)), net, data)
    assert not has_levels(plain) and plain.tensors.keys() == net.tensors.keys()
    assert all(torch.equal(plain.tensors[name], tensor) for name, tensor in net.tensors.items())
