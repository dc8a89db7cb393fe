"""Nets that compute with integers: where values stand on levels, and how near they come to what they were made of."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from example_nets import SHAPE, hand_made
from proofs import share_right
from slimwright.data import Part, calibration_inputs, digits, labelled, whole
from slimwright.errors import RequestError
from slimwright.graph import Net, load_net, save_net
from slimwright.graph.levels import LEVELS, has_levels, without_levels
from slimwright.importers import capture
from slimwright.techniques import fold_batch_norm
from slimwright.techniques.integers import integer_values
from slimwright.techniques.quantize import Quantize, corrected_for_runtime, quantized
from slimwright.techniques.recipe import Recipe, applied, apply
from slimwright.techniques.sparsify import Sparsify
from small_digits import few_digits, made, matrices, small_digit_net


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


def mean_error(net: Net, small: Net, images: Tensor) -> float:
    """How far the means of scores are apart, over how far scores are."""
    wanted, found = (each.run(images)[0] for each in (net, small))
    return float((found - wanted).mean(0).square().mean() / wanted.square().mean())


@pytest.mark.parametrize("activation_bits", [None, 6])
def test_corrected_biases_keep_the_means_of_scores(activation_bits: int | None, net: Net) -> None:
    inputs = torch.as_tensor(calibration_inputs(few_digits(), 130))
    plain, corrected = (
        quantized(net, inputs, weight_bits=3, activation_bits=activation_bits, rounding="nearest", correct_biases=how)
        for how in (False, True)
    )
    for node in net.weighted():
        weight, bias = node.tensors["weight"], node.tensors["bias"]
        assert torch.equal(plain.tensors[weight], corrected.tensors[weight])
        assert torch.equal(plain.tensors[bias], net.tensors[bias])
        assert not torch.equal(corrected.tensors[bias], net.tensors[bias])
    assert mean_error(net, corrected, inputs) < 0.05 * mean_error(net, plain, inputs)


def test_biases_are_corrected_for_what_a_runtime_will_round(net: Net) -> None:
    """Weights stay; once they are rounded, to fewer bits here so that it shows, means are as they were."""
    inputs = torch.as_tensor(calibration_inputs(few_digits(), 130))
    corrected = corrected_for_runtime(net, inputs)
    first = next(net.weighted()).name
    some = corrected_for_runtime(net, inputs, keep_float=(first,))
    for node in net.weighted():
        weight, bias = node.tensors["weight"], node.tensors["bias"]
        assert torch.equal(corrected.tensors[weight], net.tensors[weight])
        assert not torch.equal(corrected.tensors[bias], net.tensors[bias])
        assert torch.equal(some.tensors[weight], net.tensors[weight])
    torch.testing.assert_close(some.tensors[net[first].tensors["bias"]], net.tensors[net[first].tensors["bias"]])
    near = (
        quantized(each, inputs, weight_bits=8, activation_bits=None, rounding="nearest").run(inputs)[0]
        for each in (net, corrected)
    )
    before, after = (float((found - net.run(inputs)[0]).mean(0).abs().mean()) for found in near)
    assert after < 0.1 * before


def test_a_recipe_scales_and_corrects_first(net: Net) -> None:
    data = few_digits()
    plain, prepared = (
        apply(Recipe.of(net, Quantize(images=100, equalise=how, correct_biases=how)), net, data)
        for how in (False, True)
    )
    assert prepared.encodings == plain.encodings and prepared.tensors.keys() == plain.tensors.keys()
    assert not any(torch.equal(prepared.tensors[name], tensor) for name, tensor in plain.tensors.items())
    images = torch.as_tensor(calibration_inputs(data, 100))
    torch.testing.assert_close(prepared.run(images)[0], plain.run(images)[0], atol=0.1, rtol=0)
    alike = apply(Recipe.of(net, Quantize(images=100, equalise=True)), net, data)
    assert torch.equal(alike.run(images)[0], plain.run(images)[0])
    with pytest.raises(ValueError, match="leave them out for float16"):
        Quantize(precision="float16", images=8, equalise=True)


def test_costs_are_those_of_the_bits_that_are_asked_for(net: Net) -> None:
    for bits in (1, 2, 4):
        step = Quantize(images=30, rounding="nearest", weight_bits=bits)
        found = [applied(Recipe.of(net, step), net, few_digits(), cost_only=only).draft.net for only in (False, True)]
        assert found[0].encodings == found[1].encodings
        for node in net.weighted():
            rows = net.tensors[node.tensors["weight"]].flatten(1)
            assert found[0].size_bytes(node.tensors["weight"]) == -(-bits * rows.numel() // 8) + 4 * len(rows)


def test_zeros_stay_zero_on_levels(net: Net) -> None:
    sparse = made(Sparsify(share=0.6), Quantize(images=60, rounding="least squares", weight_bits=4))
    share = {name: float((weight == 0).double().mean()) for name, weight in matrices(sparse).items()}
    before = {name: weight == 0 for name, weight in matrices(made(Sparsify(share=0.6))).items()}
    assert all((matrices(sparse)[name][zero] == 0).all() for name, zero in before.items())
    assert max(share.values()) > 0.6
