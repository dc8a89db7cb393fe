"""The step that shares values: few in each layer, the net still does what it did, and its file is small."""

import math
from pathlib import Path

import pytest
import torch
from pydantic import ValidationError

from slimwright.errors import RequestError
from slimwright.storage import read_packed, write_packed
from slimwright.storage.tensors import stored
from slimwright.techniques import Recipe, Share, Solve, Sparsify, Step, Tune, applied, sentences
from small_digits import few_digits, made, matrices, right, small_digit_net


def test_every_layer_takes_few_values_and_the_net_does_what_it_did() -> None:
    small = made(Share(bits=4))
    assert all(len(weight.unique()) <= 16 for weight in matrices(small).values())
    assert right(small) >= right(small_digit_net()) - 0.05


@pytest.mark.parametrize("start", ["linear", "density", "forgy"])
def test_bits_may_be_each_layers_own_and_others_are_left_alone(start: str) -> None:
    small = made(Share(bits={"conv2d_1": 3, "linear": 2}, start=start, seed=3))
    first, conv, linear = matrices(small).values()
    assert torch.equal(first, next(iter(matrices(small_digit_net()).values())))
    assert len(conv.unique()) <= 8 and len(linear.unique()) <= 4


def test_a_layer_with_fewer_weights_than_values_is_left_alone_and_told() -> None:
    net = small_digit_net()
    work = applied(Recipe(original=None, steps=(Share(bits=7, images=64),)), net, few_digits())
    assert work.draft.unsolved["conv2d"] == "its 72 weights are no more than the 128 values that they may take"
    assert torch.equal(*(next(iter(matrices(one).values())) for one in (net, work.draft.net)))


@pytest.mark.parametrize(
    "later", [(Tune(epochs=2, rate=0.02),), (Sparsify(share=0.3, keep_dense=("linear",)), Solve())]
)
def test_equal_values_stay_equal_where_the_recipe_goes_on(later: tuple[Step, ...]) -> None:
    before, after = made(Share(bits=3)), made(Share(bits=3), *later)
    old, new = (list(matrices(net).values())[-1] for net in (before, after))
    assert len(new.unique()) <= 8 and not torch.equal(old, new)
    for value in old.unique():
        assert len(new[old == value].unique()) == 1


def test_tuning_its_values_keeps_what_the_net_does() -> None:
    coarse = made(Share(bits=2))
    tuned = made(Share(bits=2), Tune(epochs=4, rate=0.02))
    assert right(tuned) >= right(coarse) - 0.02
    assert all(len(weight.unique()) <= 4 for weight in matrices(tuned).values())


def test_sparse_layers_share_the_values_that_are_left() -> None:
    sparse, small = made(Sparsify(share=0.7)), made(Sparsify(share=0.7), Share(bits=3))
    for before, after in zip(matrices(sparse).values(), matrices(small).values(), strict=True):
        assert torch.equal(before == 0, after == 0) and len(after.unique()) <= 8


def test_the_file_is_as_small_as_the_arithmetic_says() -> None:
    """Each layer by a codebook: the entropy of its codes, and at most four bytes for each value and 40 bytes."""
    small = made(Share(bits=4))
    for name, weight in matrices(small).items():
        found = stored(weight)
        shares = weight.unique(return_counts=True)[1].double() / weight.numel()
        entropy = float(-(shares * shares.log2()).sum()) * weight.numel() / 8
        assert found.form in ("codebook", "sparse codebook"), name
        assert len(found.data) <= 1.05 * entropy + 4 * len(shares) + 40
        assert len(found.data) <= math.ceil(4 * weight.numel() / 8) + 4 * 16 + 40


def test_a_file_of_codes_holds_the_net_to_the_bit(tmp_path: Path) -> None:
    small = made(Share(bits=4, images=64))
    write_packed(small, tmp_path / "small.swz")
    assert read_packed(tmp_path / "small.swz").digest == small.digest


def test_the_step_says_what_it_does_and_stands_in_a_file() -> None:
    recipe = Recipe(original=None, steps=(Share(bits=4), Share(bits={"conv": 3, "fc": 5}, start="forgy", images=9)))
    assert Recipe.model_validate_json(recipe.model_dump_json()) == recipe
    assert sentences(recipe) == [
        "Let the weights of each layer share 16 values, found on the calibration images.",
        "Let the weights of layers share values, found on 9 calibration images: conv 8, fc 32.",
    ]


@pytest.mark.parametrize("bits", [0, 13, {"conv2d": 0}])
def test_bits_that_make_no_table_are_refused(bits: object) -> None:
    with pytest.raises(ValidationError):
        Share(bits=bits)


def test_a_layer_that_is_not_there_is_named() -> None:
    with pytest.raises(RequestError, match="there is no layer 'fc'"):
        made(Share(bits={"fc": 3}))
