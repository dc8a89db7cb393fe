"""The step that rounds: every layer on a grid of its own, the net still does what it did, and a size is met."""

import pytest
import torch

from slimwright.graph import Net
from slimwright.storage import packed_bytes, plain_bytes
from slimwright.techniques import Prune, Recipe, Round, Solve, Sparsify, apply, sentences
from small_digits import few_digits, right, small_digit_net


def levels(net: Net, name: str) -> int:
    return len(net.tensors[name].unique())


def test_a_net_is_rounded_layer_by_layer() -> None:
    net, data = small_digit_net(), few_digits()
    few = {}
    for price in (1e-7, 3e-6):
        made = apply(Recipe.of(net, Round(price=price)), net, data)
        assert made.tensors.keys() == net.tensors.keys() and right(made) >= right(net) - 0.05
        for layer in made.weighted():
            weight = made.tensors[layer.tensors["weight"]]
            step = weight.abs()[weight != 0].min()
            steps = [step / whole for whole in range(1, 9)]
            off = min(float((weight / one - (weight / one).round()).abs().max()) for one in steps)
            assert off < 1e-2, layer.name
        few[price] = sum(levels(made, name) for name in made.tensors)
    assert few[3e-6] < few[1e-7] < sum(tensor.numel() for tensor in net.tensors.values())


def test_it_stands_behind_all_that_finds_weights_and_is_told() -> None:
    net = small_digit_net()
    first = next(net.weighted()).name
    recipe = Recipe.of(net, Round(price=1e-6, images=64), Prune(keep={first: [0, 1, 2, 3]}))
    assert [step.step for step in recipe.steps] == ["prune", "fold_batch_norm", "round"]
    assert sentences(recipe)[-1] == (
        "Round the weights to few levels on 64 calibration images: a bit may cost 1e-06 nats of loss."
    )


def test_the_same_recipe_gives_the_same_net() -> None:
    net, data = small_digit_net(), few_digits()
    one, two = (apply(Recipe.of(net, Round(price=1e-6)), net, data) for _ in range(2))
    assert all(torch.equal(one.tensors[name], two.tensors[name]) for name in one.tensors)


def test_a_pruned_net_is_rounded_to_a_size_in_one_recipe() -> None:
    net, data = small_digit_net(), few_digits()
    size = plain_bytes(net) // 20
    first = next(net.weighted()).name
    recipe = Recipe.of(net, Prune(keep={first: [0, 1, 2, 3, 4, 5]}), Solve(), Round(size_bytes=size, images=64))
    made = apply(recipe, net, data)
    assert 0.99 * size <= packed_bytes(made) <= size and len(made.tensors[made[first].tensors["weight"]]) == 6
    assert right(made) > 0.6
    assert sentences(recipe)[-1].startswith("Round the weights on 64 calibration images so that the packed file takes")


def test_zeros_that_were_made_stay() -> None:
    net, data = small_digit_net(), few_digits()
    sparse = (Sparsify(share=0.6, images=64),)
    before = apply(Recipe.of(net, *sparse), net, data)
    after = apply(Recipe.of(net, *sparse, Round(price=1e-7, images=64)), net, data)
    for layer in before.weighted():
        weight = layer.tensors["weight"]
        zero = before.tensors[weight] == 0
        assert zero.any() and not after.tensors[weight][zero].any()
    assert right(after) >= right(before) - 0.05


def test_a_price_and_a_size_exclude_each_other() -> None:
    with pytest.raises(ValueError, match="either the price of a bit, or size_bytes"):
        Round()
    with pytest.raises(ValueError, match="either the price of a bit, or size_bytes"):
        Round(price=1e-6, size_bytes=1000)
